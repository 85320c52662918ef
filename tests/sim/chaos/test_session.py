"""A whole session under a simulated clock: stop conditions, alerts, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from pathlib import Path
from typing import Any, ClassVar

import chaos_stage as stages
import msgspec
import pytest

from blackstart.chaos import log, reconcile
from blackstart.chaos.reconcile import Reconciliation
from blackstart.engine import journal
from blackstart.engine.clocks import SimClock, simulate
from blackstart.errors import FaultError
from blackstart.history.view import load
from blackstart.model.approval import Approval, Grant
from blackstart.model.fault import LaunchChange, Undo
from blackstart.model.manifest import Stream
from blackstart.model.record import Injected
from blackstart.model.stops import Stops
from blackstart.model.verdict import Verdict

fakes, Stage = stages.fakes, stages.Stage
FAULT, LONG, LONG_S, PERIOD_S = stages.FAULT, stages.LONG, stages.LONG_S, stages.PERIOD_S


def test_uptime_is_told_only_where_a_probe_measures_it(tmp_path: Path) -> None:
    """A target that is killed again and again was not up all the time just because nobody looked."""
    stage = Stage(tmp_path)
    measured = stage.run(for_s=60.0).figures
    assert measured.uptime is not None
    assert 0.9 < measured.uptime < 1.0
    (tmp_path / "blind").mkdir()
    blind = Stage(tmp_path / "blind")
    blind.manifest = msgspec.structs.replace(blind.manifest, ready=None)
    unseen = blind.run(for_s=60.0).figures
    assert (unseen.uptime, unseen.ready) == (None, None)
    assert unseen.trading


def test_a_session_breaks_and_recovers_until_its_time_is_over(tmp_path: Path) -> None:
    """Each injection is logged with witness and undoing, every one passes, and nobody is alarmed."""
    stage = Stage(tmp_path)
    summary = stage.run(for_s=60.0)
    done = log.injections(tmp_path)
    assert summary.ending == "complete", summary.why
    assert [one.number for one in done] == list(range(1, len(done) + 1))
    assert len(done) >= 4
    assert {one.verdict for one in done} == {Verdict.PASS}, [one.reasons for one in done]
    assert all(one.faults[0].reverted and one.faults[0].witness == {"bit": True} for one in done)
    assert all(one.at_s == pytest.approx(one.planned_s, abs=0.1) for one in done)
    assert stage.codes() == []
    assert summary.duration_s == pytest.approx(60.0, abs=0.1)
    assert stage.guard.owed == {}
    assert stage.world.log[-1] == "guard closed" or "close" in stage.world.log


def test_no_more_faults_than_wished(tmp_path: Path) -> None:
    """`max_faults` ends it, without waiting for the rest of the time."""
    summary = Stage(tmp_path).run(for_s=3600.0, max_faults=2)
    assert summary.ending == "complete"
    assert len(log.injections(tmp_path)) == 2
    assert summary.duration_s < 60


def test_nothing_is_broken_after_the_window(tmp_path: Path) -> None:
    """When the window closes the session ends, though its time is not over, and all was taken back before."""
    stage = Stage(tmp_path)
    stage.profile = msgspec.structs.replace(stage.profile, fault=(LONG,))
    close_s = 35.0
    stage.closes_after_s = close_s
    summary = stage.run(for_s=600.0)
    done = [one.at_s for one in log.injections(tmp_path)]
    assert summary.ending == "complete", summary.why
    assert len(done) == 2, "the third would have begun before the end, and lasted beyond it"
    assert all(one is not None and one + LONG_S < close_s for one in done)
    assert 32.0 < summary.duration_s <= close_s, "the third was due at 31.996 s"
    assert stage.guard.owed == {}


def test_when_an_approval_ends_nothing_stays_broken(tmp_path: Path) -> None:
    """A fault that is in place then is taken back at once, and the session ends UNKNOWN with that reason."""
    stage = Stage(tmp_path)
    stage.profile = msgspec.structs.replace(stage.profile, fault=(LONG,))
    approval = Approval(
        target="simulated",
        manifest_sha256="",
        what={},
        kinds=("fake",),
        from_wall_ns=0,
        until_wall_ns=0,
        markets=(),
        margin_s=0.0,
        reason="-",
    )
    grant = Grant(
        approval=approval,
        sha256="",
        signers=(),
        used_by="",
        used_wall_ns=0,
        ends_wall_ns=simulate(simulated_wall_ns()) + 13 * 10**9,
        opens={},
        place="",
    )
    summary = stage.run(for_s=600.0, approval=grant)
    assert (summary.ending, summary.why.partition(":")[0]) == ("error", "approval-over")
    assert summary.duration_s <= 13.0
    (broken,) = log.injections(tmp_path)
    assert broken.at_s is not None
    assert broken.at_s + LONG_S > 13.0 - 1.5, "it was still in place, or just over"
    assert stage.guard.owed == {}


async def simulated_wall_ns() -> int:
    """Return the wall clock of a simulation at its start."""
    return SimClock(asyncio.get_running_loop()).now().wall_ns


class Slow(fakes.FakeFault):  # type: ignore[misc]
    """A fault that takes long until it is ready."""

    async def aim(self, ctx: Any, _step: Any) -> None:
        """Look for the victim for a while."""
        await ctx.sleep(9.0)


def test_a_fault_that_comes_too_late_does_not_come(tmp_path: Path) -> None:
    """It was due in time, and ready only when it would have outlasted the window: that is not judged."""
    stage = Stage(tmp_path)
    stage.profile = msgspec.structs.replace(stage.profile, fault=(LONG,))
    stage.fault = Slow
    stage.closes_after_s = 20.0
    summary = stage.run(for_s=600.0)
    (missed,) = log.injections(tmp_path)
    assert (missed.at_s, missed.judged) == (None, False)
    assert "window-closed" in missed.reasons[0]
    assert summary.ending == "complete", summary.why


class Prepared(fakes.FakeFault):  # type: ignore[misc]
    """A fault that puts something in place before the start; `told` hears of it."""

    told: ClassVar[list[tuple[str, bool, bool]]] = []

    async def prepare(self, ctx: Any, step: Any) -> LaunchChange:
        """Note for what, whether anything ran already, and whether it lasts."""
        if step.parameters.get("size") == "other":
            raise FaultError("it is there with another size", where="disk")
        protected: list[Undo] = []
        outer = ctx.guard.protect

        async def protect(undos: Any) -> None:
            protected.extend(undos)

        ctx.guard.protect = protect
        await ctx.protect([Undo(id="mount", action="unmount", arguments={})])
        ctx.guard.protect = outer
        running = "open" in self.world().log
        self.told.append((step.components[0], running, protected[0].expires_mono_ns is None))
        return LaunchChange(environment={"DISK": "small"})


class Dumping(fakes.FakeFault):  # type: ignore[misc]
    """A fault that leaves a core dump in the scratch of the session."""

    async def inject(self, ctx: Any, step: Any) -> Any:
        """Leave one for each injection."""
        folder = ctx.folder / log.SCRATCH
        folder.mkdir(exist_ok=True)
        (folder / f"core.{ctx.plan.trial_id}").write_bytes(bytes(log.LARGE + 1))
        (folder / "seccomp.log").write_bytes(b"small")
        return await super().inject(ctx, step)


def test_core_dumps_are_kept_only_of_what_did_not_pass(tmp_path: Path) -> None:
    """An hour of them would fill a disk; that of a recovery that came too late is there to be looked at."""
    stage = Stage(tmp_path)
    stage.fault = Dumping
    stage.run(max_faults=2)
    assert log.scratch(tmp_path) == {"seccomp.log"}
    late = Stage(tmp_path / "late", outage_ms=14_000)
    (tmp_path / "late").mkdir()
    late.fault = Dumping
    late.profile = msgspec.structs.replace(late.profile, recovery_limit_s=5.0)
    late.run(max_faults=1)
    assert log.scratch(tmp_path / "late") == {"seccomp.log", "core.chaos:1"}


def test_what_an_undo_needs_stays(tmp_path: Path) -> None:
    """The bytes that the guardian will put back are no core dump; what was there before is not touched."""
    (tmp_path / log.SCRATCH).mkdir()
    for name in ("core.1", "saved.bytes", "old"):
        (tmp_path / log.SCRATCH / name).write_bytes(bytes(log.LARGE + 1))
    arguments = {"saved": str(tmp_path / log.SCRATCH / "saved.bytes"), "rules": ["a", "b"]}
    owed = {"id": "restore:x", "action": "restore", "arguments": arguments}
    (tmp_path / journal.OWED).write_text(json.dumps(owed) + "\n", encoding="utf-8")
    log.lighten(tmp_path, {"old"})
    assert log.scratch(tmp_path) == {"saved.bytes", "old"}


def test_everything_that_may_come_is_prepared_before_the_start(tmp_path: Path) -> None:
    """Once for each place, to last as long as the session; what excludes another is left out, with why."""
    stage = Stage(tmp_path)
    other = msgspec.structs.replace(FAULT, parameters={"size": "other"})
    stage.profile = msgspec.structs.replace(stage.profile, fault=(FAULT, FAULT, other))
    Prepared.told = []
    stage.fault = Prepared
    summary = stage.run(max_faults=2)
    assert summary.ending == "complete", summary.why
    assert Prepared.told[0] == ("server", False, True)
    assert [(running, lasting) for _, running, lasting in Prepared.told[1:]] == [(True, True)] * 2
    told = [one for event, figures in stage.told if event == "left-out" for one in figures["left_out"]]
    left = [one for one in told if not one["kind"].startswith("stop")]
    assert [(one["kind"], one["where"]) for one in left] == [("fake", "server")]
    assert "another size" in left[0]["reason"]
    done = log.injections(tmp_path)
    assert [one.steps[0].parameters for one in done] == [{}, {}]
    assert [one.verdict for one in done] == [Verdict.PASS] * 2


def test_a_symbol_outside_the_radius_that_goes_on_is_no_finding(tmp_path: Path) -> None:
    """Its longest silence is told with each injection, and nobody is alarmed."""
    stage = Stage(tmp_path)
    stage.limit_to("ALFA")
    summary = stage.run(max_faults=2)
    assert summary.ending == "complete", summary.why
    assert stage.codes() == []
    for one in log.injections(tmp_path):
        assert one.verdict is Verdict.PASS
        assert 0 < one.outside_silent_ms["BRAVO"] < 300


def test_a_disturbance_outside_the_radius_stops_it_all(tmp_path: Path) -> None:
    """A symbol that may not be disturbed falls silent with the fault: FAIL, alert, the end."""
    stage = Stage(tmp_path, outage_ms=8_000)
    stage.limit_to("ALFA", falls_silent=True)
    summary = stage.run(for_s=600.0)
    assert summary.ending == "stopped"
    assert "radius-left: outside the blast radius: BRAVO was silent for" in summary.why
    (alert,) = log.alerts(tmp_path)
    assert (alert.code, alert.injection, alert.stops) == ("radius-left", 1, True)
    (injection,) = log.injections(tmp_path)
    assert injection.judged
    assert injection.verdict is Verdict.FAIL
    assert any("radius-left" in one for one in injection.reasons)
    assert injection.at_s is not None
    assert alert.at_s == pytest.approx(injection.at_s + 2.0, abs=0.1)
    assert stage.guard.owed == {}


def test_a_symbol_that_does_not_trade_before_the_fault_is_unknown(tmp_path: Path) -> None:
    """Nobody could tell whether it is disturbed: nothing is broken, and no verdict is green."""
    stage = Stage(tmp_path)
    stage.limit_to("ALFA", trades=False)
    stage.run(for_s=60.0)
    found = log.injections(tmp_path)
    assert found
    assert {(one.at_s, one.judged, one.verdict) for one in found} == {(None, True, Verdict.UNKNOWN)}
    assert all("radius-unwatched" in one.reasons[0] for one in found)
    assert stage.world.log.count("inject") == 0


def test_wrong_positions_outside_the_radius_stop_it(tmp_path: Path) -> None:
    """After a fault the position of a symbol outside differs from the oracle's: the radius was left."""
    stage = Stage(tmp_path)
    stage.limit_to("ALFA")

    async def reconciled(*_: Any) -> Reconciliation:
        return Reconciliation(positions_right=0.5, wrong=("BRAVO: 1, not 2",), wrong_symbols=("BRAVO",))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconcile, "reconcile", reconciled)
        summary = stage.run(for_s=600.0)
    assert summary.ending == "stopped"
    assert "radius-left: outside the blast radius: positions are wrong: BRAVO" in summary.why


