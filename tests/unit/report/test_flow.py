from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from blackstart.report.flow import even_step, flow, service_times
from blackstart.testing.samples import T0_NS, sample_history, sample_trials

MS = 1_000_000
TIMES = st.lists(st.integers(T0_NS - 20_000 * MS, T0_NS + 20_000 * MS), min_size=1, max_size=200).map(sorted)


@given(TIMES, st.one_of(st.none(), st.integers(0, 10_000 * MS)))
@settings(max_examples=150, deadline=None)
def test_each_event_of_the_window_is_counted_once(times: list[int], outage: int | None) -> None:
    """The bins count exactly the events that lie in the window, and t0 is a boundary of bins."""
    found = flow("orders", times, t0_ns=T0_NS, end_ns=None if outage is None else T0_NS + outage)
    if found is None:
        return
    begin = T0_NS + found.start_ns
    end = begin + found.bin_ns * len(found.counts)
    assert sum(found.counts) == sum(begin <= time < end for time in times)
    assert found.start_ns % found.bin_ns == 0


@given(st.integers(1, 10**13), st.integers(1, 500))
def test_steps_are_round_and_enough(span: int, most: int) -> None:
    """A step is 1, 2 or 5 times a power of ten milliseconds, and enough of them cover the span."""
    step = even_step(span, most)
    assert step * most >= span
    assert str(step).rstrip("0") in {"1", "2", "5"}


def test_an_outage_shows_as_empty_bins() -> None:
    """During the outage of the sample nothing is counted, before it the usual rate is."""
    trial = next(one for one in sample_trials() if one.id == "R25:router")
    assert trial.rto.total_ns is not None
    service, times = service_times(sample_history(trial))
    found = flow(service, times, t0_ns=T0_NS, end_ns=T0_NS + trial.rto.total_ns)
    assert found is not None
    silent = found.counts[-found.start_ns // found.bin_ns :][: trial.rto.total_ns // found.bin_ns]
    assert service == "orders"
    assert sum(silent) == 0
    assert len(silent) > 10
    assert found.usual_per_s is not None
    assert 300 < found.usual_per_s < 500


def test_without_events_there_is_no_flow() -> None:
    """A service that was never seen gives no drawing instead of a flat line at zero."""
    assert flow("orders", [], t0_ns=T0_NS, end_ns=T0_NS) is None
