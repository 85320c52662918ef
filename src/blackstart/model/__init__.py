"""Frozen values that every layer shares. Pure: no I/O, no clock, no randomness."""