def test_each_injection_has_a_history_of_its_own(tmp_path: Path) -> None:
    """It can be read and checked alone, and holds one fault."""
    Stage(tmp_path).run(max_faults=2)
    for one in log.injections(tmp_path):
        history = load(Path(one.folder))
        assert len(history.all(Injected)) == 1
        assert history.ended is not None
        assert history.ended.how == "complete"


def test_undo_ids_of_two_injections_are_never_the_same(tmp_path: Path) -> None:
    """A fault that comes again to the same process must not count as taken back already."""
    stage = Stage(tmp_path)
    seen: list[str] = []
    original = fakes.FakeGuard.protect

    async def protect(self: Any, undos: Any) -> None:
        undos = list(undos)
        seen.extend(one.id for one in undos)
        await original(self, undos)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fakes.FakeGuard, "protect", protect)
        stage.run(max_faults=3)
    assert len(seen) == len(set(seen)) == 3
    assert all(one.startswith(f"{number:05}-fake") for number, one in enumerate(seen, 1))


def test_never_back_is_alerted_at_its_limit_and_then_stops_it(tmp_path: Path) -> None:
    """Not recovered: one alert after the recovery limit, the end after the stop limit."""
    stage = Stage(tmp_path, outage_ms=None, stop=Stops(not_recovered_s=9.0))
    stage.profile = msgspec.structs.replace(stage.profile, recovery_limit_s=8.0)
    summary = stage.run(for_s=600.0)
    assert summary.ending == "stopped"
    assert "never-recovered" in summary.why
    found = log.alerts(tmp_path)
    assert [(one.code, one.injection, one.stops) for one in found] == [
        ("not-recovered", 1, False),
        ("never-recovered", 1, True),
    ]
    injected = log.injections(tmp_path)[0].at_s
    assert injected is not None
    over_s = injected + 0.05
    assert [one.at_s for one in found] == pytest.approx([over_s + 8.0, over_s + 9.0], abs=0.2)


