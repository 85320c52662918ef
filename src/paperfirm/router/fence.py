"""The fence: once an epoch has been bound, no lower one ever is again, whatever is killed when."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - kept at run time

import msgspec

from paperfirm.config import write_atomically


class Holder(msgspec.Struct, frozen=True):
    """Which engine holds the router, with which epoch."""

    epoch: int = 0
    engine: str = ""


class Fence:
    """The highest epoch bound so far, on disk before it takes effect."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.holder = msgspec.json.decode(path.read_bytes(), type=Holder) if path.exists() else Holder()

    def refusal(self, engine: str, epoch: int) -> str | None:
        """Return why this engine may not bind, or None."""
        held = self.holder
        if epoch < held.epoch:
            return f"epoch {epoch} is over: {held.engine} holds epoch {held.epoch}"
        if epoch == held.epoch and held.engine and engine != held.engine:
            return f"epoch {epoch} belongs to {held.engine}, not to {engine}"
        return None

    def admit(self, engine: str, epoch: int) -> None:
        """Record the new holder durably."""
        holder = Holder(epoch, engine)
        if holder != self.holder:
            write_atomically(self._path, msgspec.json.encode(holder))
            self.holder = holder
