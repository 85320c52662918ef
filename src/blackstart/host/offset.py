"""How far another host's monotonic clock is from ours, and how sure that is. Pure.

Somebody reads the clock there between our asking and our hearing of it: each exchange bounds the difference
from both sides. All bounds hold together, so the difference lies where they overlap. Clocks run apart slowly;
older bounds are widened for that.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

DRIFT = 200e-6
"""How much two clocks may run apart: quartz differs by some 50 millionths, and may be steered besides."""

_KEPT = 32


class Moment(NamedTuple):
    """An instant of another host by our clock: it lies within `uncertainty_ns` before `mono_ns`."""

    mono_ns: int
    uncertainty_ns: int


class Exchange(NamedTuple):
    """The difference (there minus here) lay between `low` and `high` when our clock said `at`."""

    low: int
    high: int
    at: int


class Offset:
    """The difference between two monotonic clocks, from as many exchanges as there were lately."""

    def __init__(self) -> None:
        self._exchanges: deque[Exchange] = deque(maxlen=_KEPT)

    def heard(self, asked_ns: int, there_ns: int, heard_ns: int) -> int:
        """Take in an exchange: we asked, the clock there was read, we heard of it.

        Returns by how much it contradicts what was known: 0, unless the clocks ran apart quicker than clocks
        do. What was known is then forgotten.
        """
        new = Exchange(there_ns - heard_ns, there_ns - asked_ns, asked_ns)
        apart = 0
        if self._exchanges:
            low, high = self.bounds(heard_ns)
            apart = max(0, new.low - high, low - new.high)
        if apart:
            self._exchanges.clear()
        self._exchanges.append(new)
        return apart

    def bounds(self, now_ns: int) -> tuple[int, int]:
        """Return between which values the difference lies now."""
        widened = [(one, math.ceil(abs(now_ns - one.at) * DRIFT) + 1) for one in self._exchanges]
        assert widened, "nothing was heard yet"
        return max(one.low - more for one, more in widened), min(one.high + more for one, more in widened)

    def here(self, there_ns: int, seen_ns: int) -> Moment:
        """Turn an instant of the other host, of which we heard at `seen_ns`, into one of ours."""
        low, high = self.bounds(seen_ns)
        latest = min(there_ns - low, seen_ns)
        return Moment(latest, max(0, latest - (there_ns - high)))

    def uncertainty_ns(self, now_ns: int) -> int:
        """Return how far the middle of the bounds may be off."""
        low, high = self.bounds(now_ns)
        return (high - low + 1) // 2

    def offset_ns(self, now_ns: int) -> int:
        """Return the middle of the bounds: how much the clock there shows more than ours."""
        low, high = self.bounds(now_ns)
        return (low + high) // 2

    @property
    def round_trip_ns(self) -> int:
        """Return the shortest round trip of those that are still remembered."""
        return min(one.high - one.low for one in self._exchanges)
