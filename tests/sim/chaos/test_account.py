"""What a session must not forget: deaths when nobody looks, what is cut short, conditions not looked at."""

# ruff: noqa: ARG002 - protocols ask for arguments that fakes do not need

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import chaos_stage as stages
import msgspec
import pytest

from blackstart.chaos import episode, log, reconcile
from blackstart.chaos.judge import here
from blackstart.chaos.model import Episode
from blackstart.chaos.reconcile import Reconciliation
from blackstart.engine import after, before
from blackstart.engine.trial import Stop
from blackstart.errors import FaultError, TargetError
from blackstart.model.manifest import Stream
from blackstart.model.record import Problem, ServiceBatch
from blackstart.model.scenario import FaultStep, Trigger
from blackstart.model.stops import Stops
from blackstart.model.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

fakes, Stage = stages.fakes, stages.Stage

STEP = FaultStep(kind="fake", components=("server",), duration_s=0.05)
THEN = msgspec.structs.replace(STEP, trigger=Trigger(at="delay", delay_s=0.02, limit_s=5.0))
BOTH = (Episode(number=1, at_s=5.0, steps=(STEP, THEN)),)


def after_each(patch: pytest.MonkeyPatch, *moments: Callable[[], None]) -> None:
    """Do something each time after an injection was judged, while the books are compared."""
    left = [lambda: None, *moments]  # the first comparison is before anything is broken

    async def compared(*_: Any) -> Reconciliation:
        if left:
            left.pop(0)()
        return Reconciliation()

    patch.setattr(reconcile, "reconcile", compared)


class Unreverted(fakes.FakeFault):  # type: ignore[misc]
    """A fault whose taking back fails; the second of two finds nothing to break."""

    places = 1

    async def inject(self, ctx: Any, step: Any) -> Any:
        """Break it, unless it is a later one."""
        if step.trigger.at == "delay":
            raise FaultError("nothing there to damage", where="data.checkpoint")
        return await super().inject(ctx, step)

    async def revert(self, ctx: Any, receipt: Any) -> None:
        """Fail."""
        raise FaultError("it sticks", where="server")


def test_beside_what_was_left_in_place_nothing_more_is_broken(tmp_path: Path) -> None:
    """An undo that failed is an alarm, and the end of the session."""
    stage = Stage(tmp_path)
    stage.sticks = True
    summary = stage.run(max_faults=3)
    assert "left-in-place" in stage.codes()
    assert len(log.injections(tmp_path)) == 1
    assert summary.ending == "stopped"
    assert "left-in-place" in summary.why
    assert any(one.startswith("left-in-place") for one in summary.problems)


def test_who_dies_between_taking_back_and_calm_and_stays_dead_is_named(tmp_path: Path) -> None:
    """While an injection is judged and the books compared the standby dies, and nobody starts it again."""
    stage = Stage(tmp_path)
    stage.components = {"server": 5, "standby": 6}
    with pytest.MonkeyPatch.context() as patch:
        after_each(patch, lambda: stage.dies("standby"))
        summary = stage.run(max_faults=3)
    (alert,) = log.alerts(tmp_path)
    assert (alert.code, alert.injection) == ("component-gone", 1)
    assert "standby" in alert.text
    assert "server" not in alert.text
    found = summary.validation["presence"]
    assert found.verdict is Verdict.FAIL
    assert [one.data["components"] for one in found.findings] == [["standby"]]
    assert len(log.injections(tmp_path)) == 3, "named once, and the session goes on"


def test_who_dies_then_and_comes_back_alarms_nobody(tmp_path: Path) -> None:
    """A late consequence of the fault that is over within the recovery limit; the next fault waits for it."""
    stage = Stage(tmp_path)
    stage.components = {"server": 5, "standby": 6}

    def dies() -> None:
        stage.dies("standby")
        asyncio.get_running_loop().call_later(8.0, lambda: stage.components.update(standby=7))

    with pytest.MonkeyPatch.context() as patch:
        after_each(patch, dies)
        summary = stage.run(max_faults=2)
    assert stage.codes() == []
    assert summary.validation["presence"].verdict is Verdict.PASS
    first, second = log.injections(tmp_path)
    assert second.at_s is not None
    assert first.at_s is not None
    assert second.at_s - first.at_s > 8.0


def test_a_death_while_nothing_is_broken_is_told_and_named_when_it_lasts(tmp_path: Path) -> None:
    """Before any fault: `died`, and `component-gone` once it stays away, both to no fault's account."""
    stage = Stage(tmp_path)
    stage.components = {"server": 5, "standby": 6}
    stage.profile = msgspec.structs.replace(stage.profile, interval_s=(40.0, 41.0))
    stage.after(lambda: stage.dies("standby"), 3.0)
    stage.run(max_faults=1)
    found = [(one.code, one.injection) for one in log.alerts(tmp_path)]
    assert found == [("died:6", None), ("component-gone", None)]


