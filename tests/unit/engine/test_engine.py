"""Clocks, permit, recorder, triggers: the engine's small parts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.engine import permit
from blackstart.engine.clocks import SimClock, SystemClock, simulate
from blackstart.engine.recorder import Recorder
from blackstart.engine.trial import RunningTrial
from blackstart.engine.triggers import Trip
from blackstart.errors import PermitError, ScenarioError
from blackstart.faults import registry
from blackstart.history.view import load
from blackstart.history.writer import HistoryWriter
from blackstart.model.manifest import Limits, Manifest, Service
from blackstart.model.record import OracleSeen, Problem, ServiceBatch
from blackstart.model.scenario import FaultStep, Objectives, Plan, Scenario, Trigger

if TYPE_CHECKING:
    from pathlib import Path


def plan(*components: str) -> Plan:
    """Make a plan that breaks these components."""
    scenario = Scenario(
        id="X", title="x", requirement="R1", fault=FaultStep(kind="kill"), objectives=Objectives(rto_ms=1)
    )
    return Plan(trial_id="X", scenario=scenario, components=components, service="s", seed=1, replay="-")


@pytest.mark.parametrize("environment", ["sim", "dev", "test", "staging"])
def test_allowed_environments_run(environment: Any) -> None:
    """Everything but production is permitted."""
    permit.check(Manifest(schema=1, name="m", environment=environment))


@pytest.mark.parametrize("environment", [None, "production"])
def test_the_permit_fails_closed(environment: Any) -> None:
    """No environment, or production: refused with exit status 3 and the way out."""
    with pytest.raises(PermitError) as caught:
        permit.check(Manifest(schema=1, name="m", environment=environment))
    assert caught.value.exit_status == 3
    assert caught.value.hint


def test_the_blast_radius_is_kept() -> None:
    """Components that the manifest excludes, and too many at once, are refused."""
    limited = Manifest(
        schema=1, name="m", environment="sim", limits=Limits(components=("a", "b"), concurrent_faults=1)
    )
    permit.check_plan(limited, plan("a"))
    with pytest.raises(PermitError, match="c may not be broken"):
        permit.check_plan(limited, plan("c"))
    with pytest.raises(PermitError, match="2 components at once, 1 allowed"):
        permit.check_plan(limited, plan("a", "b"))


def test_simulated_time_jumps_and_keeps_order() -> None:
    """An hour of waiting takes no time, and sleepers wake in the order of their times."""

    async def main() -> tuple[list[int], int]:
        clock = SimClock(asyncio.get_running_loop())
        start = clock.now().mono_ns
        woken: list[int] = []

        async def sleeper(seconds: int) -> None:
            await clock.sleep_until(start + seconds * 10**9)
            woken.append(seconds)

        await asyncio.gather(*(sleeper(s) for s in (3600, 1, 60)))
        return woken, clock.now().mono_ns - start

    woken, took = simulate(main())
    assert woken == [1, 60, 3600]
    assert took == 3600 * 10**9


def test_a_simulation_in_which_everybody_waits_is_told() -> None:
    """A deadlock ends with an error instead of hanging."""

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="never comes"):
        simulate(main())


def test_the_real_clock_never_wakes_early() -> None:
    """`sleep_until` returns at or after the moment, and both clocks run forward."""

    async def main() -> bool:
        clock = SystemClock()
        moment = clock.now().mono_ns + 3_000_000
        await clock.sleep_until(moment)
        return clock.now().mono_ns >= moment

    assert asyncio.run(main())


def test_the_recorder_merges_service_events_and_shows_each_at_once(tmp_path: Path) -> None:
    """Listeners see every batch as it comes; the file gets them merged, and nothing is lost."""

    async def main() -> tuple[list[int], list[list[int]]]:
        clock = SimClock(asyncio.get_running_loop())
        writer = HistoryWriter(tmp_path)
        recorder = Recorder(writer, clock)
        live: list[int] = []
        stop = recorder.listen(lambda record: live.append(len(getattr(record, "events", ()))))
        for number in range(100):
            recorder(ServiceBatch(service="orders", events=[(number, str(number), 0)]))
            await clock.sleep_until(clock.now().mono_ns + 2_500_000)
        stop()
        recorder(Problem(code="x", text="x", mono_ns=1))
        recorder.sync()
        writer.close()
        return live, [[event[0] for event in batch.events] for batch in load(tmp_path).all(ServiceBatch)]

    live, batches = simulate(main())
    assert live == [1] * 100
    assert [number for batch in batches for number in batch] == list(range(100))
    assert len(batches) <= 6


def test_what_is_judged_from_its_file_needs_no_memory_for_service_events(tmp_path: Path) -> None:
    """A segment of chaos keeps everything but them; the file has all, in order."""
    writer = HistoryWriter(tmp_path)
    recorder = Recorder(writer, SystemClock(), keep_events=False)
    told = [
        ServiceBatch(service="orders", events=[(1, "a", 0)]),
        Problem(code="x", text="x", mono_ns=2),
        ServiceBatch(service="orders", events=[(3, "b", 0)]),
    ]
    for record in told:
        recorder(record)
        recorder.flush()
    recorder.sync()
    writer.close()
    assert recorder.records() == (told[1],)
    assert list(load(tmp_path).records()) == told


@pytest.mark.parametrize("at_least", [1, 2])
def test_a_trigger_wakes_on_what_it_waits_for(tmp_path: Path, at_least: int) -> None:
    """Another event, other fields, or one from before the fault that it follows do not wake it."""

    async def main() -> list[bool]:
        clock = SimClock(asyncio.get_running_loop())  # type: ignore[arg-type]
        writer = HistoryWriter(tmp_path)
        recorder = Recorder(writer, clock)
        trial = RunningTrial(
            plan("engine"),
            Manifest(schema=1, name="m", environment="sim", services={"s": Service(source="oracle")}),
            clock=clock,
            folder=tmp_path,
            isolation=frozenset(),
            recorder=recorder,
            guard=None,  # type: ignore[arg-type] - a trigger breaks nothing
            progress=None,
        )
        where = {"cum_quantity": 500, "symbol": "~^AL"}
        trip = Trip(trial, Trigger(at="oracle", event="fill", where=where, at_least=at_least))
        waiting = asyncio.ensure_future(trip.wait(since_ns=10))
        woken = []
        for mono_ns, event, cumulated, symbol in [
            (11, "fill", 400, "ALFA"),
            (11, "ack", 500, "ALFA"),
            (11, "fill", 500, "BRAVO"),
            (9, "fill", 500, "ALFA"),
            (11, "fill", 500, "ALFA"),
            (12, "fill", 500, "ALFA"),
        ]:
            fields = {"cum_quantity": cumulated, "symbol": symbol}
            recorder(OracleSeen(event=event, mono_ns=mono_ns, fields=fields))
            for _ in range(5):
                await asyncio.sleep(0)
            woken.append(waiting.done())
        trip.close()
        writer.close()
        return woken

    assert simulate(main()) == [False, False, False, False, at_least == 1, True]


def test_an_unknown_fault_names_the_nearest() -> None:
    """`kil` is told with what there is."""
    with pytest.raises(ScenarioError, match="did you mean `kill`"):
        registry.make("kil")
    assert {registry.make(name).name for name in registry.known()} >= {
        "kill",
        "terminate",
        "cold",
        "pause",
        "disconnect",
    }
