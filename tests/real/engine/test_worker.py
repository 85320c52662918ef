"""Trials in processes of their own: one that dies takes nobody with it; side by side they do not meet."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from blackstart.engine import journal
from blackstart.host import namespaces

_spec = importlib.util.spec_from_file_location("trial_tests", Path(__file__).with_name("test_trial.py"))
assert _spec is not None
assert _spec.loader is not None
trials = importlib.util.module_from_spec(_spec)
sys.modules["trial_tests"] = trials
_spec.loader.exec_module(trials)


def workers(run: Any) -> list[psutil.Process]:
    """Find the processes of the trials under way."""
    return [
        one
        for one in psutil.Process(run.process.pid).children()
        if "worker_runner" in " ".join(one.cmdline())
    ]


def test_a_worker_that_dies_is_an_unknown_trial_and_the_next_one_runs(tmp_path: Path) -> None:
    """SIGKILL of one trial's process after the fault: its guardian takes all back, the suite goes on."""
    run = trials.Running(tmp_path, "R25", "R25")
    run.until("stage injected")
    (worker,) = workers(run)
    worker.send_signal(signal.SIGKILL)
    run.end()
    verdicts = [line.split("\t") for line in run.lines if line.startswith("verdict")]
    assert len(verdicts) == 2
    assert verdicts[0][1] == "UNKNOWN"
    assert "history-cut-short" in verdicts[0][2] or "worker-died" in verdicts[0][2]
    assert verdicts[1][1] == "PASS"
    for folder in (one.parent for one in tmp_path.rglob(journal.OWED)):
        assert journal.owed(str(folder)) == []


def test_trials_run_side_by_side_and_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once: both are under way at the same time, and both pass."""
    monkeypatch.setenv("JOBS", "2")
    run = trials.Running(tmp_path, "R25", "R25")
    run.until("stage open")
    assert len(workers(run)) == 2
    run.end()
    assert [line.split("\t")[1] for line in run.lines if line.startswith("verdict")] == ["PASS", "PASS"]


@pytest.mark.skipif(namespaces.unavailable("network") is not None, reason="no network namespaces here")
def test_an_isolated_trial_has_a_loopback_of_its_own(tmp_path: Path) -> None:
    """The target's processes live in another network than we do, and the history says so."""
    run = trials.Running(tmp_path, "R25")
    run.until("stage steady")
    (worker,) = workers(run)
    mine = namespaces.identity("network")
    theirs = set()
    for one in worker.children(recursive=True):
        with contextlib.suppress(FileNotFoundError):  # it ended meanwhile: a child of a moment
            theirs.add(namespaces.identity("network", one.pid))
    assert len(theirs) == 1
    assert mine not in theirs
    run.end()
    first = next(tmp_path.glob("*/R25*/history.jsonl")).read_text().splitlines()[0]
    assert "network" in json.dumps(json.loads(first))
    assert os.getpid() != worker.pid