def test_a_component_that_is_not_there_is_no_damage_without_a_place(tmp_path: Path) -> None:
    """To break what is dead already is UNKNOWN, with a reason of its own; it is not passed over."""
    stage = Stage(tmp_path)

    async def inject(*_: Any) -> Any:
        raise TargetError("is not running", where="server")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fakes.FakeFault, "inject", inject)
        stage.run(max_faults=1)
    (one,) = log.injections(tmp_path)
    assert (one.judged, one.at_s, one.verdict) == (True, None, Verdict.UNKNOWN)
    assert "component-down" in one.reasons[0]


@pytest.mark.parametrize("moment", ["judged", "compared"])
def test_an_injection_is_written_down_though_the_session_ends_while_it_is_judged(
    tmp_path: Path, moment: str
) -> None:
    """Ctrl-C once the fault is taken back: what it came to is in the log, FAIL and all."""
    stage = Stage(tmp_path)

    def failed(case: Any) -> Any:
        found = here(case)
        if case.episode is None:
            return found
        if moment == "judged":
            stage.ctrl_c()
        one = msgspec.structs.replace(found.injection, verdict=Verdict.FAIL, reasons=("component-not-back",))
        return msgspec.structs.replace(found, injection=one)

    stage.judge = failed
    with pytest.MonkeyPatch.context() as patch:
        if moment == "compared":

            async def compared(*_: Any) -> Reconciliation:
                if stage.world.log.count("inject"):
                    stage.ctrl_c()
                    await stage.world.wait_ms(1000)
                return Reconciliation()

            patch.setattr(reconcile, "reconcile", compared)
        summary = stage.run(for_s=600.0)
    assert summary.ending == "interrupted"
    assert [(one.verdict, one.judged) for one in log.injections(tmp_path)] == [(Verdict.FAIL, True)]
    assert summary.validation != {}
    assert stage.guard.owed == {}


def test_to_stop_while_the_log_is_written_still_stops(tmp_path: Path) -> None:
    """A cancellation that comes while the line is written is not swallowed."""
    stage = Stage(tmp_path)
    stage.on["injection"] = stage.ctrl_c
    summary = stage.run(for_s=600.0)
    assert summary.ending == "interrupted"
    assert len(log.injections(tmp_path)) == 1


def test_broken_off_after_it_had_failed_is_judged(tmp_path: Path) -> None:
    """A fault that could not be taken back is FAIL, also when the session is ended in the middle of it."""
    stage = Stage(tmp_path)
    stage.fault = Unreverted
    stage.on["injecting"] = lambda: asyncio.get_running_loop().call_later(0.03, stage.ctrl_c)  # type: ignore[assignment]
    stage.run(for_s=600.0)
    (one,) = log.injections(tmp_path)
    assert (one.verdict, one.judged) == (Verdict.FAIL, True)
    assert any("revert-failed" in reason for reason in one.reasons)


def test_broken_off_while_it_was_away_is_not_judged(tmp_path: Path) -> None:
    """Nobody waited for its recovery: that it had not come yet says nothing."""
    stage = Stage(tmp_path, outage_ms=None)
    stage.on["injecting"] = lambda: asyncio.get_running_loop().call_later(3.0, stage.ctrl_c)  # type: ignore[assignment]
    stage.run(for_s=600.0)
    (one,) = log.injections(tmp_path)
    assert not one.judged


@pytest.mark.parametrize(("fails", "verdict"), [(True, Verdict.FAIL), (False, Verdict.PASS)])
def test_a_second_fault_without_a_place_leaves_the_first_judged(
    tmp_path: Path, fails: bool, verdict: Verdict
) -> None:
    """What could not be placed is a remark; what the first did is judged, and only that is replayed."""
    stage = Stage(tmp_path)

    class Second(Unreverted):
        async def revert(self, ctx: Any, receipt: Any) -> None:
            if fails:
                await super().revert(ctx, receipt)

    stage.fault = Second
    stage.run(replayed=BOTH)
    (one,) = log.injections(tmp_path)
    assert (one.judged, one.verdict) == (True, verdict), one.reasons
    assert any("nothing there to damage" in reason for reason in one.reasons)
    assert len(one.steps) == 1


