"""What the books say while orders flow, and what a session must not end without having seen."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import chaos_stage as stages
import msgspec
import pytest

from blackstart.chaos import log
from blackstart.chaos.model import LeftOut
from blackstart.engine.breakage import Breakages
from blackstart.errors import FaultError, TargetError
from blackstart.model.manifest import Stream
from blackstart.model.record import Problem
from blackstart.model.stops import Stops
from blackstart.model.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

fakes, Stage = stages.fakes, stages.Stage

STREAMS = {"fills": Stream(acknowledged="oracle:executions", key="id")}


class Counts:
    """An oracle that acknowledges ten events before most readings, and a target that holds some of them."""

    def __init__(self) -> None:
        self.count = self.lost = self.late = self.readings = 0

    def __call__(self) -> tuple[int, int]:
        """Read both; in every fourth reading nothing is under way."""
        self.readings += 1
        self.count += 0 if self.readings % 4 == 0 else 10
        return self.count, self.count - self.lost - self.late


def flowing(stage: Any) -> Counts:
    """Let events flow in, of which the target holds what the counts say."""
    stage.manifest = msgspec.structs.replace(stage.manifest, streams=STREAMS)
    stage.totals = counts = Counts()
    return counts


def test_a_loss_is_told_though_more_flows_in_than_was_lost(tmp_path: Path) -> None:
    """Three events are lost in the first fault; hundreds come afterwards, and it ends all the same."""
    stage = Stage(tmp_path)
    counts = flowing(stage)
    stage.ledgers = lambda: (counts.count, counts.lost)
    stage.on["injecting"] = lambda: setattr(counts, "lost", 3)
    summary = stage.run(for_s=600.0)
    assert summary.ending == "stopped"
    assert "fills: 3 acknowledged events are not held" in summary.why
    assert len(log.injections(tmp_path)) == 1
    assert counts.count > 100


def test_what_is_only_late_after_a_fault_is_not_lost(tmp_path: Path) -> None:
    """The target is slow for a while: its counts never meet, and every event is there in the end."""
    stage = Stage(tmp_path)
    counts = flowing(stage)
    stage.on["injecting"] = lambda: setattr(counts, "late", 3)
    readings = itertools.count()
    stage.ledgers = lambda: (5, max(0, 3 - next(readings)))  # by its keys, too, it lacks some at first
    summary = stage.run(max_faults=1)
    assert summary.ending == "complete", summary.why
    assert stage.codes() == []


def test_where_counts_do_not_meet_and_nobody_can_read_it_is_not_known(tmp_path: Path) -> None:
    """Lost or late, nobody can tell: that is no PASS, and no loss either."""
    stage = Stage(tmp_path)
    counts = flowing(stage)
    stage.on["injecting"] = lambda: setattr(counts, "lost", 3)
    summary = stage.run(max_faults=1)
    assert stage.codes() == []
    assert any(one.startswith("books-not-compared: stream fills") for one in summary.problems)


def test_a_target_that_is_always_late_is_told_as_one_that_cannot_be_compared_so(tmp_path: Path) -> None:
    """Its counts never meet: nobody is alarmed, and the reader hears how little the condition can see."""
    stage = Stage(tmp_path)
    flowing(stage).late = 15
    summary = stage.run(max_faults=2)
    assert summary.ending == "complete", summary.why
    assert stage.codes() == []
    (left,) = (one for one in told(stage) if one["kind"] == "stop lost_events")
    assert left["where"] == "fills"
    assert "never met" in left["reason"]


def told(stage: Any) -> list[dict[str, Any]]:
    """Return what was told as left out."""
    return [one for event, figures in stage.told if event == "left-out" for one in figures["left_out"]]


class Positions:
    """Both sides' position of one symbol; the readings say by how much the target's is off."""

    def __init__(self, stage: Any, off: Callable[[int], int | None]) -> None:
        self.off, self.reading, self.begun = off, 0, False
        stage.manifest = msgspec.structs.replace(
            stage.manifest, state={"positions": stages.DOCUMENT, "orders": stages.DOCUMENT}
        )
        stage.oracle = SimpleNamespace(positions=self.theirs, open_orders=self.nothing)
        stage.documents = self
        stage.on["injecting"] = self.begin

    def begin(self) -> None:
        """Count the readings from the fault on."""
        self.reading, self.begun = 0, True

    def __bool__(self) -> bool:
        """There are documents."""
        return True

    def __getitem__(self, name: str) -> Any:
        """Return the target's document."""
        if name == "orders":
            return {"orders": []}
        self.reading += 1
        off = self.off(self.reading) if self.begun else 0
        if off is None:
            raise TargetError("no answer", where="server")
        return {"positions": [{"symbol": "ALFA", "quantity": 100 + off}]}

    async def theirs(self) -> Any:
        """Return the oracle's."""
        return {"ALFA": {"quantity": 100}}

    async def nothing(self) -> list[Any]:
        """Nothing is open."""
        return []


def test_a_wrong_position_that_looks_right_now_and_then_is_wrong(tmp_path: Path) -> None:
    """A fill falls between the readings of the two sides again and again: that is not agreement."""
    stage = Stage(tmp_path)
    Positions(stage, lambda reading: 0 if reading % 3 else 5)
    stage.run(max_faults=1)
    (alert,) = log.alerts(tmp_path)
    assert (alert.code, alert.stops) == ("books-differ", True)
    assert "ALFA: target" in alert.text


