"""The engine: a deterministic core behind a journal, replicated to a standby, recovered from checkpoint and exchange."""
