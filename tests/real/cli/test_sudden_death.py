"""`blackstart run` on the firm: killed without warning, interrupted twice, on a disk that fills up."""

from __future__ import annotations

import json
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
from blackstart.history.view import load
from blackstart.host import procs

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "blackstart.cli.main", "run", "R1"]
LONGEST_S = 9.0
"""About what the whole trial takes here: moments are drawn from all of it."""


def strays(folder: Path) -> list[int]:
    """Find live processes that have anything to do with a folder."""
    found = []
    for one in procs.everybody():
        try:
            text = b"".join(Path(f"/proc/{one.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue
        if str(folder).encode() in text and one.pid != os.getpid() and not one.dead:
            found.append(one.pid)
    return found


def poll(test: Callable[[], bool], limit_s: float = 30.0) -> bool:
    """Look until `test` holds."""
    end = time.monotonic() + limit_s
    while not test():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def begin(runs: Path) -> subprocess.Popen[bytes]:
    """Start a run, and return when its trial has a folder."""
    process = subprocess.Popen(
        [*COMMAND, "--out", str(runs)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert poll(lambda: any(runs.glob("2*/*/history.jsonl")))
    return process


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sigkill_at_any_moment_leaves_a_history_and_nothing_else(tmp_path: Path, seed: int) -> None:
    """Killed at a seeded moment: firm, exchange and load end all the same; the next start owes nothing."""
    runs = tmp_path / "runs"
    process = begin(runs)
    # Not synchronisation: the moment itself is what is being drawn.
    time.sleep(random.Random(seed).uniform(0.0, LONGEST_S))
    process.kill()
    process.wait()
    assert poll(lambda: strays(tmp_path) == []), strays(tmp_path)
    (folder,) = {path.parent for path in runs.glob("2*/*/history.jsonl")}
    assert load(folder).header.plan.trial_id == "R1"
    assert journal.owed(str(folder)) == []
    assert leftovers.clear(runs) == []


def test_two_ctrl_c_end_a_run_on_the_firm(tmp_path: Path) -> None:
    """The second Ctrl-C hurries; the run ends by itself, says UNKNOWN by its status, and nothing is left."""
    process = begin(tmp_path / "runs")
    (history,) = (tmp_path / "runs").glob("2*/*/history.jsonl")
    assert poll(lambda: b'"stage":"open"' in history.read_bytes())
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.wait(timeout=60) == 2
    assert strays(tmp_path) == []
    (results,) = (tmp_path / "runs").glob("2*/results.json")
    assert json.loads(results.read_bytes())["interrupted"] is True


@pytest.mark.parametrize("size_mb", [24, 34])
def test_a_disk_that_fills_up_under_the_firm_is_a_verdict(
    tmp_path: Path, firm_but: Callable[[str, str], Path], size_mb: int
) -> None:
    """Too small for the database, or for what the trial writes: no pass, no crash, nothing left."""
    target = str(firm_but("limit_s = 60.0", "limit_s = 15.0"))  # after 60 s the verdict is the same
    mount = ["unshare", "-m", "sh", "-c"]
    probe = subprocess.run([*mount, f"mount -t tmpfs tmpfs {tmp_path}"], check=False, capture_output=True)
    if probe.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    script = f'mount -t tmpfs -o size={size_mb}m tmpfs {tmp_path} && exec "$@"'
    done = subprocess.run(
        [*mount, script, "sh", *COMMAND, "--target", target, "--out", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "engine-error" not in done.stdout
    assert "Traceback" not in done.stderr
    assert strays(tmp_path) == []
