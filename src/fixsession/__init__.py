"""FIX 4.4 session layer without I/O: bytes and clock in, bytes and events out."""
