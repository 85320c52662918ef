"""Turning the stamps of another host into our own."""

from __future__ import annotations

from blackstart.host.offset import Offset

MS = 1_000_000
AHEAD = 5_000_000 * MS


def test_half_the_round_trip_is_what_one_exchange_leaves_open() -> None:
    """Nobody knows where within the round trip the clock there was read."""
    offset = Offset()
    offset.heard(100 * MS, 101 * MS + AHEAD, 104 * MS)
    assert 2 * MS <= offset.uncertainty_ns(104 * MS) <= 2.001 * MS
    assert abs(offset.offset_ns(104 * MS) - AHEAD) <= 2.001 * MS
    moment = offset.here(103 * MS + AHEAD, 104 * MS)
    assert moment.mono_ns - moment.uncertainty_ns <= 103 * MS <= moment.mono_ns
    assert moment.mono_ns <= 104 * MS, "nothing is heard of before it happened"


def test_exchanges_that_were_slow_one_way_each_bound_it_together() -> None:
    """One that was slow on its way there and one that was slow on its way back leave little between them."""
    offset = Offset()
    offset.heard(0, 9 * MS + AHEAD, 10 * MS)
    offset.heard(20 * MS, 21 * MS + AHEAD, 30 * MS)
    assert offset.uncertainty_ns(30 * MS) < 1.1 * MS
    assert offset.round_trip_ns == 10 * MS


def test_what_was_known_wears_out() -> None:
    """Clocks run apart: an old exchange is worth less than it was."""
    offset = Offset()
    offset.heard(0, AHEAD, 0)
    assert offset.uncertainty_ns(0) <= 1
    assert offset.uncertainty_ns(10_000 * MS) >= 1 * MS


def test_a_clock_that_jumps_is_told_and_the_past_forgotten() -> None:
    """A host that slept is no host whose stamps can be compared across its sleep."""
    offset = Offset()
    assert offset.heard(0, AHEAD, 1 * MS) == 0
    apart = offset.heard(10 * MS, 11 * MS + AHEAD - 500 * MS, 12 * MS)
    assert 490 * MS < apart < 510 * MS
    assert abs(offset.offset_ns(12 * MS) - (AHEAD - 500 * MS)) <= 1.001 * MS
