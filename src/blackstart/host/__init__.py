"""Things about this host's processes: who lives, who belongs to whom, who died and when."""
