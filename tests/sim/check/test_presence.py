"""What ended must be there again, and ready, whatever the service does meanwhile."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from blackstart.check import analyse
from blackstart.check.analyse import books
from blackstart.model.fault import ProcessRef
from blackstart.model.record import ProbeChange, Reverted, StageReached
from blackstart.model.verdict import Verdict

BEFORE = {"engine": 41, "spare": 43}


def samples(world: Any, before: dict[str, int], after: dict[str, int], **fields: Any) -> None:
    """Make the fault end pid 41, and let these processes be measured before and after it."""
    killed = {"engine": ProcessRef(pid=41, start_ticks=1)}
    world.receipt = msgspec.structs.replace(world.receipt, processes=killed)
    world.samples = []
    for number in range(-2, 12):
        living, more = (before, {}) if number <= 0 else (after, fields)
        one = {"cpu_s": number / 10, "rss": 1, "threads": 1, "state": "sleeping", **more}
        world.samples.append(
            world.sample(number, components={n: {**one, "pid": pid} for n, pid in living.items()})
        )


def fault(world: Any) -> tuple[Verdict, tuple[str, ...]]:
    """Say what the check of the fault says."""
    result = next(check for check in analyse(world.history()).checks if check.check == "fault")
    return result.verdict, tuple(finding.code for finding in result.findings)


@pytest.mark.parametrize("after", [{"engine": 42, "spare": 43}, {"engine": 43, "spare": 44}])
def test_another_process_or_a_takeover_with_a_new_spare_is_back(world: Any, after: dict[str, int]) -> None:
    """A restart in place passes, and so does a failover after which the spare is there again."""
    samples(world, BEFORE, after)
    assert fault(world) == (Verdict.PASS, ())


@pytest.mark.parametrize(
    "after", [{}, {"spare": 43}, {"engine": 41, "spare": 43}, {"engine": 43}, {"engine": 43, "spare": 43}]
)
def test_what_never_comes_back_is_a_failure(world: Any, after: dict[str, int]) -> None:
    """Nothing, only the killed process, or fewer processes behind as many names: FAIL."""
    samples(world, BEFORE, after)
    assert fault(world) == (Verdict.FAIL, ("component-not-back",))


def test_a_zombie_is_not_back(world: Any) -> None:
    """A process that died again and that nobody collected does not stand behind anything."""
    samples(world, BEFORE, {"engine": 42, "spare": 43}, state="zombie")
    assert fault(world) == (Verdict.FAIL, ("component-not-back",))


def test_what_nobody_measured_is_unknown(world: Any) -> None:
    """Without a measurement of the component, or of the end, nobody knows."""
    samples(world, {"spare": 43}, {"spare": 43})
    assert fault(world) == (Verdict.UNKNOWN, ("component-unseen",))
    samples(world, BEFORE, BEFORE)
    history = world.history(lambda r: isinstance(r, StageReached) and r.stage == "read")
    assert "component-unseen" in " ".join(analyse(history).reasons)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"engine": 42, "spare": 43}, (Verdict.PASS, ())),
        ({"engine": 42, "spare": 44}, (Verdict.PASS, ())),
        ({"engine": 42}, (Verdict.FAIL, ("component-not-back",))),
        ({"engine": 43, "spare": 43}, (Verdict.FAIL, ("component-not-back",))),
    ],
)
def test_what_dies_of_a_fault_that_hit_no_process_must_be_back_too(
    world: Any, after: dict[str, int], said: tuple[Verdict, tuple[str, ...]]
) -> None:
    """A partition, or wrong data, and the spare ends and stays away: that is no recovery either."""
    samples(world, {"engine": 42, "spare": 43}, after)
    world.receipt = msgspec.structs.replace(world.receipt, processes={})
    assert fault(world) == said


def test_a_target_of_which_nothing_can_be_measured_is_not_judged_by_it(world: Any) -> None:
    """Its processes are nobody's business where no fault hit any; measured once, they must be seen again."""
    samples(world, {}, {})
    world.receipt = msgspec.structs.replace(world.receipt, processes={})
    assert fault(world) == (Verdict.PASS, ())
    samples(world, BEFORE, {})
    world.receipt = msgspec.structs.replace(world.receipt, processes={})
    world.samples = [one for one in world.samples if one.mono_ns <= 10**12]
    assert fault(world) == (Verdict.UNKNOWN, ("component-unseen",))


