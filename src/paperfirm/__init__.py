"""A reference trading firm in real processes, built to recover: the system that Blackstart breaks by default."""
