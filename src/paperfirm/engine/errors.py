"""The engine's errors: one class for all that is said, two kinds that ask for another answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class EngineError(Exception):
    """Something does not work; says what, where and what to do."""


class DiskFullError(EngineError):
    """There is no room for the journal at `path`. It may be tried again: nothing of it counts as written."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path}: {error.strerror}; make room")
        self.path = path
        self.cause = error


class FsyncFailedError(EngineError):
    """What was written may not be on the disk, and no later sync could tell: this process ends."""
