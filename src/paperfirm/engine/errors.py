"""The engine's one error class."""


class EngineError(Exception):
    """Something the engine cannot go on with; says what, where and what to do."""