def test_late_recovery_is_an_alert_and_no_stop(tmp_path: Path) -> None:
    """Back after the recovery limit: alerted, failed, and the session goes on."""
    stage = Stage(tmp_path, outage_ms=14_000)
    stage.profile = msgspec.structs.replace(stage.profile, recovery_limit_s=5.0)
    summary = stage.run(max_faults=1)
    assert summary.ending == "complete"
    assert "not-recovered" in stage.codes()
    assert log.injections(tmp_path)[0].verdict is Verdict.FAIL


def test_a_low_rate_stops_within_one_probe_period(tmp_path: Path) -> None:
    """As soon as a whole fault-free window is below the minimum, it all ends: nothing more is broken."""
    stop = Stops(minimum_rate_per_s=300.0, rate_window_s=2.0, not_recovered_s=None)
    stage = Stage(tmp_path, stop=stop)

    def slower() -> None:
        stage.world.gap_ns = 10_000_000  # 100 a second

    stage.after(slower, 3.0)
    summary = stage.run(for_s=600.0)
    assert summary.ending == "stopped"
    assert "rate-low" in summary.why
    alert = log.alerts(tmp_path)[0]
    # 400/s fall below 300/s over two seconds once a third of the window is slow
    assert alert.at_s == pytest.approx(3.0 + 2 * 100 / 300, abs=PERIOD_S + 0.03)
    assert alert.injection is None
    assert log.injections(tmp_path) == []


