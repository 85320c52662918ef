"""Everything that touches a system under test: its manifest, processes, probes, events, ledgers and state."""