def test_what_goes_wrong_at_the_end_is_in_the_verdict(tmp_path: Path) -> None:
    """The load that cannot be ended, recorded into the closing history alone."""
    stage = Stage(tmp_path)
    original = after.stop_load

    async def stop_load(trial: Any) -> None:
        await original(trial)
        trial.problem("workload-failed", "ended by itself, status 1")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(after, "stop_load", stop_load)
        summary = stage.run(max_faults=1)
    found = summary.validation["trial"]
    assert (found.verdict, [one.code for one in found.findings]) == (Verdict.UNKNOWN, ["workload-failed"])
    clean = tmp_path / "clean"
    clean.mkdir()
    assert Stage(clean).run(max_faults=1).validation["trial"].verdict is Verdict.PASS


def test_a_watcher_that_fails_between_two_histories_is_told(tmp_path: Path) -> None:
    """No history is open just then; the session says so itself."""
    stage = Stage(tmp_path)

    def fails() -> None:
        stage.world.sink(Problem(code="watch-failed", text="deaths: KeyError", mono_ns=1))

    with pytest.MonkeyPatch.context() as patch:
        after_each(patch, fails)
        summary = stage.run(max_faults=1)
    assert "watch-failed: deaths: KeyError" in summary.problems


def test_conditions_that_nobody_can_evaluate_are_named_at_the_start(tmp_path: Path) -> None:
    """A stream whose ledger is the load's, positions without an oracle: left out, with why."""
    stage = Stage(tmp_path)
    streams = {
        "fills": Stream(acknowledged="oracle:executions", key="id"),
        "uncounted": Stream(acknowledged="oracle:executions", key="id"),
        "writes": Stream(acknowledged="workload", key="id"),
    }
    stage.manifest = msgspec.structs.replace(stage.manifest, streams=streams)
    stage.totals = lambda: (100, 100)
    with pytest.MonkeyPatch.context() as patch:
        original = reconcile._totals

        async def totals(rig: Any, stream: str) -> Any:
            return (None, None) if stream == "uncounted" else await original(rig, stream)

        patch.setattr(reconcile, "_totals", totals)
        stage.run(max_faults=1)
    left = [one for event, figures in stage.told if event == "left-out" for one in figures["left_out"]]
    assert [(one["kind"], one["where"]) for one in left] == [
        ("stop lost_events", "uncounted"),
        ("stop lost_events", "writes"),
        ("stop wrong_positions", "open orders"),
        ("stop wrong_positions", "positions"),
    ]
    assert "ledger of the load" in left[1]["reason"]
    silent = Stage(tmp_path / "silent", stop=Stops(lost_events=None, wrong_positions=None))
    (tmp_path / "silent").mkdir()
    silent.manifest = stage.manifest
    silent.run(max_faults=1)
    assert not [one for event, one in silent.told if event == "left-out"], (
        "the profile names no such condition"
    )


def test_books_that_do_not_answer_any_more_are_unknown(tmp_path: Path) -> None:
    """The counts were compared before, and after the fault nobody tells them: said, and said once."""
    stage = Stage(tmp_path)
    streams = {"fills": Stream(acknowledged="oracle:executions", key="id")}
    stage.manifest = msgspec.structs.replace(stage.manifest, streams=streams)
    stage.totals = lambda: (None, None) if stage.world.log.count("inject") else (100, 100)
    summary = stage.run(max_faults=3)
    assert summary.ending == "complete"
    assert [one for one in summary.problems if "not-compared" in one] == [
        "books-not-compared: stream fills: no answer after a fault within 2 s"
    ]


def test_wrong_positions_end_it_once_they_could_not_settle(tmp_path: Path) -> None:
    """Evaluated once after each injection: two readings must agree within `settle_s`, then it is the end."""
    stage = Stage(tmp_path)
    manifest = msgspec.structs.replace(stage.manifest, state={"positions": stages.DOCUMENT})
    stage.manifest = manifest

    class Exchange:
        async def positions(self) -> dict[str, Any]:
            wrong = stage.world.log.count("inject") >= 2
            return {"ALFA": {"quantity": 3 if wrong else 2}}

        async def open_orders(self) -> list[Any]:
            return []

    stage.oracle = Exchange()
    stage.documents = {"positions": {"positions": [{"symbol": "ALFA", "quantity": 2}]}}
    summary = stage.run(for_s=600.0)
    assert summary.ending == "stopped", summary.why
    assert "books-differ: ALFA: target 2, oracle 3" in summary.why
    first, second = log.injections(tmp_path)
    assert (first.after.positions_right, second.after.positions_right) == (1.0, 0.0)
    (alert,) = log.alerts(tmp_path)
    assert (alert.code, alert.injection, alert.stops) == ("books-differ", 2, True)
    assert second.at_s is not None
    assert alert.at_s > second.at_s + stage.profile.settle_s
    assert stage.guard.owed == {}


