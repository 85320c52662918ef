"""One cell of the guardian matrix: a trial with one fault, ended in one way, and what is left then."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench import matrix_look

from blackstart.engine import journal, locks

SIGNALS = {
    "Ctrl-C": signal.SIGINT,
    "SIGTERM": signal.SIGTERM,
    "SIGHUP": signal.SIGHUP,
    "SIGABRT": signal.SIGABRT,
    "SIGKILL": signal.SIGKILL,
}
BOTH, NORMAL = "SIGKILL of both, next start", "normal end"
RAISING = {
    "exception before the deed": "before",
    "exception in mid-deed": "middle",
    "exception in inject": "after",
}
"""Where `inject` fails: after the undo record, half way through the deed, when it is done."""

WAYS = (NORMAL, *SIGNALS, BOTH, *RAISING)
_HOLD_S, _LIMIT_S, _GONE_S, _LOOK_S = 0.2, 120.0, 30.0, 0.01
_UNAVAILABLE = "fault-unavailable: "


class Cell(NamedTuple):
    """What was left in place (nothing, if all is well), and how late each undo of the fault was proven.

    `missing`: the fault cannot be had here, and why.
    """

    fault: str
    way: str
    left: list[str]
    revert_ms: dict[str, float]
    took_s: float
    missing: str | None = None


def run(kind: str, way: str, root: Path) -> Cell:
    """Run one trial and end it that way."""
    began = time.monotonic()
    runs = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=root))
    trial = start(runs, kind, *(["--raise", _where(way, kind, root)] if way in RAISING else []))
    folder = None if way == NORMAL or way in RAISING else injected(runs, trial)
    ended_ns = _end(trial, way, folder)
    late = _late(folder, ended_ns) if folder is not None and way == "SIGKILL" else {}
    if way == BOTH and folder is not None:
        start(runs, "--next-start").wait(_LIMIT_S)
    left = [*matrix_look.still_owed(runs), *matrix_look.survivors(runs)]
    said = (runs / "out.txt").read_text(encoding="utf-8", errors="replace")
    missing = _missing(said)
    if missing is None and not _was_injected(runs) and way not in RAISING:
        left.append(f"the fault was never injected: {(said.strip().splitlines() or ['nothing said'])[-1]}")
    if way in RAISING and "an exception in the middle of inject" not in said and missing is None:
        left.append("the exception in inject was not told")
    return Cell(kind, way, left, late, time.monotonic() - began, missing)


def _where(way: str, kind: str, root: Path) -> str:
    """Say where `inject` is to fail; for the middle of the deed a first trial counts its lines."""
    if RAISING[way] != "middle":
        return RAISING[way]
    runs = Path(tempfile.mkdtemp(prefix=f"{kind}-count-", dir=root))
    start(runs, kind, "--raise", "count").wait(_LIMIT_S)
    said = (runs / "out.txt").read_text(encoding="utf-8", errors="replace")
    counted = re.search(r"^lines of inject\t(\d+)$", said, re.MULTILINE)
    return str(max(1, int(counted[1]) // 2)) if counted else "after"


def start(runs: Path, *arguments: str, state: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a trial, or the next start; a dying interpreter leaves no core dump of its own in our folder.

    `state` is where it notes its runs, for `halt`; without, in a place of its own.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    environment = {**os.environ, matrix_look.MARK: str(runs), "XDG_STATE_HOME": str(state or runs / "state")}
    command = [sys.executable, "-m", "bench.matrix_trial", str(runs), *arguments]
    try:
        with (runs / "out.txt").open("ab") as out:
            return subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def injected(runs: Path, process: subprocess.Popen[bytes]) -> Path | None:
    """Wait until the trial's history says that the fault is in place; returns its folder."""
    end = time.monotonic() + _LIMIT_S
    while time.monotonic() < end and process.poll() is None:
        if (folder := _was_injected(runs)) is not None:
            return folder
        time.sleep(_LOOK_S)
    return None


def _was_injected(runs: Path) -> Path | None:
    histories = runs.glob("2*/*/history.jsonl")
    return next((one.parent for one in histories if b'"stage":"injected"' in one.read_bytes()), None)


def _end(process: subprocess.Popen[bytes], way: str, folder: Path | None) -> int:
    """End it, and wait until its guardian has gone, too; returns when the end began."""
    if folder is None:
        ended_ns = time.monotonic_ns()
        try:
            process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return ended_ns
    time.sleep(_HOLD_S)
    ended_ns = time.monotonic_ns()
    if way == BOTH:
        guardian = locks.holder(str(folder), locks.GUARDIAN_LOCK)
        assert guardian is not None
        with contextlib.suppress(ProcessLookupError):  # of a trial that has just ended by itself
            os.kill(guardian, signal.SIGKILL)
        process.kill()
    else:
        process.send_signal(SIGNALS[way])
    process.wait(_LIMIT_S)
    for name in (locks.OWNER_LOCK, locks.GUARDIAN_LOCK):
        lock = locks.wait_for(str(folder), name, _GONE_S)
        if lock is not None:
            locks.release(lock)
    return ended_ns


def _late(folder: Path, ended_ns: int) -> dict[str, float]:
    """When each undo of the fault was first proven, after the end; not those of the target's processes."""
    late: dict[str, float] = {}
    for one in journal.read(str(folder), journal.PAID):
        fault = not one["id"].startswith("process:")
        if fault and one["verified"] and one["mono_ns"] > ended_ns:
            late.setdefault(one["id"], round((one["mono_ns"] - ended_ns) / 1e6, 2))
    return late


def _missing(said: str) -> str | None:
    """Find in what the trial printed why its fault cannot be had."""
    return said.split(_UNAVAILABLE, 1)[1].splitlines()[0].split("\t")[0] if _UNAVAILABLE in said else None
