"""HTTP: back office for members, oracle, control."""
