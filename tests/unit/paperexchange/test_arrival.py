"""The stamp of received bytes: the kernel's, moved to the monotonic clock."""

from __future__ import annotations

import socket
import struct

import pytest

from blackstart.engine import clocks
from paperexchange import clock
from paperexchange.gateway import wire

MS = 1_000_000
AHEAD = 10**18


class Time:
    """The kernel's clocks, for a process that loses the processor after some of its reads."""

    def __init__(self, lost_ms: list[int]) -> None:
        self.now, self._lost_ms = 50 * MS, lost_ms

    def _read(self) -> int:
        moment = self.now
        self.now += 100 + (self._lost_ms.pop(0) if self._lost_ms else 0) * MS
        return moment

    def monotonic_ns(self) -> int:
        """Read CLOCK_MONOTONIC."""
        return self._read()

    def time_ns(self) -> int:
        """Read CLOCK_REALTIME."""
        return self._read() + AHEAD


LOST = [[], [40], [0, 40], [40, 0, 0, 0, 40], [1, 1, 40, 40, 40]]


@pytest.mark.parametrize("lost_ms", LOST, ids=str)
def test_a_lost_processor_does_not_make_bytes_older(
    monkeypatch: pytest.MonkeyPatch, lost_ms: list[int]
) -> None:
    """It counted as their age: an order seemed to have come before the one ahead of it on the connection."""
    monkeypatch.setattr(clock, "time", Time(list(lost_ms)))
    stamp = struct.pack("qq", *divmod(AHEAD + 20 * MS, 10**9))
    found = wire.arrival([(socket.SOL_SOCKET, 35, stamp)])
    assert found.stamp == "kernel"
    assert 20 * MS <= found.mono_ns <= 20 * MS + 1000


@pytest.mark.parametrize("lost_ms", LOST, ids=str)
def test_both_clocks_of_an_instant_show_the_same_moment(
    monkeypatch: pytest.MonkeyPatch, lost_ms: list[int]
) -> None:
    """Their distance moves stamps from one clock to the other."""
    monkeypatch.setattr(clocks, "time", Time(list(lost_ms)))
    found = clocks.SystemClock().now()
    assert found.wall_ns - found.mono_ns == pytest.approx(AHEAD, abs=1000)
