"""Scenarios: loading them from files, and planning trials from them. Pure."""