@pytest.mark.parametrize(
    ("unready_ms", "ready_ms", "verdict"),
    [
        (600, None, Verdict.FAIL),
        (600, 1390, Verdict.PASS),
        (1300, None, Verdict.PASS),
        (1410, None, Verdict.PASS),
    ],
)
@pytest.mark.parametrize("degrades", [True, False])
def test_not_ready_any_more_is_not_recovered(
    world: Any, unready_ms: int, ready_ms: int | None, verdict: Verdict, *, degrades: bool
) -> None:
    """The service goes on, and health says no to the end: FAIL; a moment of it, or later, is none of it."""
    scenario = msgspec.structs.replace(world.plan.scenario, degrades=degrades)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    for after_ms, ok in ((unready_ms, False), (ready_ms, True)):
        if after_ms is not None:
            at = 10**12 + after_ms * 1_000_000
            world.extra.append(ProbeChange(probe="ready", ok=ok, mono_ns=at, uncertainty_ns=1, samples=1))
    assert fault(world) == (verdict, () if verdict is Verdict.PASS else ("not-ready-at-the-end",))


@pytest.mark.parametrize(("ended_ms", "duration_s"), [(1450, 1.45), (1300, 1.3), (1450, None)])
def test_a_fault_that_outlasts_the_observation_proves_no_recovery(
    world: Any, ended_ms: int, duration_s: float | None
) -> None:
    """Nobody watched what came after its end: UNKNOWN; one without an end of its own is taken back after."""
    step = msgspec.structs.replace(world.plan.scenario.fault, duration_s=duration_s)
    scenario = msgspec.structs.replace(world.plan.scenario, fault=step)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    at = 10**12 + ended_ms * 1_000_000
    world.extra = [Reverted(undo_id="u1", verified=True, evidence={}, mono_ns=at)]
    late = duration_s is not None and ended_ms > 1400
    assert fault(world) == ((Verdict.UNKNOWN, ("fault-outlasted",)) if late else (Verdict.PASS, ()))


def ended(world: Any, opening: dict[str, Any], last: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return what the books of a session say whose opening and end were measured like this."""
    one = {"cpu_s": 1.0, "rss": 100 << 20, "threads": 1, "state": "sleeping"}
    then = world.sample(-30_000, opening=True, components={n: {**one, "pid": p} for n, p in opening.items()})
    now = world.sample(1, components={n: {**one, **fields, "pid": p} for n, p in last.items()})
    world.samples = [then, now]
    return books(world.history())[1]


@pytest.mark.parametrize(
    ("last", "names"),
    [
        ({"engine": 51, "spare": 52}, []),
        ({"engine": 43}, ["spare"]),
        ({"engine": 43, "spare": 43}, ["engine", "spare"]),
        ({}, ["engine", "spare"]),
    ],
)
def test_who_is_missing_at_the_end_of_a_session_is_named(
    world: Any, last: dict[str, int], names: list[str]
) -> None:
    """Whatever ended it, and when: who was there at the opening is there at the end, or it is FAIL."""
    found = ended(world, BEFORE, last)["presence"]
    assert found.verdict is (Verdict.FAIL if names else Verdict.PASS)
    assert [one.data["components"] for one in found.findings] == ([names] if names else [])


@pytest.mark.parametrize(
    ("pid", "rss", "told"), [(41, 400 << 20, True), (41, 150 << 20, False), (9, 400 << 20, False)]
)
def test_what_grew_over_a_session_is_told_and_not_judged(world: Any, pid: int, rss: int, told: bool) -> None:
    """The process that is there since the opening, an hour later: a remark. A new process begins anew."""
    found = ended(world, {"engine": 41}, {"engine": pid}, rss=rss)["infrastructure"]
    grown = [one for one in found.findings if one.code == "memory-grew"]
    assert bool(grown) is told
    assert all(one.verdict is Verdict.PASS and "100 to 400 MiB in 3,000 s" in one.text for one in grown)
    assert not [one for one in found.findings if one.code == "memory-leak"]
