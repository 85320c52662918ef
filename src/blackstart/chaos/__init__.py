"""The chaos engine (R18 to R23): breaks a target again and again while it trades, and watches."""
