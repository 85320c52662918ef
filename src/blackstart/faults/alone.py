"""Faults that would end as one: a SIGCONT knows no author, and an exchange is disarmed as a whole.

What is there already is looked for where it takes effect, whichever kind of fault, or other run, brought it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.errors import FaultError
from blackstart.host import procs
from blackstart.model.record import Injected, Reverted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blackstart.model.fault import ProcessRef
    from blackstart.model.record import Record

_HINT = "let it end before (`duration_s`, or a later trigger)"
_LASTS = "disarmed_after_s"


def refuse_stopped(processes: Mapping[str, ProcessRef]) -> None:
    """Raise FaultError where one of them stands still already, or by turns: one SIGCONT ends both."""
    duties = [line for _, line in procs.matching(r"/duty\.py \d+ ")]
    for name, one in processes.items():
        found = procs.stat(one.pid)
        still = found is not None and found.start_ticks == one.start_ticks and found.state == "T"
        if still or any(f"{one.pid}:{one.start_ticks}" in line.split() for line in duties):
            what = "is stopped already: the end of one fault would be the end of both"
            raise FaultError(what, where=name, hint=_HINT)


def refuse_disarmed(
    records: Sequence[Record], duration_s: float | None, where: str
) -> dict[str, float | None]:
    """Raise FaultError where the end of one misbehaviour would be the end of another before its time.

    Two that both stay until everything is taken back do end together. Returns what the receipt has to tell
    those that come later.
    """
    ended = {one.undo_id for one in records if isinstance(one, Reverted)}
    for one in records:
        if not isinstance(one, Injected) or _LASTS not in one.receipt.data:
            continue
        in_place = any(undo.id not in ended for undo in one.receipt.undo)
        if in_place and (duration_s, one.receipt.data[_LASTS]) != (None, None):
            other = one.receipt.mechanism
            what = f"{other} is still in place: an exchange is disarmed as a whole, by whichever ends first"
            raise FaultError(what, where=where, hint=_HINT)
    return {_LASTS: duration_s}