def test_lost_events_stop_it(tmp_path: Path) -> None:
    """What the oracle acknowledged and the target does not hold ends it after the first injection."""
    stage = Stage(tmp_path)
    streams = {"fills": Stream(acknowledged="oracle:executions", key="id")}
    stage.manifest = msgspec.structs.replace(stage.manifest, streams=streams)
    stage.totals = lambda: (100, 97)
    summary = stage.run(for_s=600.0)
    assert summary.ending == "stopped"
    assert "fills: 3 acknowledged events are not held" in summary.why
    assert len(log.injections(tmp_path)) == 1


def test_what_is_under_way_is_not_lost(tmp_path: Path) -> None:
    """A target that books a little later than the oracle acknowledges loses nothing."""
    stage = Stage(tmp_path)
    streams = {"fills": Stream(acknowledged="oracle:executions", key="id")}
    stage.manifest = msgspec.structs.replace(stage.manifest, streams=streams)
    count = 100

    def moving() -> tuple[int, int]:
        nonlocal count
        count += 10
        return count, count - 15

    stage.totals = moving
    summary = stage.run(max_faults=2)
    assert summary.ending == "complete", summary.why
    assert stage.codes() == []


def test_a_death_without_a_fault_is_an_alert_of_its_own(tmp_path: Path) -> None:
    """A component that ends while nothing is broken is told, and to no injection's account."""
    stage = Stage(tmp_path)
    stage.after(lambda: stage.world.sink(fakes.died(stage.world.clock)), 3.0)
    stage.run(max_faults=1)
    found = log.alerts(tmp_path)
    assert [one.code for one in found] == ["died:5"]
    assert found[0].injection is None


