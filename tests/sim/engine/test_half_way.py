"""Faults that come only half, are taken back with difficulty, or are made ready long before they come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import engine_fakes as fakes
import msgspec
import pytest

from blackstart.engine import alarm
from blackstart.engine.clocks import SimClock, simulate
from blackstart.engine.conductor import Kit, conduct
from blackstart.errors import FaultError, TargetError
from blackstart.model.fault import LaunchChange, Undo
from blackstart.model.manifest import Limits
from blackstart.model.record import Injected, Problem, Reverted, StageReached
from blackstart.model.scenario import FaultStep, Observe, Trigger

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.history.view import History


NS = 1_000_000_000


class Ready(fakes.FakeFault):  # type: ignore[misc]
    """A fault that has something in the guardian's hands from its preparation, and from its aim."""

    async def prepare(self, ctx: Any, step: FaultStep) -> LaunchChange:
        """Put something in place."""
        await ctx.protect([Undo(id=f"prepared-{step.kind}", action="unmount", arguments={})])
        return LaunchChange()

    async def aim(self, ctx: Any, step: FaultStep) -> None:
        """Start a helper."""
        await ctx.protect([Undo(id=f"aimed-{step.kind}", action="kill", arguments={})])


class HalfWay(Ready):
    """A fault that fails, or waits for ever, when a part of it is in place."""

    def __init__(self, world: Any, failure: Exception | None) -> None:
        super().__init__(world)
        self.failure = failure

    async def inject(self, ctx: Any, step: FaultStep) -> Any:
        """Put a part in place."""
        await ctx.protect([Undo(id=f"half-{step.kind}", action="unlink", arguments={})])
        self.world().log.append("half")
        if self.failure is not None:
            raise self.failure
        await asyncio.Event().wait()


class Stuck(fakes.FakeFault):  # type: ignore[misc]
    """A fault whose end raises what nobody expects."""

    async def revert(self, ctx: Any, receipt: Any) -> None:
        """Raise."""
        await super().revert(ctx, receipt)
        raise TimeoutError("its helper does not answer")


class Guard(fakes.FakeGuard):  # type: ignore[misc]
    """A guardian that tells what it is asked for."""

    def __init__(self) -> None:
        super().__init__([])
        self.held: dict[str, int | None] = {}

    async def protect(self, undos: Any) -> None:
        """Note until when it holds each."""
        undos = list(undos)
        self.held |= {one.id: one.expires_mono_ns for one in undos}
        await super().protect(undos)

    async def undo(self, ids: Any = None) -> Any:
        """Say in the log who asked for which."""
        outcomes = await super().undo(ids)
        self.log[-1] = " ".join(["undo", *(one.undo_id for one in outcomes)])
        return outcomes


class Stage:
    """A simulated trial with the faults that are given, by kind."""

    def __init__(self, folder: Path, **faults: Any) -> None:
        self.folder = folder / "trial"
        self.faults = faults
        self.guard = Guard()
        self.world: Any = None
        self.on: dict[str, Any] = {}

    def fault(self, kind: str) -> Any:
        """Make one of them around the world that there will be."""
        return self.faults[kind](lambda: self.world)

    async def main(self, limits: Limits, **scenario: Any) -> History:
        """Conduct the trial."""
        clock = SimClock(asyncio.get_running_loop())

        def rig(_manifest: Any, *, sink: Any, **_: Any) -> Any:
            self.world = fakes.World(clock, sink, rate=400, outage_ms=80)
            return fakes.FakeRig(self.world)

        async def guard(_run: Path, **_: Any) -> Any:
            return self.guard

        def progress(event: str, figures: Any) -> None:
            if event == "stage" and figures["stage"] in self.on:
                self.on[figures["stage"]]()

        kit = Kit(clock=clock, rig=rig, guard=guard, fault=self.fault, progress=progress)
        manifest = msgspec.structs.replace(fakes.manifest(), limits=limits)
        return await conduct(fakes.plan(**scenario), manifest, self.folder, kit)

    def run(self, limits: Limits | None = None, **scenario: Any) -> History:
        """Conduct it in simulated time."""
        return simulate(self.main(limits or Limits(), **scenario))

    @property
    def undone(self) -> list[list[str]]:
        """Which ids the guardian took back at each question."""
        return [line.split()[1:] for line in self.guard.log if line.startswith("undo")]


def step(kind: str, **settings: Any) -> FaultStep:
    """Make a step of a scenario."""
    return FaultStep(kind=kind, components=("server",), **settings)


def codes(history: History) -> list[str]:
    """Name the problems."""
    return [one.code for one in history.all(Problem)]


@pytest.mark.parametrize("failure", [FaultError("no"), TargetError("asleep"), TimeoutError("late")])
def test_what_fails_half_way_is_taken_back_at_once(tmp_path: Path, failure: Exception) -> None:
    """Its part ends at once, and the helper that was ready for it; what the target stands on stays."""
    stage = Stage(tmp_path, half=lambda world: HalfWay(world, failure))
    history = stage.run(fault=step("half"))
    assert codes(history) == ["engine-error" if isinstance(failure, TimeoutError) else "fault-failed"]
    assert not history.all(Injected)
    assert stage.undone == [["aimed-half", "half-half"], ["prepared-half"]]
    told = [(one.undo_id, one.verified, one.evidence.get("why")) for one in history.all(Reverted)]
    why = "it was not injected"
    assert told == [("aimed-half", True, why), ("half-half", True, why), ("prepared-half", True, None)]


