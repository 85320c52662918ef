"""Measuring the measuring: a target that knows the truth about its outages, and the error of what we say."""