def test_a_position_that_comes_right_alarms_nobody(tmp_path: Path) -> None:
    """It is behind for a while, as fills are under way."""
    stage = Stage(tmp_path)
    Positions(stage, lambda reading: 5 if reading < 20 else 0)
    summary = stage.run(max_faults=1)
    assert stage.codes() == []
    assert summary.problems == ()


@pytest.mark.parametrize("first", [0, 5])
def test_one_reading_and_then_silence_is_no_comparison(tmp_path: Path, first: int) -> None:
    """Neither right nor wrong: who answered once and never again was not compared."""
    stage = Stage(tmp_path)
    Positions(stage, lambda reading: first if reading == 1 else None)
    summary = stage.run(max_faults=1)
    assert stage.codes() == []
    assert any(one.startswith("books-not-compared: positions") for one in summary.problems)


def test_a_session_that_ends_beside_a_dead_service_fails(tmp_path: Path) -> None:
    """After the last injection passed the service stops for good: all processes live, and nobody trades."""
    stage = Stage(tmp_path)
    stage.on["injection"] = lambda: setattr(stage.world, "gap_ns", None)
    summary = stage.run(max_faults=1)
    assert [one.verdict for one in log.injections(tmp_path)] == [Verdict.PASS]
    (alert,) = log.alerts(tmp_path)
    assert alert.code == "down-at-the-end"
    assert summary.ending == "complete"


class Halves(fakes.FakeFault):  # type: ignore[misc]
    """A fault that fails when it is half in place."""

    async def inject(self, ctx: Any, step: Any) -> Any:
        """Protect, break, fail."""
        await super().inject(ctx, step)
        self.world().down.clear()
        raise FaultError("the second half failed", where="server")


def test_half_a_fault_that_cannot_be_taken_back_is_the_loudest_alarm(tmp_path: Path) -> None:
    """It was never injected as a whole, and what is left of it is told all the same, with the way out."""
    stage = Stage(tmp_path)
    stage.fault, stage.sticks = Halves, True
    summary = stage.run(max_faults=3)
    assert summary.ending == "stopped"
    (alert,) = log.alerts(tmp_path)
    assert alert.code == "left-in-place"
    assert "rm the thing" in alert.text
    (one,) = log.injections(tmp_path)
    assert (one.at_s, one.judged, one.verdict) == (None, True, Verdict.FAIL)


def test_half_a_fault_that_ended_somebody_is_judged(tmp_path: Path) -> None:
    """What it did to the target nobody measured: UNKNOWN, where a fault without a place says nothing."""

    class Kills(Halves):
        async def inject(self, ctx: Any, step: Any) -> Any:
            self.world().sink(fakes.died(self.world().clock))
            return await super().inject(ctx, step)

    found = []
    for fault, name in ((Halves, "halves"), (Kills, "kills")):
        (tmp_path / name).mkdir()
        stage = Stage(tmp_path / name)
        stage.fault = fault
        stage.run(max_faults=1)
        found += [(one.at_s, one.judged, one.verdict) for one in log.injections(stage.folder)]
    assert found == [(None, False, Verdict.UNKNOWN), (None, True, Verdict.UNKNOWN)]


def test_a_watcher_that_died_beside_a_fault_without_a_place_is_not_forgotten(tmp_path: Path) -> None:
    """Without it the trigger could not come; that the fault found no place must not hide it."""
    stage = Stage(tmp_path)

    async def inject(self: Any, ctx: Any, _step: Any) -> Any:
        self.world().sink(Problem(code="watch-failed", text="the log broke off", mono_ns=ctx.now_ns()))
        raise FaultError("nothing there to damage", where="data.checkpoint")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fakes.FakeFault, "inject", inject)
        stage.run(max_faults=1)
    (one,) = log.injections(tmp_path)
    assert (one.judged, one.verdict) == (True, Verdict.UNKNOWN)
    assert any("watch-failed" in reason for reason in one.reasons)


RATE = Stops(minimum_rate_per_s=300.0, rate_window_s=15.0, not_recovered_s=None)


def test_a_rate_that_never_could_be_judged_is_told(tmp_path: Path) -> None:
    """Faults come every ten seconds, and the window is longer."""
    stage = Stage(tmp_path, stop=RATE)
    stage.run(for_s=60.0)
    (left,) = (one for one in told(stage) if one["kind"] == "stop minimum_rate_per_s")
    assert msgspec.convert(left, LeftOut).where == "orders"
    assert "15 s" in left["reason"]


def test_a_fault_that_finds_no_place_ends_no_window(tmp_path: Path) -> None:
    """Nothing was broken: a rate that is too low all the while is seen."""
    stage = Stage(tmp_path, stop=RATE)
    stage.on["playing"] = lambda: asyncio.get_running_loop().call_later(0.5, slower)

    def slower() -> None:
        stage.world.gap_ns = 10_000_000

    async def aimless(*_: Any) -> None:
        raise FaultError("nothing there to damage", where="data.checkpoint")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Breakages, "prepare", aimless)
        summary = stage.run(for_s=600.0)
    assert summary.ending == "stopped"
    assert "rate-low" in summary.why
