"""RTO over made-up recoveries: phases sum to the nanosecond, nothing is invented, unknown is not zero."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blackstart.check import ResumeWatch, rto
from blackstart.check.facts import Facts
from blackstart.check.service import epoch_of
from blackstart.history.view import History
from blackstart.model.manifest import Process, Service
from blackstart.model.outcome import PHASES
from blackstart.model.record import ProcessSeen, ServiceBatch, ServiceWatched, SignalSeen
from blackstart.model.verdict import Verdict

T0 = 10**12
MS = 1_000_000
PERIOD = 2_500_000
NAMES = ("peer_lost", "promotion_started", "engine_ready", "state_validated")


def measure(world: Any) -> Any:
    """Measure the recovery."""
    return rto.check(Facts(world.history()))[0]


def phases(found: Any) -> list[int | None]:
    """Return the five phases."""
    return [getattr(found, f"{phase}_ns") for phase in PHASES]


def codes(world: Any) -> set[str]:
    """Return the codes of what the check says."""
    return {finding.code for finding in rto.check(Facts(world.history()))[1].findings}


def signal(event: str, mono_ns: int) -> SignalSeen:
    """Make an event of the target."""
    return SignalSeen(source="events", event=event, mono_ns=mono_ns, seen_mono_ns=mono_ns)


def service(outage_ns: int, *, epoch: int = 1, tail_ns: int = 1000 * MS) -> list[tuple[int, str, int]]:
    """Make a steady stream with one outage from t0 on."""
    before = [(mono, "1-C1", 0) for mono in range(T0 - 4000 * MS, T0 + 1, PERIOD)]
    return before + [
        (mono, f"{epoch}-C2", 0) for mono in range(T0 + outage_ns, T0 + outage_ns + tail_ns, PERIOD)
    ]


def new_epoch(world: Any) -> None:
    """Only later epochs count."""
    world.plan = msgspec.structs.replace(
        world.plan, scenario=msgspec.structs.replace(world.plan.scenario, new_epoch=True)
    )


gaps = st.lists(st.one_of(st.none(), st.integers(0, 200 * MS)), min_size=4, max_size=4)


@given(gaps, st.integers(8 * MS, 400 * MS), st.integers(0, 5 * MS))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_phases_sum_exactly_and_are_never_invented(
    world: Any, steps: list[int | None], outage_ns: int, uncertainty_ns: int
) -> None:
    """Known phases are never negative, all five sum to the total, a missing stamp gives None."""
    world.service = service(outage_ns)
    world.receipt = msgspec.structs.replace(world.receipt, uncertainty_ns=uncertainty_ns)
    moment, world.signals = T0, []
    for name, step in zip(NAMES, steps, strict=True):
        if step is not None:
            moment += step
            world.signals.append(signal(name, moment))
    found = rto.check(
        Facts(History.of([r for r in world.records() if not isinstance(r, ProcessSeen)], world.folder))
    )[0]
    values = phases(found)
    assert found.total_ns == outage_ns
    assert all(value is None or value >= 0 for value in values)
    if None not in values:
        assert sum(value for value in values if value is not None) == found.total_ns
    if steps[1] is None:
        assert (found.response_ns, found.recovery_ns) == (None, None)
    if steps[3] is None:
        assert (found.validation_ns, found.resume_ns) == (None, None)
    moments = [stamp.mono_ns for _, stamp in sorted(found.stamps.items())]
    assert moments == sorted(moments)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), max_size=60),
    st.booleans(),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_live_and_final_rule_are_one(world: Any, after: list[tuple[int, int]], by_epoch: bool) -> None:
    """What the watch says during a trial is what it says at the end, however the events were batched."""
    if by_epoch:
        new_epoch(world)
    moment = T0
    world.service = service(0, tail_ns=0)
    for step, epoch in after:
        moment += step * MS
        world.service.append((moment, f"{epoch}-C", 0))
    records = world.records()
    live, answers = ResumeWatch.of(world.plan, world.manifest), set()
    for record in records:
        live.feed(record)
        answers.add(live.resumed)
    again = ResumeWatch.of(world.plan, world.manifest)
    for record in records:
        single = isinstance(record, ServiceBatch)
        parts = [ServiceBatch(service="orders", events=[e]) for e in record.events] if single else [record]
        for part in parts:
            again.feed(part)
    assert answers <= {None, again.resumed}
    if again.resumed is not None:
        assert again.resumed[0] > T0
        if by_epoch:
            assert int(again.resumed[1].split("-")[0]) > 1


def test_in_flight_orders_are_no_resumption(world: Any) -> None:
    """Orders of the old path that arrive shortly after t0, and a lone one in the outage, do not end it."""
    late = [(T0 + 4 * MS, "1-C", 0), (T0 + 60 * MS, "1-C", 0)]
    world.service = sorted(service(150 * MS) + late)
    found = measure(world)
    assert found.total_ns == 150 * MS
    assert "stragglers" in codes(world)


def test_only_a_later_epoch_counts_where_asked(world: Any) -> None:
    """With `new_epoch` a long run of the old epoch after the outage is not the recovered path."""
    new_epoch(world)
    old = [(T0 + 40 * MS + n * PERIOD, "1-C", 0) for n in range(20)]
    world.service = service(120 * MS, epoch=2) + old
    world.service.sort()
    assert measure(world).total_ns == 120 * MS


def test_no_later_epoch_is_unknown_not_an_invented_outage(world: Any) -> None:
    """Where the old epoch goes on, in-flight and new cannot be told apart."""
    new_epoch(world)
    world.service = service(PERIOD, tail_ns=1490 * MS)
    assert measure(world).total_ns is None
    assert "no-new-epoch" in codes(world)
    assert rto.check(Facts(world.history()))[1].verdict is Verdict.UNKNOWN


def test_no_interruption_is_told_by_its_gaps(world: Any) -> None:
    """A stream that never stopped has no RTO, but its longest and its usual gap."""
    world.service = service(PERIOD, tail_ns=1490 * MS)
    found, result = rto.check(Facts(world.history()))
    assert (found.interrupted, found.total_ns, found.censored_ns) == (False, None, None)
    assert (found.longest_gap_ns, found.usual_gap_ns) == (PERIOD, PERIOD)
    assert result.verdict is Verdict.PASS


@pytest.mark.parametrize(("quiet_ms", "interrupted"), [(50, False), (180, False), (400, True)])
def test_a_hiccup_at_the_end_of_watching_is_no_outage(world: Any, quiet_ms: int, interrupted: bool) -> None:
    """Its end was not seen: a short one proves nothing, and the trial is not censored for it."""
    world.service = service(PERIOD, tail_ns=(1400 - quiet_ms) * MS)
    found = measure(world)
    assert found.interrupted is interrupted
    assert (found.censored_ns is not None) is interrupted


def test_a_service_that_stays_away_is_censored(world: Any) -> None:
    """Not back by the end of watching: `> limit`, a FAIL, no invented total."""
    world.service = service(0, tail_ns=0)
    found, result = rto.check(Facts(world.history()))
    assert (found.total_ns, found.censored_ns, found.interrupted) == (None, 1400 * MS, True)
    assert result.verdict is Verdict.FAIL


def test_unwatched_silence_is_unknown(world: Any) -> None:
    """Where nobody watched between t0 and the end, neither outage nor resumption is claimed."""
    world.service = service(0, tail_ns=0)
    records = [r for r in world.records() if not isinstance(r, ServiceWatched)]
    records.append(ServiceWatched(service="orders", since_mono_ns=T0 + 10 * MS, until_mono_ns=T0 + 1500 * MS))
    found, result = rto.check(Facts(History.of(records, world.folder)))
    assert (found.total_ns, found.censored_ns, found.interrupted) == (None, None, None)
    assert result.verdict is Verdict.UNKNOWN


def test_reconnected_watching_counts_as_one(world: Any) -> None:
    """Two stretches of watching that touch are as good as one."""
    records = [r for r in world.records() if not isinstance(r, ServiceWatched)]
    for since, until in ((-6000, 700), (700, 1500)):
        records.append(
            ServiceWatched(service="orders", since_mono_ns=T0 + since * MS, until_mono_ns=T0 + until * MS)
        )
    assert rto.check(Facts(History.of(records, world.folder)))[0].total_ns == 30 * MS


def test_too_few_events_before_are_no_baseline(world: Any) -> None:
    """Without a rhythm before t0, silence after it proves nothing."""
    world.service = [e for e in service(30 * MS) if e[0] > T0 - 3 * PERIOD]
    assert "no-baseline" in codes(world)
    assert measure(world).total_ns is None


def test_a_detection_inside_the_kill_call_narrows_t0(world: Any) -> None:
    """No effect before its cause: a death noticed before the kill call returned bounds t0."""
    before = measure(world)
    world.signals[0] = signal("peer_lost", T0 - 1500)
    found = measure(world)
    assert (found.detection_ns, found.stamps["t0_failure"].mono_ns) == (0, T0 - 1500)
    assert found.stamps["t0_failure"].uncertainty_ns == before.stamps["t0_failure"].uncertainty_ns - 1500
    assert "t0-narrowed" in codes(world)


def named(event: str, after_ms: int, part: str) -> SignalSeen:
    """Make an event that names the part of the target it is about."""
    fields = {"detail": {"component": part}}
    seen = signal(event, T0 + after_ms * MS)
    return msgspec.structs.replace(seen, fields=fields)


def test_what_befell_another_part_is_no_detection(world: Any) -> None:
    """Where a signal names the broken part, those about other parts are left out; else all count."""
    world.signals[0] = named("peer_lost", 2, "engine")
    world.signals.append(named("peer_lost", 1, "recorder"))
    assert measure(world).detection_ns == 2 * MS
    world.signals[0] = named("peer_lost", 2, "elsewhere")
    assert measure(world).detection_ns == MS


def rhythm(period_ns: int, silence: tuple[int, int], *, epoch: int = 1) -> list[tuple[int, str, int]]:
    """Make events at a rhythm from long before t0 to long after it, with none in `silence` (from t0)."""
    moments = range(T0 - 4000 * MS, T0 + 1400 * MS, period_ns)
    begin, end = (T0 + edge for edge in silence)
    return [(m, f"{epoch if m > end else 1}-C", 0) for m in moments if not begin <= m <= end]


@given(period=st.integers(4, 60), outage=st.integers(1, 400))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_new_epoch_is_an_interruption_however_short(world: Any, period: int, outage: int) -> None:
    """Somebody else took over: the outage ended with the first event of the later epoch."""
    world.service = rhythm(period * MS, (1, outage * MS), epoch=2)
    found = measure(world)
    first = next(mono for mono, key, _ in world.service if key.startswith("2-"))
    assert (found.interrupted, found.total_ns) == (True, first - T0)


@given(period=st.integers(4, 60), flows=st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_silence_between_response_and_recovery_is_an_interruption(
    world: Any, period: int, flows: bool
) -> None:
    """A stretch that usually holds an event and held none was an outage; one that held any was not."""
    response, recovery = 10, 10 + 2 * period
    world.signals[1] = signal("promotion_started", T0 + response * MS)
    world.signals[2] = signal("engine_ready", T0 + recovery * MS)
    world.signals[3] = signal("state_validated", T0 + recovery * MS + 1)
    silence = (-1, -1) if flows else (response * MS, recovery * MS)
    world.service = rhythm(period * MS, silence)
    found = measure(world)
    assert found.interrupted is not flows
    if not flows:
        assert found.total_ns is not None
        assert found.total_ns > recovery * MS


@given(period=st.integers(20, 200), recovery=st.integers(1, 15))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_stretch_shorter_than_the_rhythm_proves_no_interruption(
    world: Any, period: int, recovery: int
) -> None:
    """Between two ticks of a slow rhythm nothing can be seen to stop."""
    world.signals[1] = signal("promotion_started", T0 + MS)
    world.signals[2] = signal("engine_ready", T0 + MS + recovery * MS)
    world.service = rhythm(period * MS, (-1, -1))
    assert measure(world).interrupted is False


def test_validation_after_resumption_is_not_a_phase(world: Any) -> None:
    """Trading before validation leaves two phases unknown."""
    world.signals[3] = signal("state_validated", T0 + 45 * MS)
    found = measure(world)
    assert (found.validation_ns, found.resume_ns, found.total_ns) == (None, None, 30 * MS)
    assert "phase-unknown" in codes(world)


def test_a_fault_that_ends_nothing_needs_no_word_about_a_recovery(world: Any) -> None:
    """With `degrades` the total is judged without its phases; the objective holds all the same."""
    world.signals = []
    scenario = msgspec.structs.replace(world.plan.scenario, degrades=True)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    found = measure(world)
    assert (found.recovery_ns, found.total_ns) == (None, 30 * MS)
    assert "degraded-only" in codes(world)
    assert "phase-unknown" not in codes(world)
    world.objectives(rto_ms=10)
    assert "rto-exceeded" in codes(world)


def test_the_chain_that_led_to_service_is_taken(world: Any) -> None:
    """The validation before service counts, and the last recovery before that; later ones do not."""
    world.signals += [
        signal("engine_ready", T0 + 10 * MS),
        signal("state_validated", T0 + 11 * MS),
        signal("engine_ready", T0 + 23 * MS),
        signal("engine_ready", T0 + 400 * MS),
    ]
    found = measure(world)
    assert phases(found) == [MS, 2 * MS, 20 * MS, 2 * MS, 5 * MS]


def test_the_operator_and_the_probe_stand_in_for_a_silent_target(world: Any) -> None:
    """Blackstart as operator gives t1 to t3, not inferred; t4 stays unknown unless it is ruled out."""
    world.signals = []
    manifest = msgspec.structs.replace(
        world.manifest, phases={}, processes={"engine": Process(command=("x",), restart="blackstart")}
    )
    world.manifest = manifest
    for what, after in (("starting", 2), ("ready", 20)):
        world.extra.append(ProcessSeen(component="engine", what=what, pid=2, mono_ns=T0 + after * MS))
    found = measure(world)
    assert phases(found) == [MS // 5, 2 * MS - MS // 5, 18 * MS, None, None]
    assert not any(stamp.inferred for stamp in found.stamps.values())
    assert "phase-unknown" in codes(world)
    ruled_out = dict.fromkeys(rto.STATE, "a plain store")
    world.manifest = msgspec.structs.replace(manifest, not_applicable=ruled_out)
    assert codes(world) == {"validation-not-applicable"}


def test_deductions_are_marked(world: Any) -> None:
    """With neither events nor operator, the death and the readiness that we saw ourselves are inferred."""
    world.signals = []
    found = measure(world)
    assert found.stamps["t1_detected"].inferred
    assert found.stamps["t3_recovered"].inferred
    assert "t2_responded" not in found.stamps


@pytest.mark.parametrize(
    ("limit_ms", "uncertainty_ns", "verdict"),
    [(31, 0, Verdict.PASS), (29, 0, Verdict.FAIL), (29, 2 * MS, Verdict.UNKNOWN), (30.5, 0, Verdict.PASS)],
)
def test_objective_is_judged_with_its_uncertainty(
    world: Any, limit_ms: float, uncertainty_ns: int, verdict: Verdict
) -> None:
    """Where the limit lies within the uncertainty of the total, nobody can tell."""
    world.objectives(rto_ms=limit_ms)
    world.service = [(m, k, uncertainty_ns) for m, k, _ in world.service]
    assert rto.check(Facts(world.history()))[1].verdict is verdict


def test_services_of_the_manifest_name_the_source(world: Any) -> None:
    """The source of t5 is who saw the event."""
    world.manifest = msgspec.structs.replace(world.manifest, services={"orders": Service(source="workload")})
    assert measure(world).stamps["t5_resumed"].source.startswith("workload: ")


def test_hiccups_before_the_fault_raise_the_bar_only_so_far() -> None:
    """A gap without a fault makes a like gap afterwards no proof; one freeze does not hide an outage."""
    from blackstart.check.service import usual  # noqa: PLC0415

    calm = [n * PERIOD for n in range(1000)]
    small = usual([*calm, calm[-1] + 10 * MS])
    frozen = usual([*calm, calm[-1] + 900 * MS])
    assert small is not None
    assert frozen is not None
    assert small.interruption_ns == 10 * MS
    assert frozen.interruption_ns == 10 * PERIOD


def test_a_hiccup_after_the_observation_is_no_outage(world: Any) -> None:
    """The service never stopped while it was watched; a silence afterwards says nothing of the fault."""
    world.service = [(mono, "1-C1", 0) for mono in range(T0 - 4000 * MS, T0 + 1400 * MS, PERIOD)]
    world.service += [(mono, "1-C1", 0) for mono in range(T0 + 1600 * MS, T0 + 3000 * MS, PERIOD)]
    found, result = rto.check(Facts(world.history()))
    assert found.interrupted is False
    assert found.censored_ns is None
    assert "no-interruption" in [one.code for one in result.findings]
    assert "not-recovered" not in [one.code for one in result.findings]


@pytest.mark.parametrize(("key", "epoch"), [("12-C1", 12), ("C1", None), ("²-C1", None), ("-C1", None)])
def test_a_key_that_names_no_epoch_has_none(key: str, epoch: int | None) -> None:
    """Also where the group took no part, or matched what is a digit and no number."""
    assert epoch_of(r"^(?:(\d+|²)-)?", key) == epoch
