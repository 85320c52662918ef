"""Are events lost, or only late? Where counts do not tell, both sides are read and compared key by key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.chaos.judge import Case
from blackstart.contracts import HasState
from blackstart.errors import BlackstartError
from blackstart.model.record import LedgerFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from blackstart.chaos.judge import Found
    from blackstart.contracts import Clock, Rig
    from blackstart.model.record import Record

    Judged = Callable[[Case], Awaitable[Found]]

_AGAIN_NS = 200_000_000


async def missing(
    stream: str, *, rig: Rig, clock: Clock, judged: Judged, folder: Path, limit_s: float
) -> int | None:
    """Count the events acknowledged by now that the target does not hold within `limit_s`.

    Both sides are written into `folder`. None where one of them cannot be read: then nobody can tell.
    """
    target = rig.target
    if not isinstance(target, HasState):
        return None
    try:
        if not _whole(await rig.acknowledged(stream, folder)):
            return None
        end = clock.now().mono_ns + round(limit_s * 1e9)
        while True:
            if not _whole(await target.export(stream, folder)):
                return None
            found = await judged(Case(folder=str(folder), stream=stream))
            if found.lost == 0 or clock.now().mono_ns > end:
                return found.lost
            await clock.sleep_until(clock.now().mono_ns + _AGAIN_NS)
    except BlackstartError:
        return None


def _whole(record: Record) -> bool:
    return isinstance(record, LedgerFile) and record.error is None
