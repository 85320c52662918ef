"""What ends a whole suite: the kill switch, also between two trials, and what could not be taken back."""

from __future__ import annotations

import asyncio
from pathlib import Path  # noqa: TC003  # pytest reads the annotations
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from blackstart.check.fault import LEFT_IN_PLACE
from blackstart.cli.halt import halt
from blackstart.engine import alarm, leftovers, locks, openruns, single
from blackstart.engine.clocks import SystemClock
from blackstart.engine.conductor import Analyse, Kit
from blackstart.engine.openruns import places
from blackstart.engine.suite import RunOptions, run_suite
from blackstart.model.verdict import Finding, Verdict, conclude
from blackstart.scenario import load
from blackstart.scenario.plan import plan
from blackstart.target import manifest as manifests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blackstart.model.manifest import Manifest
    from blackstart.model.outcome import Run, Trial
    from blackstart.model.scenario import Plan

    Play = Callable[[str, Path], Awaitable[None]]


def test_a_relative_state_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG specification wants it: or two shells in two folders would not find each other's runs."""
    monkeypatch.setenv("HOME", "/ada")
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert places()[0] == "/ada/.local/state/blackstart/open"
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert places()[0] == "/var/state/blackstart/open"


@pytest.fixture(autouse=True)
def _own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Note runs where no other run looks."""
    monkeypatch.setattr(openruns, "places", lambda: [str(tmp_path / "open")])


def played(runs: Path, play: Play, *, jobs: int = 1) -> tuple[Run, list[str]]:
    """Run three trials that do what `play` does; returns the run, and the reasons told for an early end."""
    manifest = manifests.load("paperfirm")
    wanted = [one for one in load.packaged() if one.id in ("R1", "R2", "R3")]
    plans = [one for scenario in wanted for one in plan(scenario, manifest, seed=1)]
    told: list[str] = []

    async def conduct(plan: Plan, manifest: Manifest, folder: Path, _kit: Kit, _: Analyse) -> Trial:
        await asyncio.to_thread(folder.mkdir)
        try:
            await play(plan.trial_id, folder)
        except asyncio.CancelledError:
            return single.unknown(plan, manifest, folder, SystemClock().now(), "interrupted")
        trial = single.unknown(plan, manifest, folder, SystemClock().now(), "played")
        stuck = Finding(verdict=Verdict.FAIL, code=LEFT_IN_PLACE, text="u1 sticks: rm it")
        checks = (conclude("fault", [stuck]),) if await asyncio.to_thread((folder / "stuck").exists) else ()
        return msgspec.structs.replace(trial, checks=checks)

    def progress(event: str, figures: Any) -> None:
        if event == "run-stopped":
            told.append(figures["why"])

    options = RunOptions(runs=runs, kit=Kit(progress=progress), jobs=jobs, conduct=conduct)
    return asyncio.run(run_suite(manifest, plans, options)), told


def test_after_a_halted_trial_none_begins(tmp_path: Path) -> None:
    """The kill switch called the guardian of one trial: the suite breaks nothing more."""

    async def play(_name: str, folder: Path) -> None:
        (folder / alarm.HALT).touch()

    run, told = played(tmp_path / "runs", play)
    assert [one.id for one in run.trials] == ["R1"]
    assert run.interrupted
    assert told == ["R1 was halted"]


@pytest.mark.parametrize("noted", [True, False])
def test_between_two_trials_the_kill_switch_reaches_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, noted: bool
) -> None:
    """Nothing is broken just then, and no guardian watches: the suite ends all the same, and halt says so.

    Also where the run could be noted nowhere, below the folder that `halt` was given.
    """
    if not noted:
        monkeypatch.setattr(openruns, "places", list)

    async def play(name: str, _folder: Path) -> None:
        if name == "R2":
            assert halt(tmp_path / "runs", called=alarm.sound()) == 0
        await asyncio.sleep(10 if name == "R2" else 0)

    run, told = played(tmp_path / "runs", play)
    assert [(one.id, one.reasons) for one in run.trials] == [("R1", ("played",)), ("R2", ("interrupted",))]
    assert run.interrupted
    assert told == ["the kill switch was pulled"]
    said = capsys.readouterr().out
    assert "told to end, begins no further trial" in said
    assert str(tmp_path / "runs") in said
    assert not leftovers.suites(tmp_path / "runs"), "one that has ended is no suite any more"


def test_beside_what_was_left_in_place_nothing_more_is_broken(tmp_path: Path) -> None:
    """An undo of the second trial failed: the third does not begin."""

    async def play(name: str, folder: Path) -> None:
        if name == "R2":
            (folder / "stuck").touch()

    run, told = played(tmp_path / "runs", play)
    assert [one.id for one in run.trials] == ["R1", "R2"]
    assert told == ["R2 left in place: u1 sticks: rm it; nothing more is broken beside it"]


def test_a_living_suite_stays_noted(tmp_path: Path) -> None:
    """Another start clears what dead runs left behind; a living suite that owes nothing it leaves alone."""
    runs = (tmp_path / "runs").resolve()

    async def play(_name: str, folder: Path) -> None:
        assert leftovers.clear(runs) == []
        assert openruns.noted() == [str(folder.parent)]
        assert locks.hold(str(folder.parent), locks.OWNER_LOCK) is None

    run, told = played(runs, play)
    assert len(run.trials) == 3
    assert not told
    assert openruns.noted() == []
