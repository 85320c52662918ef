"""A silence on a busy host is a bound and no figure; a real outage is never hidden by that."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from blackstart.check import rto
from blackstart.check.facts import Facts
from blackstart.model.record import ProbeChange, ProcessSeen, SignalSeen
from blackstart.model.verdict import Verdict

MS = 1_000_000
T0 = 10**12
RHYTHM = 10 * MS
BACK = 560 * MS  # after t0


def stream(silence_ms: int, *, epoch: int = 1) -> list[tuple[int, str, int]]:
    """Make a steady stream whose silence ends 560 ms after t0."""
    begun = T0 + BACK - silence_ms * MS
    before = [(mono, "1-C1", 0) for mono in range(T0 - 4000 * MS, begun + 1, RHYTHM)]
    return before + [(mono, f"{epoch}-C2", 0) for mono in range(T0 + BACK, T0 + 1490 * MS, RHYTHM)]


def judged(world: Any, silence_ms: int, *, busy: bool, epoch: int = 1, hole_ms: int = 0) -> Any:
    """Measure a trial in which nothing ended and nobody noticed anything; `hole_ms`: silent before, too."""
    hole = range(T0 + (300 - hole_ms) * MS, T0 + 300 * MS)
    world.service = [event for event in stream(silence_ms, epoch=epoch) if event[0] not in hole]
    world.samples = [world.sample(number, cpu_percent=97.0 if busy else 40.0) for number in range(14)]

    return rto.check(Facts(world.history(noticed)))


def noticed(record: Any) -> bool:
    """Tell what somebody noticed of an end."""
    return isinstance(record, ProbeChange) or (isinstance(record, ProcessSeen) and record.pid == 41)


@pytest.fixture
def calm(world: Any) -> Any:
    """Return a world whose target says nothing."""
    world.signals = []
    scenario = msgspec.structs.replace(world.plan.scenario, degrades=True)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    world.objectives(rto_ms=30_000)
    return world


def test_a_hiccup_of_a_busy_host_is_a_bound(calm: Any) -> None:
    """No figure is given for what may have been the scheduler; the bound meets the objective: PASS."""
    found, result = judged(calm, 60, busy=True)
    assert (found.total_ns, found.censored_ns, found.at_most_ns) == (None, None, BACK)
    assert found.interrupted is None
    assert found.longest_gap_ns == 60 * MS
    assert [one.code for one in result.findings] == ["not-told-apart"]
    assert result.verdict is Verdict.PASS


def test_a_service_that_is_dead_at_the_end_had_no_mere_hiccup(calm: Any) -> None:
    """A silence of 60 ms that may have been the scheduler, and then no event at all any more: FAIL."""
    calm.service = [event for event in stream(60) if event[0] < T0 + 900 * MS]
    calm.samples = [calm.sample(number, cpu_percent=97.0) for number in range(14)]
    found, result = rto.check(Facts(calm.history(noticed)))
    assert "silent-at-the-end" in [one.code for one in result.findings]
    assert result.verdict is Verdict.FAIL
    assert (found.at_most_ns, found.interrupted) == (None, True)


def test_a_short_silence_at_the_end_of_a_busy_host_is_unknown(calm: Any) -> None:
    """Two silences that may both have been the scheduler, the second not yet over: nobody knows."""
    moments = [*range(T0 - 4000 * MS, T0 + 300 * MS, 30 * MS), *range(T0 + 500 * MS, T0 + 1150 * MS, 30 * MS)]
    calm.service = [(mono, "1-C1", 0) for mono in moments]
    calm.samples = [calm.sample(number, cpu_percent=97.0) for number in range(14)]
    found, result = rto.check(Facts(calm.history(noticed)))
    assert found.at_most_ns == 500 * MS
    assert {one.code: one.verdict for one in result.findings}["silent-at-the-end"] is Verdict.UNKNOWN
    assert result.verdict is Verdict.UNKNOWN


def test_a_bound_beyond_the_objective_is_unknown(calm: Any) -> None:
    """Where only one of both readings meets the objective, nobody knows whether it was met."""
    calm.objectives(rto_ms=500)
    assert judged(calm, 60, busy=True)[1].verdict is Verdict.UNKNOWN


def test_a_host_with_time_to_spare_hides_nothing(calm: Any) -> None:
    """The same silence on an idle host is an outage, with a figure."""
    assert judged(calm, 60, busy=False)[0].total_ns == BACK


def test_a_long_silence_is_an_outage_on_any_host(calm: Any) -> None:
    """Beyond ten usual gaps the busiest host is no excuse."""
    assert judged(calm, 100, busy=True)[0].at_most_ns == BACK
    assert judged(calm, 110, busy=True)[0].total_ns == BACK


def test_one_long_silence_among_hiccups_is_an_outage(calm: Any) -> None:
    """Every silence up to the resumption must be doubtful, not only the last one."""
    assert judged(calm, 60, busy=True, hole_ms=60)[0].at_most_ns == BACK - 260 * MS
    assert judged(calm, 60, busy=True, hole_ms=200)[0].total_ns == 300 * MS


@pytest.mark.parametrize("event", ["promotion_started", "engine_ready"])
def test_a_word_of_recovery_makes_it_an_outage(calm: Any, event: str) -> None:
    """What the target says of a response or a recovery is believed, however busy the host is."""
    calm.signals = [SignalSeen(source="e", event=event, mono_ns=T0 + BACK // 2, seen_mono_ns=T0 + BACK // 2)]
    assert judged(calm, 60, busy=True)[0].total_ns == BACK


def test_an_ended_process_makes_it_an_outage(calm: Any) -> None:
    """Where a process ended after the fault, the silence has a cause."""
    calm.extra.append(ProcessSeen(component="engine", what="exited", pid=7, mono_ns=T0 + BACK // 2))
    assert judged(calm, 60, busy=True)[0].total_ns == BACK


def test_a_later_epoch_makes_it_an_outage(calm: Any) -> None:
    """Whoever sends with a later epoch has taken over: that is proof, however short the silence."""
    assert judged(calm, 60, busy=True, epoch=2)[0].total_ns == BACK
