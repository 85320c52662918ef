"""The structured event log: one JSON line an event, one write a line, on the monotonic clock (R31).

A disk that takes nothing is no reason to stop: lines wait in memory, in order, until there is room again.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Clock = tuple["Callable[[], int]", "Callable[[], int]"]
SYSTEM_CLOCK: Clock = (time.monotonic_ns, time.time_ns)
WAITING_BYTES = 4 << 20
"""So much waits for room; what comes after that is lost, and counted."""


class Entry(msgspec.Struct, frozen=True):
    """One line of the log; `epoch` is left out while there is none."""

    mono_ns: int
    wall_ns: int
    component: str
    pid: int
    event: str
    detail: dict[str, Any]
    epoch: int | msgspec.UnsetType = msgspec.UNSET


class EventLog:
    """Appends to `DIR/events/COMPONENT.jsonl`. `last_written_mono_ns` is 0 before the first event."""

    def __init__(self, path: Path, component: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.component = component
        self.last_written_mono_ns = 0
        self._mono, self._wall = clock
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._encoder = msgspec.json.Encoder()
        self._pid = os.getpid()
        self._waiting = bytearray()
        self.lost = 0
        """Events that not even the memory had room for."""

    def emit(self, event: str, *, epoch: int | None = None, mono_ns: int | None = None, **detail: Any) -> int:
        """Write one event and return its monotonic stamp (ns); `mono_ns`: when it happened, if not now."""
        stamp = self._mono() if mono_ns is None else mono_ns
        entry = Entry(
            stamp,
            self._wall(),
            self.component,
            self._pid,
            event,
            detail,
            msgspec.UNSET if epoch is None else epoch,
        )
        if len(self._waiting) < WAITING_BYTES:
            self._waiting += self._encoder.encode(entry) + b"\n"
        else:
            self.lost += 1
        if self.write_waiting():
            self.last_written_mono_ns = stamp
        return stamp

    def write_waiting(self) -> bool:
        """Write what waits; whether nothing waits any more. Called now and then while a disk is full."""
        try:
            while self._waiting:  # a full disk may take a part of a line
                del self._waiting[: os.write(self._fd, self._waiting)]
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_event_log(directory: Path, component: str) -> EventLog:
    """Open the log of one component below the firm's directory."""
    return EventLog(directory / "events" / f"{component}.jsonl", component)
