"""Letting the books settle, in simulated time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from blackstart.engine import settle
from blackstart.engine.clocks import SimClock, simulate


class Rising:
    """A rig whose database gains ten rows a second, all the time or until it has stopped for good."""

    def __init__(self, clock: SimClock, stops_s: float) -> None:
        self._clock, self._stops_s = clock, stops_s
        self._start = clock.now().mono_ns
        streams = {"database": SimpleNamespace(settle_s=2.0)}
        self.target = SimpleNamespace(manifest=SimpleNamespace(streams=streams))

    async def totals(self, _stream: str) -> tuple[int | None, int | None]:
        """Count as the moment is; the other side moves on, so that nothing comes to rest."""
        s = (self._clock.now().mono_ns - self._start) / 1e9
        return 1000 + round(s * 10), round(min(s, self._stops_s) * 10)


@pytest.mark.parametrize(("stops_s", "rising"), [(60.0, ["database"]), (9.0, ["database"]), (5.0, [])])
def test_what_is_still_caught_up_with_is_told(stops_s: float, rising: list[str]) -> None:
    """Missing for good is what the target gained nothing of within the stream's `settle_s`."""

    async def main() -> dict[str, Any]:
        clock = SimClock(asyncio.get_running_loop())
        rig: Any = Rising(clock, stops_s)
        return await settle.quiesce(rig, clock, 10.0)

    found = simulate(main())
    assert found["settled"] is False
    assert found["rising"] == rising


class Books:
    """A rig whose database catches up after `late_s`; `uncounted` adds a stream that none counts."""

    def __init__(self, clock: SimClock, late_s: float, *, uncounted: bool, settle_s: float) -> None:
        self._clock, self._late_ns = clock, round(late_s * 1e9)
        self._start = clock.now().mono_ns
        streams = {"database": SimpleNamespace(settle_s=settle_s), **({"orders": None} if uncounted else {})}
        self.target = SimpleNamespace(manifest=SimpleNamespace(streams=streams))

    async def totals(self, stream: str) -> tuple[int | None, int | None]:
        """Count as the moment is."""
        if stream == "orders":
            return 7, None
        return 10, 10 if self._clock.now().mono_ns - self._start >= self._late_ns else 8


@pytest.mark.parametrize(
    ("late_s", "uncounted", "settle_s", "totals", "waited_ms"),
    [
        (0.0, False, 2.0, (10, 10), 300),
        (0.0, True, 2.0, (10, 10), 600),
        (1.5, False, 2.0, (10, 10), 1800),
        (1.5, True, 2.0, (10, 10), 2100),
        (60.0, True, 2.0, (10, 8), 2000),
        (2.5, False, 2.0, (10, 8), 2000),
        (2.5, False, 5.0, (10, 10), 2800),
    ],
)
def test_a_difference_is_given_time_even_beside_a_stream_that_cannot_be_counted(
    late_s: float, uncounted: bool, settle_s: float, totals: Any, waited_ms: float
) -> None:
    """Equal books rest for 300 ms, uncounted ones for 0.6 s, differing ones as their stream says."""

    async def main() -> dict[str, Any]:
        clock = SimClock(asyncio.get_running_loop())
        rig: Any = Books(clock, late_s, uncounted=uncounted, settle_s=settle_s)
        return await settle.quiesce(rig, clock, 10.0)

    found = simulate(main())
    assert found["settled"] is True
    assert found["totals"]["database"] == totals
    assert waited_ms <= found["waited_ms"] <= waited_ms + 60
