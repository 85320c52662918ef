"""Whole trials with a small real target, in a process of their own: interrupted, killed, side by side."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blackstart.engine import journal, leftovers
from blackstart.history.view import History, load
from blackstart.host import procs
from blackstart.model.record import (
    Injected,
    LedgerFile,
    Problem,
    ProcessSeen,
    Reverted,
    StageReached,
    Witnessed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

RUNNER = Path(__file__).with_name("small") / "run.py"


class Running:
    """A run under way."""

    def __init__(self, runs: Path, *scenarios: str, late_s: float = 0.0) -> None:
        self.runs = runs
        self.process = subprocess.Popen(
            [sys.executable, str(RUNNER), str(runs), *scenarios],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "LATE": str(late_s)},
        )
        self.lines: list[str] = []

    def until(self, wanted: str) -> None:
        """Read what it prints up to a line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if line.startswith(wanted):
                return
        pytest.fail(f"ended before {wanted!r}: {self.lines}")

    def end(self, limit_s: float = 60) -> None:
        """Wait for the end."""
        out, _ = self.process.communicate(timeout=limit_s)
        self.lines += out.splitlines()

    def trials(self) -> list[Path]:
        """Find the folders of its trials."""
        return sorted(path.parent for path in self.runs.glob("2*/*/history.jsonl"))


def strays(folder: Path) -> list[int]:
    """Find live processes that have anything to do with a folder."""
    found = []
    for one in procs.everybody():
        try:
            text = (
                Path(f"/proc/{one.pid}/cmdline").read_bytes() + Path(f"/proc/{one.pid}/environ").read_bytes()
            )
        except OSError:
            continue
        if str(folder).encode() in text and one.pid != os.getpid() and not one.dead:
            found.append(one.pid)
    return found


