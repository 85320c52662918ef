"""The daily session window, as a pure rule over Unix time (FIX.md item 12)."""

from __future__ import annotations

import msgspec

from fixsession.clock import SECOND_NS
from fixsession.errors import FixError

_DAY_S = 86_400


class Schedule(msgspec.Struct, frozen=True):
    """Open every day from `start_s` to `end_s`, seconds after midnight UTC; equal: round the clock.

    Numbering begins anew with each window. `end_s` below `start_s` means the next day.
    """

    start_s: int
    end_s: int

    def __post_init__(self) -> None:
        """Refuse times outside the day."""
        if not (0 <= self.start_s < _DAY_S and 0 <= self.end_s < _DAY_S):
            raise FixError("Schedule: start_s and end_s are seconds after midnight UTC; give 0 to 86399")

    def begin_ns(self, wall_ns: int) -> int:
        """When the latest window began, in Unix time."""
        day_ns, start_ns = _DAY_S * SECOND_NS, self.start_s * SECOND_NS
        return wall_ns - (wall_ns - start_ns) % day_ns

    def end_ns(self, wall_ns: int) -> int:
        """When the latest window ends or ended, in Unix time."""
        length_s = (self.end_s - self.start_s) % _DAY_S or _DAY_S
        return self.begin_ns(wall_ns) + length_s * SECOND_NS

    def is_open(self, wall_ns: int) -> bool:
        """Whether sessions may be logged on."""
        return wall_ns < self.end_ns(wall_ns)

    def is_stale(self, created_wall_ns: int, wall_ns: int) -> bool:
        """Whether numbering that began at `created_wall_ns` belongs to an earlier window."""
        return created_wall_ns < self.begin_ns(wall_ns)
