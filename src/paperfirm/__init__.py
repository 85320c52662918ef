"""A reference trading firm in real processes, built to recover: what Blackstart breaks by default."""
