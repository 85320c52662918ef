"""Statistics that claim no more than the data support. Pure."""
