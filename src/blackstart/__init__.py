"""Recovery testing for trading systems.

RTO in five phases, RPO event by event, validated state, kept evidence.
"""

__version__ = "0.1.0"
