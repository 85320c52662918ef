"""Whatever the network does, the truth about two clocks lies within the bounds that are told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from blackstart.host.offset import DRIFT, Offset

MS = 1_000_000
EXCHANGES = st.lists(
    st.tuples(st.integers(0, 50 * MS), st.integers(0, 50 * MS), st.integers(0, 1000 * MS)),
    min_size=1,
    max_size=60,
)


@given(EXCHANGES, st.integers(-(10**18), 10**18), st.floats(-0.9, 0.9), st.integers(0, 400 * MS))
def test_the_true_moment_lies_within_what_is_told(
    exchanges: list[tuple[int, int, int]], ahead: int, share: float, later: int
) -> None:
    """For any delays, any difference, and clocks that run apart, but not quicker than clocks do."""
    offset, now = Offset(), 5_000 * MS

    def there(here_ns: int) -> int:
        return here_ns + ahead + round(here_ns * DRIFT * share)

    for out, back, pause in exchanges:
        asked, heard = now, now + out + back
        assert offset.heard(asked, there(asked + out), heard) == 0, "no contradiction: these are clocks"
        now = heard + pause
    happened, seen = now, now + later
    low, high = offset.bounds(seen)
    assert low <= there(seen) - seen <= high
    moment = offset.here(there(happened), seen)
    # The moment is the latest that it can have been; rounding and the drift meanwhile take a little.
    slack = 2 + round(later * DRIFT)
    assert moment.mono_ns - moment.uncertainty_ns - slack <= happened <= moment.mono_ns + slack
    assert moment.mono_ns <= seen


@given(EXCHANGES, st.integers(-(10**12), 10**12))
def test_more_exchanges_never_know_less(exchanges: list[tuple[int, int, int]], ahead: int) -> None:
    """The best exchange counts: what is known is no worse than half the shortest round trip of those kept."""
    offset, now = Offset(), 0
    for out, back, _ in exchanges:
        offset.heard(now, now + out + ahead, now + out + back)
        now += out + back
    oldest = sum(out + back for out, back, _ in exchanges)
    assert offset.uncertainty_ns(now) <= offset.round_trip_ns / 2 + oldest * DRIFT + 4
