"""Back is only what stays: an outage that ends for a moment has not ended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from blackstart.check import ResumeWatch, rto
from blackstart.check.facts import Facts
from blackstart.model.manifest import Service, WorkloadSpec
from blackstart.model.record import Injected, Problem, ServiceBatch, ServiceWatched
from blackstart.model.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

T0 = 10**12
MS = 1_000_000
PERIOD = 2_500_000

Event = tuple[int, str, int]
"""As `check.service`."""


def found(world: Any, after: Sequence[Event]) -> dict[str, Any]:
    """Let the service be so after t0, and return what is said of its recovery, by code."""
    world.service = [*at(-5000, 0, epoch=1), *after]
    return {finding.code: finding for finding in rto.check(Facts(world.history()))[1].findings}


def at(first_ms: int, last_ms: int, *, epoch: int = 2, period_ns: int = PERIOD) -> list[Event]:
    """Make events, of the recovered path, between two moments after t0."""
    moments = range(T0 + first_ms * MS, T0 + last_ms * MS, period_ns)
    return [(mono, f"{epoch}-C{number:07d}", 1000) for number, mono in enumerate(moments)]


@pytest.fixture(params=[True, False], ids=["by its epoch", "by holding"])
def recovered(world: Any, request: pytest.FixtureRequest) -> Any:
    """Know the resumption by the epoch of an event, or only by a run that holds."""
    if not request.param:
        changed = msgspec.structs.replace(world.manifest.services["orders"], epoch=None)
        services = {**world.manifest.services, "orders": changed}
        world.manifest = msgspec.structs.replace(world.manifest, services=services)
    scenario = world.plan.scenario
    objectives = msgspec.structs.replace(scenario.objectives, rto_ms=500.0)
    world.plan = msgspec.structs.replace(
        world.plan, scenario=msgspec.structs.replace(scenario, objectives=objectives)
    )
    return world


def test_a_service_that_stays_is_back(recovered: Any) -> None:
    """Nothing is said of one that goes on to the end of observation."""
    assert {one.verdict for one in found(recovered, at(30, 1400)).values()} <= {Verdict.PASS}


def test_a_service_that_is_silent_at_the_end_is_not_back(recovered: Any) -> None:
    """Thirty milliseconds of service, and then nothing until observation ended."""
    finding = found(recovered, at(30, 60))["silent-at-the-end"]
    assert finding.verdict is Verdict.FAIL
    assert finding.data["silence_ns"] == pytest.approx(1340 * MS, abs=10 * MS)


def test_one_event_of_a_new_epoch_is_not_service(world: Any) -> None:
    """It proves a takeover, not that anybody serves."""
    assert found(world, at(30, 31))["silent-at-the-end"].verdict is Verdict.FAIL


@pytest.mark.parametrize(("until_ms", "verdict"), [(1000, Verdict.FAIL), (450, Verdict.PASS)])
@pytest.mark.parametrize("recovered", [True], indirect=True, ids=["by its epoch"])
def test_a_relapse_counts_until_it_is_over(recovered: Any, until_ms: int, verdict: Verdict) -> None:
    """Out again until later than the objective of 500 ms: not back in time, whatever came first."""
    finding = found(recovered, [*at(30, 60), *at(until_ms, 1400)])["relapsed"]
    assert finding.verdict is verdict
    assert finding.data["after_ns"] == pytest.approx(until_ms * MS, abs=10 * MS)


@pytest.mark.parametrize("recovered", [False], indirect=True, ids=["by holding"])
def test_a_hiccup_as_the_fault_strikes_is_not_the_outage(recovered: Any) -> None:
    """A disk fills up: 30 ms of silence, service, and then the router ends; the RTO is not of the 30 ms."""
    recovered.service = [*at(-5000, 0, epoch=1), *at(30, 60), *at(900, 1400)]
    total_ns = rto.check(Facts(recovered.history()))[0].total_ns
    assert total_ns == pytest.approx(900 * MS, abs=10 * MS)


def test_a_hiccup_afterwards_is_no_relapse(recovered: Any) -> None:
    """Less than 200 ms of silence is told as an interruption, and ends nothing."""
    said = found(recovered, [*at(30, 600), *at(750, 1400)])
    assert "relapsed" not in said
    assert {one.verdict for one in said.values()} <= {Verdict.PASS}


@pytest.mark.parametrize("flag", ["", "goes_on", "degrades"])
def test_a_third_of_the_service_is_not_service(recovered: Any, flag: str) -> None:
    """Half the rate and more is taken for recovered; less is a remark only where it is to be expected."""
    assert "degraded-throughput" not in found(recovered, at(30, 1400, period_ns=4 * MS))
    if flag:
        changed = msgspec.structs.replace(recovered.plan.scenario, **{flag: True})
        recovered.plan = msgspec.structs.replace(recovered.plan, scenario=changed)
    finding = found(recovered, at(30, 1400, period_ns=7 * MS))["degraded-throughput"]
    assert finding.verdict is (Verdict.PASS if flag else Verdict.FAIL)


@pytest.mark.parametrize("answered", [False, True])
def test_a_probe_that_answers_is_not_a_workload_that_is_answered(world: Any, *, answered: bool) -> None:
    """A server that accepts again and acknowledges no write is not back; one write says more than that."""
    services = {"orders": Service(source="probe:ready"), "writes": Service(source="workload")}
    world.manifest = msgspec.structs.replace(world.manifest, services=services, workload=WorkloadSpec())
    writes = [*at(-5000, 0), *(at(900, 901) if answered else [])]
    watched = ServiceWatched(service="writes", since_mono_ns=T0 - 6000 * MS, until_mono_ns=T0 + 1500 * MS)
    world.extra = [ServiceBatch(service="writes", events=writes), watched]
    said = found(world, at(30, 1400))
    assert ("workload-unanswered" in said) is not answered
    assert answered or said["workload-unanswered"].verdict is Verdict.FAIL


@pytest.mark.parametrize("answered", [False, True])
def test_a_slow_workload_has_to_be_answered_too(world: Any, *, answered: bool) -> None:
    """Of a write every half second nobody knows a rhythm: that none came back is not nothing to say."""
    services = {"orders": Service(source="probe:ready"), "writes": Service(source="workload")}
    world.manifest = msgspec.structs.replace(world.manifest, services=services, workload=WorkloadSpec())
    writes = [*at(-5000, 0, period_ns=500 * MS), *(at(900, 901) if answered else [])]
    watched = ServiceWatched(service="writes", since_mono_ns=T0 - 6000 * MS, until_mono_ns=T0 + 1500 * MS)
    world.extra = [ServiceBatch(service="writes", events=writes), watched]
    said = found(world, at(30, 1400))
    assert ("load-no-rhythm" in said) is not answered
    assert answered or said["load-no-rhythm"].verdict is Verdict.UNKNOWN


def test_a_workload_that_ended_leaves_a_probe_unproven(world: Any) -> None:
    """The load dies after the fault: whether the target acknowledges a write again nobody saw."""
    services = {"orders": Service(source="probe:ready"), "writes": Service(source="workload")}
    world.manifest = msgspec.structs.replace(world.manifest, services=services, workload=WorkloadSpec())
    watched = ServiceWatched(
        service="writes", since_mono_ns=T0 - 6000 * MS, until_mono_ns=T0 + 10 * MS, error="it does not run"
    )
    world.extra = [ServiceBatch(service="writes", events=at(-5000, 0)), watched]
    finding = found(world, at(30, 1400))["load-unwatched"]
    assert finding.verdict is Verdict.UNKNOWN
    assert "it does not run" in finding.text
    world.extra = world.extra[:1]
    assert found(world, at(30, 1400))["load-unwatched"].verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(("ended_ms", "verdict"), [(300, Verdict.UNKNOWN), (1450, Verdict.FAIL)])
def test_silence_after_the_end_of_the_load_is_not_the_targets(
    world: Any, ended_ms: int, verdict: Verdict
) -> None:
    """Orders that the workload makes stay away because it died: no FAIL; one that dies later is no excuse."""
    world.service = at(-5000, 0, epoch=1)
    world.extra = [Problem(code="workload-failed", text="gone", mono_ns=T0 + ended_ms * MS)]
    measured, result = rto.check(Facts(world.history()))
    assert result.verdict is verdict
    assert ("load-ended" in [one.code for one in result.findings]) is (verdict is Verdict.UNKNOWN)
    assert (measured.censored_ns is None) is (verdict is Verdict.UNKNOWN)


@pytest.mark.parametrize("flag", ["", "goes_on", "degrades"])
def test_a_third_of_the_service_is_not_service_even_if_it_never_stopped(recovered: Any, flag: str) -> None:
    """Slow enough to carry a third of the load, and still without a gap that counts as an interruption."""
    if flag:
        changed = msgspec.structs.replace(recovered.plan.scenario, **{flag: True})
        recovered.plan = msgspec.structs.replace(recovered.plan, scenario=changed)
    said = found(recovered, at(3, 1400, epoch=1, period_ns=7 * MS))
    assert "no-interruption" in said
    assert said["degraded-throughput"].verdict is (Verdict.PASS if flag else Verdict.FAIL)


@pytest.mark.parametrize(("objective_ms", "verdict"), [(100.0, Verdict.FAIL), (500.0, Verdict.PASS)])
def test_a_trickle_is_not_service_however_much_follows(
    recovered: Any, objective_ms: float, verdict: Verdict
) -> None:
    """A third of the load until 1.13 s is told, and FAILs where it still was so after the objective."""
    scenario = recovered.plan.scenario
    objectives = msgspec.structs.replace(scenario.objectives, rto_ms=objective_ms)
    changed = msgspec.structs.replace(scenario, objectives=objectives)
    recovered.plan = msgspec.structs.replace(recovered.plan, scenario=changed)
    said = found(recovered, [*at(30, 1130, period_ns=7 * MS), *at(1130, 1400)])
    finding = said["degraded-throughput"]
    assert finding.verdict is verdict
    assert re.search(
        r"until 1,\d{3} ms after .* in the worst second, from 3\d to 1,03\d ms, 14\d$", finding.text
    )


def test_a_service_seen_for_a_moment_only_is_told_of(recovered: Any) -> None:
    """Back 0.3 s before the end: nobody can say whether it carries the load, and that is said."""
    said = found(recovered, at(1100, 1400))
    assert "throughput-not-judged" in said


@pytest.mark.parametrize("recovered", [True], indirect=True, ids=["by its epoch"])
@pytest.mark.parametrize(("again_ms", "told_ms"), [(1200, 1200), (500, 500), (500, 1200)])
def test_a_relapse_before_a_later_fault_is_not_forgotten(recovered: Any, again_ms: int, told_ms: int) -> None:
    """Out from 60 to 1000 ms, though back before, and then a fault that interrupts nothing: still a relapse.

    What ends after the later fault is that one's outage, whenever we are told of the fault.
    """
    later = msgspec.structs.replace(recovered.receipt, t0_mono_ns=T0 + again_ms * MS)
    service = [*at(-5000, 0, epoch=1), *at(30, 60), *at(1000, 1400)]
    records: list[tuple[int, Any]] = [
        (one[0], ServiceBatch(service="orders", events=[one])) for one in service
    ]
    records += [
        (T0, Injected(receipt=recovered.receipt)),
        (T0 + told_ms * MS, Injected(receipt=later, step=1)),
    ]
    watch = ResumeWatch.of(recovered.plan, recovered.manifest)
    for _, record in sorted(records, key=lambda pair: pair[0]):
        watch.feed(record)
    assert [event[0] for _, event in watch.relapses] == ([T0 + 1000 * MS] if again_ms == 1200 else [])
