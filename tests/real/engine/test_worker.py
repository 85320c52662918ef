"""Trials in processes of their own: one that dies takes nobody with it; side by side they do not meet."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from blackstart.engine import journal, worker
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


NOISY = """
import asyncio, os, subprocess, sys
from blackstart.engine import worker_runner
from blackstart.engine.worker import Word

async def work():
    print("a word of the glue")
    os.write(1, b"half a li")
    subprocess.run(["echo", "its child"], check=True)
    worker_runner.say(Word(event="stage"))

asyncio.run(worker_runner.until_told(work()))
worker_runner.say(Word(event="end"))
"""


def test_what_a_strangers_glue_prints_is_no_word_of_the_worker() -> None:
    """`print` in a process that tells of itself on standard output goes to standard error."""
    done = subprocess.run((sys.executable, "-c", NOISY), capture_output=True, text=True, check=True)
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["stage", "end"]
    assert all(text in done.stderr for text in ("a word of the glue", "half a li", "its child"))


def test_a_line_that_is_no_word_ends_nothing() -> None:
    """A worker that is killed in the middle of a line leaves a torn one: what it told before counts."""

    async def told() -> list[str]:
        line = worker.Word(event="stage", figures={"n": 1})
        text = msgspec.json.encode(line).decode()
        process = await asyncio.create_subprocess_exec(
            *("printf", "%s", f"{text}\nnot a word\n{text}\n{text[:20]}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return [word.event async for word in worker.words(process, line, worker.Word)]

    assert asyncio.run(told()) == ["stage", "stage"]