def test_a_later_fault_that_still_waits_at_the_end_is_taken_back(tmp_path: Path) -> None:
    """The end of observation cancels it half-way: its part is gone before the books are read."""
    stage = Stage(tmp_path, first=fakes.FakeFault, half=lambda world: HalfWay(world, None))
    history = stage.run(
        fault=step("first"), then=(step("half", trigger=Trigger(delay_s=0.1)),), observe=Observe(limit_s=2.0)
    )
    assert stage.world.log.index("half") > stage.world.log.index("inject")
    order = [
        one.undo_id if isinstance(one, Reverted) else one.stage
        for one in history.records()
        if isinstance(one, Reverted | StageReached)
    ]
    assert order.index("observed") < order.index("half-half") < order.index("reverted")
    assert order.index("prepared-half") > order.index("read")
    assert codes(history) == []


def test_a_cancelled_trial_takes_back_the_half_that_came(tmp_path: Path) -> None:
    """Ctrl-C while a fault waits in its injection."""
    stage = Stage(tmp_path, half=lambda world: HalfWay(world, None))

    async def main() -> History:
        task = asyncio.ensure_future(stage.main(Limits(), fault=step("half")))
        stage.on["armed"] = lambda: asyncio.get_running_loop().call_later(0.1, task.cancel)
        return await task

    history = simulate(main())
    assert history.ended is not None
    assert history.ended.how == "interrupted"
    assert stage.undone[0] == ["aimed-half", "half-half"]
    assert stage.guard.owed == {}


def test_a_fault_that_never_came_has_nothing_left_but_what_the_target_stands_on(tmp_path: Path) -> None:
    """Aimed, and its trigger did not come: the helper that waits for it goes."""
    stage = Stage(tmp_path, ready=Ready)
    trigger = Trigger(at="signal", event="never", limit_s=1.0)
    history = stage.run(fault=step("ready"), trigger=trigger)
    assert codes(history) == ["trigger-never-came"]
    assert stage.undone == [["aimed-ready"], ["prepared-ready"]]


def test_only_what_is_broken_has_a_limit_to_its_life(tmp_path: Path) -> None:
    """What is prepared or aimed lasts as long as the guardian, however long the trigger is waited for."""
    stage = Stage(tmp_path, ready=Ready)
    trigger = Trigger(at="delay", delay_s=30.0)
    history = stage.run(Limits(fault_limit_s=10.0), fault=step("ready"), trigger=trigger)
    t0 = history.all(Injected)[0].receipt.t0_mono_ns
    held = dict(stage.guard.held)
    armed = next(one.mono_ns for one in history.all(StageReached) if one.stage == "armed")
    assert t0 - armed >= 30 * NS
    assert (held.pop("prepared-ready"), held.pop("aimed-ready")) == (None, None)
    assert list(held.values()) == [t0 + 11 * NS]


def test_a_fault_that_cannot_be_reverted_keeps_no_older_one_in_place(tmp_path: Path) -> None:
    """Whatever its end raises is told; the guardian takes it back all the same, and then the older one."""
    stage = Stage(tmp_path, first=fakes.FakeFault, stuck=Stuck)
    history = stage.run(fault=step("first"), then=(step("stuck", trigger=Trigger(delay_s=0.1)),))
    assert codes(history) == ["revert-failed"]
    assert "does not answer" in history.all(Problem)[0].text
    first, second = (one.receipt.undo[0].id for one in history.all(Injected))
    assert stage.undone[:2] == [[second], [first]]
    order = [
        one.stage if isinstance(one, StageReached) else one.undo_id
        for one in history.records()
        if isinstance(one, Reverted | StageReached)
    ]
    assert order.index(second) < order.index(first) < order.index("reverted")


def test_a_fault_whose_end_raises_at_its_limit_is_taken_back_then(tmp_path: Path) -> None:
    """`duration_s` is over: the guardian has it gone then, and not at the end of the trial."""
    stage = Stage(tmp_path, stuck=Stuck)
    history = stage.run(fault=step("stuck", duration_s=0.3))
    assert codes(history) == ["revert-failed"]
    t0 = history.all(Injected)[0].receipt.t0_mono_ns
    assert [one.mono_ns - t0 for one in history.all(Reverted)] == [300_000_000]


def test_after_a_halt_nobody_is_blamed_for_an_end_that_raises(tmp_path: Path) -> None:
    """The kill switch has ended whom we would ask: the guardian took everything back, and that is proven."""
    stage = Stage(tmp_path, stuck=Stuck)
    stage.on["injected"] = (tmp_path / "trial" / alarm.HALT).touch
    history = stage.run(fault=step("stuck", duration_s=0.3))
    found = [(one.code, one.verdict) for one in history.all(Problem)]
    assert found == [("revert-failed", "UNKNOWN")]