def test_a_fault_that_finds_nothing_to_break_judges_nobody(tmp_path: Path) -> None:
    """It is logged as not judged, with the reason, and the session goes on to the next."""
    stage = Stage(tmp_path)
    calls = 0
    original = fakes.FakeFault.inject

    async def inject(self: Any, ctx: Any, step: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise FaultError("nothing there to damage", where="data.checkpoint")
        return await original(self, ctx, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fakes.FakeFault, "inject", inject)
        stage.run(max_faults=2)
    first, second = log.injections(tmp_path)
    assert (first.judged, first.at_s) == (False, None)
    assert "nothing there to damage" in first.reasons[0]
    assert (second.judged, second.verdict) == (True, Verdict.PASS)
    assert stage.codes() == []


def test_the_kill_switch_ends_it_at_once(tmp_path: Path) -> None:
    """Halted in the middle of a fault: the end is told as that, and everything was taken back."""
    stage = Stage(tmp_path)
    stage.on["injecting"] = lambda: asyncio.get_running_loop().call_later(
        0.03, lambda: stage.guard.on_halt("halted")
    )  # type: ignore[assignment]
    summary = stage.run(for_s=600.0)
    assert summary.ending == "halted"
    assert stage.guard.owed == {}
    assert "close" in stage.world.log


def test_ctrl_c_ends_in_order(tmp_path: Path) -> None:
    """Interrupted in the middle of a fault: it is taken back, logged, and the books are still read."""
    stage = Stage(tmp_path)

    def interrupt() -> None:
        main = next(task for task in asyncio.all_tasks() if task.get_coro().__name__ == "main")  # type: ignore[union-attr]
        asyncio.get_running_loop().call_later(0.03, main.cancel)

    stage.on["injecting"] = interrupt
    summary = stage.run(for_s=600.0)
    assert summary.ending == "interrupted"
    assert summary.validation != {}
    assert [one.verdict for one in log.injections(tmp_path)] == [Verdict.UNKNOWN]
    assert stage.guard.owed == {}


def test_memory_does_not_hold_what_is_over(tmp_path: Path) -> None:
    """Histories of passing injections beyond those to be kept are removed, the log of them stays."""
    stage = Stage(tmp_path)
    stage.profile = msgspec.structs.replace(stage.profile, keep_histories=1)
    stage.run(max_faults=4)
    assert len(log.injections(tmp_path)) == 4
    assert [one.name for one in (tmp_path / "injections").iterdir()] == ["00004-fake-server"]


def test_what_a_disturbance_held_is_given_back_before_the_next(tmp_path: Path) -> None:
    """A trial's parts hold one another: left to the collector's own time, those of many lie about (R23)."""
    stage, living, seen = Stage(tmp_path), weakref.WeakSet[Any](), list[int]()

    def made(world: Any) -> Any:
        fault = fakes.FakeFault(world)
        fault.itself = fault
        living.add(fault)
        return fault

    stage.fault = made
    stage.on["injecting"] = lambda: seen.append(len(living))
    gc.disable()
    try:
        stage.run(max_faults=5)
    finally:
        gc.enable()
    assert seen == [2, 1, 1, 1, 1]  # beside the first lies the one that was asked to prepare the target
