"""Faults: one way to break something a file."""
