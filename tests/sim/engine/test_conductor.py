"""The life of a trial under a simulated clock."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Any

import engine_fakes as fakes
import msgspec
import pytest

from blackstart.check import rto
from blackstart.check.analyse import analyse
from blackstart.check.facts import Facts
from blackstart.check.fault import LEFT_IN_PLACE
from blackstart.engine.clocks import SimClock, simulate
from blackstart.engine.conductor import Kit, conduct
from blackstart.errors import FaultError
from blackstart.history.view import History, load
from blackstart.model.fault import Undo
from blackstart.model.manifest import Limits, Operation, Service, WorkloadSpec
from blackstart.model.record import (
    Ended,
    Injected,
    OracleSeen,
    ProbeChange,
    Problem,
    ProcessSeen,
    Reverted,
    ServiceBatch,
    ServiceWatched,
    SignalSeen,
    StageReached,
    Witnessed,
)
from blackstart.model.scenario import FaultStep, Observe, Prepare, Steady, Trigger
from blackstart.model.verdict import Verdict

if TYPE_CHECKING:
    from pathlib import Path


class Stage:
    """Everything a simulated trial needs, and what became of it."""

    def __init__(self, folder: Path, **world: Any) -> None:
        self.folder = folder / "trial"
        self.settings = {"rate": 400, "outage_ms": 80, **world}
        self.bites = self.settings.pop("bites", True)
        self.unavailable: str | None = None
        self.sticks = False
        self.refuses = self.settings.pop("refuses", None)
        self.world: Any = None
        self.fault: Any = None
        self.guard: Any = None
        self.told: list[tuple[str, Any]] = []
        self.on: dict[str, Any] = {}
        self.manifest = fakes.manifest()
        self.kind: Any = fakes.FakeFault
        self.exchange = False
        self.oracle: Any = None

    def kit(self) -> Kit:
        """Put the fakes in the place of the real ones."""
        clock = SimClock(asyncio.get_running_loop())

        def rig(_manifest: Any, *, sink: Any, **_: Any) -> Any:
            self.world = fakes.World(clock, sink, **self.settings)
            made = fakes.FakeRig(self.world, self.refuses)
            if self.exchange:
                made.oracle = self.oracle = fakes.FakeExchange(self.world)
            return made

        async def guard(_run: Path, *, on_halt: Any) -> Any:
            self.guard = fakes.FakeGuard([], sticks=self.sticks)
            self.guard.on_halt = on_halt
            return self.guard

        def fault(_kind: str) -> Any:
            self.fault = self.kind(lambda: self.world, bites=self.bites, why_not=self.unavailable)
            return self.fault

        def progress(event: str, figures: Any) -> None:
            self.told.append((event, figures))
            if event == "stage" and figures["stage"] in self.on:
                self.on[figures["stage"]]()

        return Kit(clock=clock, rig=rig, guard=guard, fault=fault, progress=progress)

    def run(self, limits: Limits | None = None, **scenario: Any) -> History:
        """Conduct the trial in simulated time."""
        manifest = msgspec.structs.replace(self.manifest, limits=limits or Limits())

        async def main() -> History:
            return await conduct(fakes.plan(**scenario), manifest, self.folder, self.kit())

        return simulate(main())


def stages(history: History) -> list[str]:
    """Name the stages in order."""
    return [one.stage for one in history.all(StageReached)]


def codes(history: History) -> list[str]:
    """Name the problems."""
    return [one.code for one in history.all(Problem)]


WHOLE = [
    "open",
    "steady",
    "armed",
    "injected",
    "witnessed",
    "observed",
    "reverted",
    "quiesced",
    "read",
    "closed",
]


def test_a_whole_trial_goes_through_every_stage_in_order(tmp_path: Path) -> None:
    """Every stage is reached once, in the order of the design, and the history ends complete."""
    stage = Stage(tmp_path)
    history = stage.run()
    assert stages(history) == WHOLE
    assert codes(history) == []
    assert history.ended == history.records()[-1]
    assert history.ended is not None
    assert history.ended.how == "complete"
    assert load(stage.folder).records() == history.records()


def test_a_second_fault_follows_on_its_own_trigger(tmp_path: Path) -> None:
    """It comes after the target responded to the first; both are witnessed and taken back; one RTO."""
    then = FaultStep(
        kind="fake", components=("server",), trigger=Trigger(at="signal", event="responded", limit_s=5)
    )
    history = Stage(tmp_path).run(then=(then,))
    injected = history.all(Injected)
    responded = next(one for one in history.all(SignalSeen) if one.event == "responded")
    assert [one.step for one in injected] == [0, 1]
    assert injected[1].receipt.t0_mono_ns >= responded.mono_ns > injected[0].receipt.t0_mono_ns
    assert {one.step for one in history.all(Witnessed)} == {0, 1}
    assert len({one.undo_id for one in history.all(Reverted)}) == 2
    trial = analyse(history)
    assert len(trial.then) == 1
    assert trial.rto.total_ns == pytest.approx(80 * fakes.MS, rel=0.2)


@pytest.mark.parametrize(
    ("kind", "aimed"), [("FakeFault", [("now", 0)]), ("EarlyFault", [("now", 0), ("signal", 0)])]
)
def test_a_later_fault_is_aimed_early_only_if_it_looks_nobody_up(
    tmp_path: Path, kind: str, aimed: list[tuple[str, int]]
) -> None:
    """One that needs no victim is ready before the first fault comes; any other waits for its trigger."""
    stage = Stage(tmp_path)
    stage.kind = getattr(fakes, kind)
    then = FaultStep(
        kind="fake", components=("server",), trigger=Trigger(at="signal", event="responded", limit_s=5)
    )
    stage.run(then=(then,))
    assert stage.world.log.count("inject") == 2
    assert stage.world.aimed == aimed


def test_the_exchange_misbehaves_as_a_circumstance(tmp_path: Path) -> None:
    """It is armed before the fault, its undo is held before that, and it is taken back and proven."""
    stage = Stage(tmp_path)
    stage.exchange = True
    wanted = {"action": "slow_answers", "delay_ms": 5, "on": {"kind": "fill", "quantity": 3}}
    history = stage.run(prepare=(Prepare(action="misbehave", parameters=wanted),))
    assert codes(history) == []
    ((action, on, parameters),) = stage.oracle.asked
    assert (action, parameters) == ("slow_answers", {"delay_ms": 5})
    assert (on.event, on.where) == ("fill", {"quantity": 3})
    assert stage.world.log.index("misbehave") < stage.world.log.index("inject")
    assert [one.verified for one in history.all(Reverted) if one.undo_id.startswith("disarm:")] == [True]


def test_an_oracle_that_cannot_misbehave_is_said(tmp_path: Path) -> None:
    """The trial is then not the one it should be."""
    history = Stage(tmp_path).run(prepare=(Prepare(action="misbehave", parameters={"action": "x"}),))
    assert codes(history) == ["not-prepared"]


def test_a_second_fault_that_never_comes_is_told(tmp_path: Path) -> None:
    """Its trigger does not come: the trial goes through, closes in order, and is UNKNOWN for two reasons."""
    then = FaultStep(kind="fake", trigger=Trigger(at="signal", event="never", limit_s=2))
    history = Stage(tmp_path).run(then=(then,))
    assert codes(history) == ["trigger-never-came"]
    assert "closed" in stages(history)
    trial = analyse(history)
    assert trial.verdict is Verdict.UNKNOWN
    assert any(reason.startswith("fault-not-injected") for reason in trial.reasons)


def test_a_lasting_fault_is_taken_back_when_its_time_is_over(tmp_path: Path) -> None:
    """After `duration_s`, while the trial goes on watching; and only once."""
    step = FaultStep(kind="fake", components=("server",), duration_s=0.5)
    stage = Stage(tmp_path)
    history = stage.run(fault=step)
    reverted = [one for one in history.all(Reverted) if one.evidence.get("duration_s") == 0.5]
    assert len(reverted) == len(history.all(Reverted)) == 1
    records = list(history.records())
    observed = next(k for k, one in enumerate(records) if getattr(one, "stage", "") == "observed")
    assert records.index(reverted[0]) < observed
    assert stage.fault.reverts == 1


def test_a_fault_that_cannot_be_had_is_unknown_before_anything_starts(tmp_path: Path) -> None:
    """The reason of the fault is the reason of the trial; the target was never started."""
    stage = Stage(tmp_path)
    stage.unavailable = "this kernel has no such thing"
    history = stage.run()
    trial = analyse(history)
    assert trial.verdict is Verdict.UNKNOWN
    assert any("fault-unavailable: fake: this kernel has no such thing" in reason for reason in trial.reasons)
    assert "open" not in stage.world.log


def test_an_undo_that_fails_to_the_end_is_the_loudest_finding(tmp_path: Path) -> None:
    """The trial is FAIL and says by which command an operator takes back what was left in place."""
    stage = Stage(tmp_path)
    stage.sticks = True
    trial = analyse(stage.run())
    assert trial.verdict is Verdict.FAIL
    found = [f for check in trial.checks for f in check.findings if f.code == LEFT_IN_PLACE]
    assert [f.data["by_hand"] for f in found] == ["rm the thing"]
    assert trial.reasons[0].startswith("left-in-place")


def test_the_steady_state_is_proven_before_the_fault(tmp_path: Path) -> None:
    """The fault comes only after readiness and load held for a second, and the rate is written down."""
    history = Stage(tmp_path).run()
    steady = next(one for one in history.all(StageReached) if one.stage == "steady")
    ready_ns = 1000_000_000_000 + 200 * fakes.MS
    assert steady.mono_ns >= ready_ns + 1_000_000_000
    assert steady.detail["rate_per_s"] == pytest.approx(400, rel=0.02)
    assert steady.detail["required_per_s"] == 300


def test_too_little_load_stops_the_trial(tmp_path: Path) -> None:
    """With 211 orders a second instead of 300 nothing is broken, and the reason says both figures."""
    stage = Stage(tmp_path, rate=211)
    history = stage.run(steady=Steady(limit_s=5))
    assert codes(history) == ["no-load"]
    assert "211/s, 300/s required" in history.all(Problem)[0].text
    assert history.all(Injected) == ()
    assert "close" in stage.world.log


def test_our_own_questions_are_no_load(tmp_path: Path) -> None:
    """A service that is a probe says that it serves and never that it is loaded: nothing is broken."""
    stage = Stage(tmp_path)
    stage.manifest = msgspec.structs.replace(
        fakes.manifest(), services={"orders": Service(source="probe:ready")}
    )
    history = stage.run()
    assert codes(history) == ["no-load"]
    assert "probe" in history.all(Problem)[0].text
    assert history.all(Injected) == ()


@pytest.mark.parametrize(("acknowledged", "expected"), [(400, []), (100, ["no-load"])])
def test_beside_a_probe_the_acknowledged_writes_are_the_load(
    tmp_path: Path, acknowledged: int, expected: list[str]
) -> None:
    """What the workload had acknowledged counts, and nothing else."""
    stage = Stage(tmp_path, rate=acknowledged)
    stage.manifest = msgspec.structs.replace(
        fakes.manifest(),
        services={"up": Service(source="probe:ready"), "orders": Service(source="workload")},
        workload=WorkloadSpec(),
    )
    history = stage.run(steady=Steady(limit_s=5), service="up")
    assert codes(history) == expected


def test_a_target_that_is_never_ready_stops_the_trial(tmp_path: Path) -> None:
    """Without readiness there is no steady state and no fault."""
    history = Stage(tmp_path, start_ms=60_000).run(steady=Steady(limit_s=5))
    assert codes(history) == ["not-steady"]
    assert history.all(Injected) == ()


def test_a_target_that_does_not_come_up_is_closed_and_told(tmp_path: Path) -> None:
    """Its own words are in the reason."""
    stage = Stage(tmp_path, refuses="port 80 is taken")
    history = stage.run()
    assert codes(history) == ["target-did-not-start"]
    assert "port 80 is taken" in history.all(Problem)[0].text
    assert stages(history) == ["closed"]
    assert stage.guard.log[-1] == "guard closed"


def test_a_target_that_dies_before_the_fault_stops_the_trial(tmp_path: Path) -> None:
    """A death that Blackstart did not cause proves nothing: UNKNOWN, with the status."""
    stage = Stage(tmp_path)
    stage.on["steady"] = lambda: stage.world.sink(fakes.died(stage.world.clock))
    history = stage.run()
    assert codes(history) == ["target-died"]
    assert "status -11" in history.all(Problem)[0].text
    assert history.all(Injected) == ()


def test_observation_goes_on_until_the_service_is_back_and_validated(tmp_path: Path) -> None:
    """An outage of 2 s is watched to its end plus the time after, not to the limit."""
    history = Stage(tmp_path, outage_ms=2000).run()
    t0 = history.all(Injected)[0].receipt.t0_mono_ns
    observed = next(one for one in history.all(StageReached) if one.stage == "observed")
    assert observed.detail == {"why": "resumed"}
    assert 3.0e9 <= observed.mono_ns - t0 <= 3.5e9


def test_observation_does_not_end_in_a_silence(tmp_path: Path) -> None:
    """What is out again when the time after is over is watched until it is back; the RTO ends no earlier."""
    history = Stage(tmp_path, relapse_ms=4000).run()
    t0 = history.all(Injected)[0].receipt.t0_mono_ns
    observed = next(one for one in history.all(StageReached) if one.stage == "observed")
    assert observed.mono_ns - t0 >= 4.5e9
    total_ns = rto.check(Facts(history))[0].total_ns
    assert total_ns is not None
    assert total_ns >= 4e9


def test_observation_does_not_end_while_the_target_is_not_ready(tmp_path: Path) -> None:
    """What says no when the time after is over is watched until it says yes again."""
    history = Stage(tmp_path, unready_ms=4000).run()
    assert history.all(ProbeChange)[-1].ok
    observed = next(one for one in history.all(StageReached) if one.stage == "observed")
    assert observed.mono_ns >= history.all(ProbeChange)[-1].mono_ns


def test_a_system_that_never_returns_is_watched_to_the_limit(tmp_path: Path) -> None:
    """The observation ends at the limit and says so; the watch covers all of it."""
    history = Stage(tmp_path, outage_ms=None).run(observe=Observe(limit_s=12))
    observed = next(one for one in history.all(StageReached) if one.stage == "observed")
    t0 = history.all(Injected)[0].receipt.t0_mono_ns
    assert observed.detail == {"why": "limit"}
    assert observed.mono_ns - t0 >= 12e9
    assert history.all(ServiceWatched)[-1].until_mono_ns >= observed.mono_ns


def test_a_fault_without_effect_is_not_watched_for_ever(tmp_path: Path) -> None:
    """When the service never stops, a few seconds of looking are enough."""
    history = Stage(tmp_path, bites=False).run()
    observed = next(one for one in history.all(StageReached) if one.stage == "observed")
    assert observed.detail == {"why": "no interruption"}
    assert history.all(Witnessed)[0].witness.bit is False


def test_the_undo_is_held_before_the_fault_and_carried_out_after(tmp_path: Path) -> None:
    """Protect comes before inject.

    Revert and the guardian's undo come after, and its outcome is on record.
    """
    stage = Stage(tmp_path)
    history = stage.run()
    assert stage.guard.owed == {}
    assert stage.world.log == ["open", "inject", "revert", "close"]
    assert len(history.all(Reverted)) == 1


def test_what_waits_for_the_end_has_no_life_of_its_own(tmp_path: Path) -> None:
    """Damage is put right when the trial is over: at the limit it would heal a target that still runs."""
    kept = Undo(id="restore", action="unlink", arguments={"path": "/x"}, at_the_end=True)

    class Damaging(fakes.FakeFault):
        async def inject(self, ctx: Any, step: Any) -> Any:
            await ctx.protect([kept])
            return await super().inject(ctx, step)

    stage = Stage(tmp_path)
    stage.kind = Damaging
    held: list[Any] = []
    stage.on["injected"] = lambda: held.extend(stage.guard.owed.values())
    stage.run()
    lives = {one.id: one.expires_mono_ns is not None for one in held}
    assert lives.pop("restore") is False
    assert lives, "there is a state to be taken back, too"
    assert all(lives.values())


def test_no_fault_outlives_the_limit_of_the_manifest(tmp_path: Path) -> None:
    """A fault that lasts is taken back at the limit, in the middle of watching, and on record with the limit.

    The guardian holds an undo that ends by itself a little later, should the trial hang.
    """
    stage = Stage(tmp_path, outage_ms=None)
    held: list[Any] = []
    stage.on["injected"] = lambda: held.extend(stage.guard.owed.values())
    history = stage.run(limits=Limits(fault_limit_s=0.5), observe=Observe(limit_s=3.0))
    injected, reverted = history.all(Injected)[0], history.all(Reverted)
    assert [one.evidence for one in reverted] == [{"fault_limit_s": 0.5}]
    t0 = injected.receipt.t0_mono_ns
    assert [one.expires_mono_ns - t0 for one in held] == [1_500_000_000]
    order = [type(one) if not isinstance(one, StageReached) else one.stage for one in history.records()]
    assert order.index("injected") < order.index(Reverted) < order.index("observed")
    assert stage.world.log.count("revert") == 1


def test_events_before_the_fault_stand_before_it_in_the_history(tmp_path: Path) -> None:
    """Batching never moves an event of before the fault behind the record of the fault."""
    records = Stage(tmp_path).run().records()
    at = next(place for place, one in enumerate(records) if isinstance(one, Injected))
    t0 = records[at].receipt.t0_mono_ns  # type: ignore[union-attr]
    behind = [one for one in records[at:] if isinstance(one, ServiceBatch)]
    assert behind
    assert all(event[0] >= t0 for batch in behind for event in batch.events)


def test_service_events_are_batched(tmp_path: Path) -> None:
    """Thousands of events make few records, none spanning much more than 50 ms."""
    batches = Stage(tmp_path, outage_ms=3000).run().all(ServiceBatch)
    assert max(len(batch.events) for batch in batches) >= 15
    assert all(batch.events[-1][0] - batch.events[0][0] <= 60 * fakes.MS for batch in batches)


def test_a_trigger_fires_in_the_turn_of_its_event(tmp_path: Path) -> None:
    """With an oracle trigger the fault comes at the very instant of the matching event."""
    stage = Stage(tmp_path)

    def fills() -> None:
        async def send() -> None:
            for cumulated in (100, 500, 600):
                await stage.world.wait_ms(20)
                now = stage.world.clock.now().mono_ns
                stage.world.sink(OracleSeen(event="fill", mono_ns=now, fields={"cum_quantity": cumulated}))

        stage.world.task = asyncio.ensure_future(send())

    stage.on["armed"] = fills
    history = stage.run(trigger=Trigger(at="oracle", event="fill", where={"cum_quantity": 500}))
    hit = next(one for one in history.all(OracleSeen) if one.fields["cum_quantity"] == 500)
    assert history.all(Injected)[0].receipt.t0_mono_ns == hit.mono_ns


def test_a_trigger_that_never_comes_stops_the_trial(tmp_path: Path) -> None:
    """Nothing is broken, and the reason names the event."""
    history = Stage(tmp_path).run(trigger=Trigger(at="signal", event="checkpoint.started", limit_s=3))
    assert codes(history) == ["trigger-never-came"]
    assert history.all(Injected) == ()


@pytest.mark.parametrize(
    ("operations", "at_least", "told", "done"),
    [
        ({"save": Operation(urls=("u",))}, 1, [], True),
        ({"save": Operation(urls=("u",))}, 2, ["trigger-never-came"], True),
        ({}, 1, [], False),
    ],
)
def test_a_preparation_is_waited_for(
    tmp_path: Path, operations: dict[str, Operation], at_least: int, told: list[str], done: bool
) -> None:
    """Nothing is broken before it is done; an optional one that the target does not have is left out."""
    stage = Stage(tmp_path)
    stage.manifest = msgspec.structs.replace(stage.manifest, operations=operations)
    until = Trigger(at="signal", event="save-done", at_least=at_least, limit_s=3)
    step = Prepare(action="operation", parameters={"name": "save"}, until=until, optional=True)
    history = stage.run(prepare=(step,))
    assert codes(history) == told
    assert bool(history.all(Injected)) is (told == [])
    assert ("save" in stage.world.log) is done


def test_a_random_moment_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    """The seeded moment can be replayed."""
    moments = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        history = Stage(tmp_path / name).run(trigger=Trigger(at="random", delay_s=3))
        moments.append(history.all(Injected)[0].receipt.t0_mono_ns)
    assert moments[0] == moments[1]


@pytest.mark.parametrize(
    "stage_name", ["open", "steady", "armed", "injected", "witnessed", "observed", "reverted"]
)
def test_ctrl_c_at_any_stage_reverts_closes_and_keeps_the_history(tmp_path: Path, stage_name: str) -> None:
    """A cancelled trial ends "interrupted", with everything taken back and a readable history."""
    stage = Stage(tmp_path)

    async def main() -> History:
        task = asyncio.ensure_future(conduct(fakes.plan(), fakes.manifest(), stage.folder, stage.kit()))
        stage.on[stage_name] = task.cancel
        return await task

    history = simulate(main())
    assert history.ended is not None
    assert history.ended.how == "interrupted"
    assert stage.world.log[-1] == "close"
    assert stage.guard.owed == {}
    assert stage.guard.log[-1] == "guard closed"
    assert (stage.fault is None) or stage.fault.reverts == (1 if history.all(Injected) else 0)


def test_the_kill_switch_ends_the_trial(tmp_path: Path) -> None:
    """When the guardian says that it was halted, the trial ends for that reason."""
    stage = Stage(tmp_path, outage_ms=None)
    stage.on["witnessed"] = lambda: stage.guard.on_halt("halted")
    history = stage.run()
    assert codes(history) == ["halted"]
    assert stage.world.log[-1] == "close"


@pytest.mark.parametrize("asked", ["protect", "undo"])
def test_a_guardian_that_does_not_answer_ends_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """Whoever asks it and whenever: the trial says `guardian-lost`, once, and closes in peace."""

    async def lost(self: fakes.FakeGuard, *_: object) -> None:
        self.on_halt("guardian-lost")
        monkeypatch.undo()
        raise FaultError("the guardian is gone")

    monkeypatch.setattr(fakes.FakeGuard, asked, lost)
    stage = Stage(tmp_path)
    history = stage.run()
    assert codes(history) == ["guardian-lost"]
    assert stage.world.log[-1] == "close"
    assert stage.guard.log[-1] == "guard closed"


def test_a_full_disk_ends_the_trial_and_the_last_words_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disk full in the run folder: UNKNOWN `disk-full`, all reverted and closed, the history whole."""
    stage = Stage(tmp_path)
    real = os.write
    reserve = stage.folder / ".reserve"

    def full(handle: int, data: Any) -> int:
        if reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data)

    stage.on["injected"] = lambda: monkeypatch.setattr(os, "write", full)
    history = stage.run()
    assert "disk-full" in codes(history)
    assert isinstance(history.records()[-1], Ended)
    assert stage.world.log[-2:] == ["revert", "close"]


def test_a_bug_of_ours_does_not_keep_the_target_broken(tmp_path: Path) -> None:
    """An unexpected exception is a reason with a traceback in the folder, after everything was reverted."""
    stage = Stage(tmp_path)

    def fail() -> None:
        raise ZeroDivisionError("oops")

    stage.on["injected"] = fail
    history = stage.run()
    assert codes(history) == ["engine-error"]
    assert "oops" in (stage.folder / "bug.txt").read_text()
    assert stage.world.log == ["open", "inject", "revert", "close"]


def test_deaths_after_the_fault_are_no_reason_to_stop(tmp_path: Path) -> None:
    """Once the fault is in, ends of processes are what is being measured."""
    stage = Stage(tmp_path)
    stage.on["injected"] = lambda: stage.world.sink(fakes.died(stage.world.clock))
    history = stage.run()
    assert codes(history) == []
    assert len(history.all(ProcessSeen)) == 1