def test_a_silence_outside_that_is_over_before_the_next_look_leaves_the_radius(tmp_path: Path) -> None:
    """The probe is looked at every five seconds; the symbol outside was silent for more than two between."""
    stage = Stage(tmp_path, outage_ms=3000)
    stage.limit_to("ALFA")
    probe = msgspec.structs.replace(stage.manifest.probes["ready"], period_ms=5000.0)
    stage.manifest = msgspec.structs.replace(stage.manifest, probes={"ready": probe})

    async def watch_symbols(service: str, sink: Any) -> None:
        struck = False
        while True:
            struck_now = stage.world.log.count("inject") > 0 and not struck
            struck = struck or struck_now
            await stage.world.wait_ms(2500 if struck_now else 200)
            sink(ServiceBatch(service=service, events=[(stage.world.clock.now().mono_ns, "BRAVO", 0)]))

    stage.watch_symbols = watch_symbols
    summary = stage.run(for_s=600.0)
    (one,) = log.injections(tmp_path)
    assert one.outside_silent_ms["BRAVO"] > 2000
    assert summary.ending == "stopped"
    assert "radius-left" in summary.why
    assert (one.judged, one.verdict) == (True, Verdict.FAIL)


def test_the_wall_clock_closes_the_window_though_it_was_set(tmp_path: Path) -> None:
    """It jumps ahead (the host slept): no fault is begun behind the window, and the session ends at once."""
    stage = Stage(tmp_path)
    stage.closes_after_s = 100.0

    def jump() -> None:
        stage.clock._offset_ns += 90_000_000_000

    stage.after(jump, 15.0)
    summary = stage.run(for_s=600.0)
    assert summary.ending == "complete", summary.why
    assert len(log.injections(tmp_path)) == 1
    assert summary.duration_s < 20.0


def test_a_wall_clock_that_is_set_back_does_not_end_the_window_early(tmp_path: Path) -> None:
    """The window is one of the wall clock: it closes when that says so."""
    stage = Stage(tmp_path)
    stage.closes_after_s = 40.0

    def jump() -> None:
        stage.clock._offset_ns -= 40_000_000_000

    stage.after(jump, 15.0)
    summary = stage.run(for_s=600.0)
    assert summary.duration_s == pytest.approx(80.0, abs=2.0)


def test_a_fault_that_waited_for_its_event_is_not_begun_behind_the_window(tmp_path: Path) -> None:
    """Its trigger came too late: nothing is broken, and nobody judged."""
    stage = Stage(tmp_path)
    stage.closes_after_s = 30.0

    async def await_trigger(trial: Any) -> None:
        await trial.sleep(25.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(before, "await_trigger", await_trigger)
        summary = stage.run(for_s=600.0)
    assert stage.world.log.count("inject") == 0
    (one,) = log.injections(tmp_path)
    assert (one.at_s, one.judged) == (None, False)
    assert "window-closed" in one.reasons[0]
    assert summary.ending == "complete"


def test_one_seed_chooses_the_same_faults_places_and_times(tmp_path: Path) -> None:
    """Two sessions, one target quick and one slow to recover: the choice is the same, whatever came of it."""
    other = msgspec.structs.replace(stages.FAULT, kind="other", duration_s=(0.1, 0.9), weight=0.7)
    chosen = []
    for name, outage_ms in (("quick", 80), ("slow", 1900)):
        folder = tmp_path / name
        folder.mkdir()
        stage = Stage(folder, outage_ms=outage_ms)
        stage.profile = msgspec.structs.replace(
            stage.profile, fault=(stages.FAULT, other), overlap=0.5, concurrent_faults=2
        )
        stage.run(for_s=120.0, seed=11)
        done = log.injections(folder)
        chosen.append([(one.number, one.planned_s, one.name, one.steps) for one in done])
        assert len(done) >= 8
        assert len({one.name for one in done}) > 1
    quick, slow = chosen
    assert [one[:3] for one in quick] == [one[:3] for one in slow]
    assert [one[3][0] for one in quick] == [one[3][0] for one in slow], "kind, place, parameters and length"
    folder = tmp_path / "another"
    folder.mkdir()
    stage = Stage(folder)
    stage.profile = msgspec.structs.replace(stage.profile, fault=(stages.FAULT, other))
    stage.run(for_s=120.0, seed=12)
    assert [one.planned_s for one in log.injections(folder)] != [one[1] for one in quick]


def test_a_stop_is_renamed_only_for_a_component_that_is_down() -> None:
    """Damage that finds no place stays what it is."""
    for error, code in (
        (FaultError("x", where="y"), "fault-failed"),
        (TargetError("x", where="y"), "component-down"),
    ):
        stop = Stop("fault-failed", "x")
        stop.__cause__ = error
        assert episode.named(stop).code == code
    assert episode.named(Stop("not-steady", "x")).code == "not-steady"
