"""The engine: a deterministic core behind a journal, replicated to a standby.

Recovered from checkpoint and exchange.
"""
