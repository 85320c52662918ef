"""Who is primary. One epoch, one holder, on disk before anybody is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from paperfirm.config import write_atomically
from paperfirm.wire import Promote, Promoted, Replication

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Tenure(msgspec.Struct, frozen=True):
    """The present epoch, who holds it, and whether the other engine holds everything that was released."""

    epoch: int = 0
    primary: str | None = None
    in_sync: bool = False


class Arbiter:
    """Grants epochs. `lives(engine)` says whether the process that holds the present epoch is still there."""

    def __init__(self, path: Path, lives: Callable[[str], bool]) -> None:
        self._path = path
        self._lives = lives
        self.tenure = msgspec.json.decode(path.read_bytes(), type=Tenure) if path.exists() else Tenure()
        self.closed = False
        """Set while the firm stops: a standby must not take over from a primary that was told to end."""

    def must_wait(self, request: Promote) -> bool:
        """Say whether a refusal would only be due to a primary that still lives.

        Its death may be known in a moment.
        """
        tenure = self.tenure
        other = tenure.primary not in {None, request.engine}
        return (
            other and not self.closed and request.epoch == tenure.epoch and self._lives(tenure.primary or "")
        )

    def promote(self, request: Promote, *, hung: bool = False) -> Promoted:
        """Grant epoch + 1 or say why not. `hung`: the present primary was found to answer nobody."""
        reason = self._refusal(request, hung=hung)
        if reason is not None:
            return Promoted(
                granted=False, epoch=self.tenure.epoch, primary=self.tenure.primary, reason=reason
            )
        self._set(Tenure(self.tenure.epoch + 1, request.engine, in_sync=False))
        return Promoted(granted=True, epoch=self.tenure.epoch, primary=request.engine)

    def replication(self, report: Replication) -> bool:
        """Register whether the standby is in step; False if the reporter is not the primary of the epoch."""
        tenure = self.tenure
        if (report.engine, report.epoch) != (tenure.primary, tenure.epoch):
            return False
        if report.in_sync != tenure.in_sync:
            self._set(msgspec.structs.replace(tenure, in_sync=report.in_sync))
        return True

    def _refusal(self, request: Promote, *, hung: bool) -> str | None:
        tenure = self.tenure
        if self.closed:
            return "the firm stops"
        if request.epoch != tenure.epoch:
            return f"the epoch is {tenure.epoch}, not {request.epoch}"
        if tenure.primary in {None, request.engine}:
            return None
        if not hung and self._lives(tenure.primary or ""):
            return f"{tenure.primary} lives and is primary"
        if not tenure.in_sync:
            return f"only {tenure.primary} is known to hold everything: it must come back"
        return None

    def _set(self, tenure: Tenure) -> None:
        write_atomically(self._path, msgspec.json.encode(tenure))
        self.tenure = tenure
