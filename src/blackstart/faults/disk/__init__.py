"""Faults of disks: full, failing, lying, slow."""
