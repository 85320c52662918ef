"""Faults of links: partitions, losses, delays, resets, connections half open. One kind a file."""
