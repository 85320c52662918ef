"""The session calendar: which phase is due when. Pure: it is asked with the seconds gone by.

A trading day runs 08:00 pre-open, 09:30 open (auction), 09:31 continuous, 16:00 close, 16:10 settlement,
17:00 end; compressed, the same proportions fit in as many seconds as one likes.
"""

from typing import NamedTuple

from paperexchange.errors import ExchangeError
from paperexchange.model import Phase

_DAY: tuple[tuple[Phase, float], ...] = (
    ("pre_open", 8 * 3600),
    ("open", 9.5 * 3600),
    ("continuous", 9.5 * 3600 + 60),
    ("close", 16 * 3600),
    ("settlement", 16 * 3600 + 600),
)
_BEGIN_S = 8 * 3600
_END_S = 17 * 3600
_DAY_S = 24 * 3600


class Due(NamedTuple):
    """A phase, and how many seconds later the next one begins (None: never)."""

    phase: Phase
    next_in_s: float | None


class Calendar:
    """`kind`: `always` (continuous at once), `clock` (by the time of day), `compressed` or `manual`."""

    def __init__(self, kind: str = "always", *, day_s: float = 60.0) -> None:
        """`day_s` is the length of a compressed day."""
        if kind not in ("always", "clock", "compressed", "manual"):
            raise ExchangeError(
                f"unknown calendar {kind!r}",
                where="calendar",
                hint="use always, clock, manual or compressed:SECONDS",
            )
        if kind == "compressed" and not day_s > 0:
            raise ExchangeError("a compressed day must last longer than 0 s", where="calendar")
        self.kind = kind
        self.day_s = day_s

    @classmethod
    def parse(cls, text: str) -> "Calendar":
        """Read `always`, `clock`, `manual` or `compressed:60`."""
        kind, _, seconds = text.partition(":")
        try:
            return cls(kind, day_s=float(seconds)) if seconds else cls(kind)
        except ValueError as error:
            raise ExchangeError(
                f"{seconds!r} is no number of seconds", where="calendar", hint="for example compressed:60"
            ) from error

    def due(self, elapsed_s: float, seconds_of_day: float) -> Due:
        """Give the phase now; `elapsed_s` since the exchange began, `seconds_of_day` on the wall clock."""
        if self.kind == "always":
            return Due("continuous", None)
        if self.kind == "manual":
            return Due("pre_open", None)
        if self.kind == "clock":
            return _at(seconds_of_day)
        scale = (_END_S - _BEGIN_S) / self.day_s
        due = _at(_BEGIN_S + elapsed_s * scale % (_END_S - _BEGIN_S))
        rest = due.next_in_s if due.next_in_s is not None else 0.0
        if due.phase == "settlement":
            rest = _END_S - (_BEGIN_S + elapsed_s * scale % (_END_S - _BEGIN_S))
        return Due(due.phase, rest / scale)


def _at(second: float) -> Due:
    """Give the phase at a second of the day, and how long until the next begins."""
    current: Phase = "settlement"
    for phase, begin_s in _DAY:
        if second < begin_s:
            return Due(current, begin_s - second)
        current = phase
    return Due(current, _DAY_S - second + _BEGIN_S)
