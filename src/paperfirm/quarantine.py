"""What arrived and cannot be true: kept in a file for a person to look at, told, and not acted upon (R42)."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_BYTES = 16 << 20
TOLD_CHARACTERS = 500
Action = Literal["kept", "fetched again", "dropped"]
"""Used without what is wrong in it; the truth is asked for; ignored, and nothing is missing."""


class Held(msgspec.Struct, frozen=True):
    """A line of the file."""

    mono_ns: int
    wall_ns: int
    source: str
    reason: str
    action: Action
    message: str


class Quarantine:
    """One component's quarantine. `emit` writes the event `quarantined`."""

    def __init__(self, path: Path, emit: Callable[..., int]) -> None:
        self._path = path
        self._emit = emit
        self.count = 0

    def keep(self, source: str, reason: str, message: str, *, action: Action) -> None:
        """Keep a message and tell of it; a disk that takes nothing more does not stop the work."""
        self.count += 1
        line = Held(time.monotonic_ns(), time.time_ns(), source, reason, action, message)
        kept = False
        with contextlib.suppress(OSError):
            kept = self._append(msgspec.json.encode(line) + b"\n")
        told = message[:TOLD_CHARACTERS]
        self._emit(
            "quarantined",
            source=source,
            reason=reason,
            message=told,
            action=action,
            file=str(self._path),
            kept=kept,
        )

    def _append(self, line: bytes) -> bool:
        """Write a whole line; says whether there was room for it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            return os.fstat(fd).st_size + len(line) <= MAX_BYTES and os.write(fd, line) == len(line)
        finally:
            os.close(fd)