def is_server(pid: int) -> bool:
    """Tell the target's server from the spare that waits to become it."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return any(part.endswith(b"/server.py") for part in command[:3])


def poll(test: Callable[[], bool], limit_s: float = 20.0) -> bool:
    """Look until `test` holds."""
    end = time.monotonic() + limit_s
    while not test():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def problems(history: History) -> list[str]:
    """Name the problems."""
    return [one.code for one in history.all(Problem)]


@pytest.mark.parametrize(
    ("scenario", "mechanism"), [("R25", "SIGKILL"), ("R24", "SIGTERM"), ("R3", "state removed")]
)
def test_a_real_process_is_broken_and_comes_back(tmp_path: Path, scenario: str, mechanism: str) -> None:
    """Kill, clean stop and cold restart.

    Bitten, started again by Blackstart as operator, watched until the service is back. It is away for longer
    than a busy disk holds up a line.
    """
    run = Running(tmp_path / "runs", scenario, late_s=1.0)
    run.end()
    (folder,) = run.trials()
    history = load(folder)
    assert problems(history) == []
    assert history.ended is not None
    assert history.ended.how == "complete"
    receipt = history.all(Injected)[0].receipt
    assert mechanism in receipt.mechanism
    witness = history.all(Witnessed)[0].witness
    assert witness.bit is True
    if scenario == "R24":
        assert [one["status"] for one in witness.evidence.values()] == [0]
    after = [one.what for one in history.all(ProcessSeen) if one.mono_ns >= receipt.t0_mono_ns]
    assert after[:4] == ["exited", "starting", "started", "ready"]
    observed = next(one for one in history.all(StageReached) if one.stage == "observed")
    assert observed.detail == {"why": "resumed"}
    assert {one.side: one.error for one in history.all(LedgerFile)} == {
        "acknowledged": None,
        "recovered": None,
    }
    rows = {one.side: one.rows for one in history.all(LedgerFile)}
    assert (rows["recovered"] < rows["acknowledged"] - 70) == (scenario == "R3"), "only a cold restart wipes"
    assert (tmp_path / "runs" / "latest").resolve() == folder.parent
    assert strays(tmp_path) == []


@pytest.mark.parametrize("seed", range(4))
def test_ctrl_c_at_a_random_moment_leaves_nothing(tmp_path: Path, seed: int) -> None:
    """Interrupted at a seeded moment: history readable, nothing owed, no process left."""
    run = Running(tmp_path / "runs", "R25", "R24")
    run.until("trial-started")
    # Not synchronisation: the moment itself is what is being drawn.
    time.sleep(random.Random(seed).uniform(0.0, 6.0))
    os.killpg(run.process.pid, signal.SIGINT)
    run.end()
    assert run.process.returncode == 0
    assert run.lines[-1].startswith("run-ended")
    for folder in run.trials():
        assert load(folder).ended is not None
        assert journal.owed(str(folder)) == []
    assert strays(tmp_path) == []


def test_two_ctrl_c_end_at_once(tmp_path: Path) -> None:
    """The second one hurries: the guardian ends what would take its time."""
    run = Running(tmp_path / "runs", "R25")
    run.until("stage injected")
    for _ in range(2):
        os.killpg(run.process.pid, signal.SIGINT)
        time.sleep(0.05)
    run.end(limit_s=20)
    (folder,) = run.trials()
    history = load(folder)
    assert history.ended is not None
    assert history.ended.how == "interrupted"
    assert strays(tmp_path) == []


@pytest.mark.parametrize(
    "stage", ["stage open", "stage steady", "stage injected", "stage observed", "stage quiesced"]
)
def test_sigkill_at_any_stage_leaves_nothing(tmp_path: Path, stage: str) -> None:
    """Killed without warning.

    The guardian ends everything, and the history is readable up to the last whole record.
    """
    run = Running(tmp_path / "runs", "R25")
    run.until(stage)
    os.kill(run.process.pid, signal.SIGKILL)
    run.end()
    assert poll(lambda: strays(tmp_path) == [])
    (folder,) = run.trials()
    assert journal.owed(str(folder)) == []
    history = load(folder)
    assert history.header.plan.trial_id == "R25:server"
    assert history.ended is None


def test_what_two_deaths_left_is_cleared_by_the_next_run(tmp_path: Path) -> None:
    """Blackstart and its guardian killed together.

    The next start takes back what is owed and then does its own work.
    """
    first = Running(tmp_path / "runs", "R25")
    first.until("stage steady")
    guardian = next(
        one.pid
        for one in procs.everybody()
        if b"blackstart.engine.guardian" in Path(f"/proc/{one.pid}/cmdline").read_bytes()
        and str(tmp_path).encode() in Path(f"/proc/{one.pid}/cmdline").read_bytes()
    )
    os.kill(guardian, signal.SIGKILL)
    os.kill(first.process.pid, signal.SIGKILL)
    first.end()
    (dead,) = first.trials()
    owed = journal.owed(str(dead))
    assert owed
    second = Running(tmp_path / "runs", "R24")
    second.end()
    assert any(line.startswith("leftovers") for line in second.lines)
    assert journal.owed(str(dead)) == []
    assert strays(tmp_path) == []
    assert leftovers.clear(tmp_path / "runs") == []


def test_two_runs_at_once_do_not_meet(tmp_path: Path) -> None:
    """Same runs folder, same moment.

    Each has its own folder and ports, and neither takes the other's for leftovers.
    """
    both = [Running(tmp_path / "runs", "R25") for _ in range(2)]
    for run in both:
        run.end()
    folders = both[0].trials()
    assert len(folders) == 2
    for folder in folders:
        history = load(folder)
        assert problems(history) == []
        assert history.ended is not None
        assert history.ended.how == "complete"
    assert strays(tmp_path) == []


def test_one_trial_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    """R45: the run goes on after a trial whose target could not be started."""
    runs = tmp_path / "runs"
    run = Running(runs, "R25", "R24")
    run.until("trial-started")
    run.until("stage open")
    server = next(pid for pid in strays(tmp_path) if is_server(pid))
    os.kill(server, signal.SIGKILL)
    run.end()
    first, second = sorted(run.trials(), key=lambda folder: folder.name, reverse=True)
    assert problems(load(first)) == ["target-died"]
    assert problems(load(second)) == []
    assert strays(tmp_path) == []


@pytest.mark.parametrize("size_kb", [300, 340])
def test_a_disk_that_fills_up_is_a_verdict_and_not_a_crash(tmp_path: Path, size_kb: int) -> None:
    """On a disk that fills up before or after the fault: `disk-full`, nothing owed, nothing left."""
    script = f"mount -t tmpfs -o size={size_kb}k tmpfs $0 && exec {sys.executable} {RUNNER} $0 R25 R24"
    inner = ["unshare", "-Urm", "sh", "-c", script, str(tmp_path)]
    probe = subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True)
    if probe.returncode != 0:
        pytest.skip("user and mount namespaces are not available here")
    run = subprocess.run(inner, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    verdicts = [line for line in run.stdout.splitlines() if line.startswith("verdict")]
    assert len(verdicts) == 2, run.stdout
    assert all("disk-full" in line and "PASS" not in line for line in verdicts)
    assert "engine-error" not in run.stdout
    assert strays(tmp_path) == []


def test_the_kill_switch_lets_a_paused_process_run_on_and_ends_the_trial(tmp_path: Path) -> None:
    """`halt` in the middle of a pause of 100 s: continued by the guardian at once, on record."""
    run = Running(tmp_path / "runs", "R77")
    run.until("stage witnessed")
    (folder,) = run.trials()
    server = next(pid for pid in strays(tmp_path) if is_server(pid))
    stopped = procs.stat(server)
    assert stopped is not None
    assert stopped.state == "T"
    assert leftovers.halt(tmp_path / "runs") == [(folder, [])]
    run.end(limit_s=30)
    paid = {entry["id"]: entry for entry in journal.read(str(folder), journal.PAID)}
    entry = paid[f"pause:server:{server}"]
    assert (entry["action"], entry["verified"], entry["by"]) == ("continue", True, "halt")
    history = load(folder)
    assert problems(history) == ["halted"]
    assert history.all(Witnessed)[0].witness.bit is True
    assert (entry["id"], True) in [(one.undo_id, one.verified) for one in history.all(Reverted)]
    assert strays(tmp_path) == []
