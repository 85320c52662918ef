"""Every fault times every way to end Blackstart: what is left in place, and how soon it was taken back.

`python -m bench.guardian_matrix [--only KIND …] [--ways WAY …] [--jobs N] [--json]`. Each cell is one trial
on the reference firm, with the fault as the packaged scenarios use it, ended in the middle of the fault. Then
this program looks for itself: mounts, packet filter, cgroups, surviving processes, undos that are still owed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from bench.matrix_trial import example
from pyroute2.nftables.main import NFTables

from blackstart.engine import journal, leftovers
from blackstart.faults import registry
from blackstart.host import procs

SIGNALS = {
    "Ctrl-C": signal.SIGINT,
    "SIGTERM": signal.SIGTERM,
    "SIGHUP": signal.SIGHUP,
    "SIGABRT": signal.SIGABRT,
    "SIGKILL": signal.SIGKILL,
}
BOTH, RAISING, NORMAL = "SIGKILL of both, next start", "exception in inject", "normal end"
WAYS = (NORMAL, *SIGNALS, BOTH, RAISING)
HOLD_S, LIMIT_S, GONE_S, LOOK_S = 0.2, 120.0, 20.0, 0.01
GOAL_MS = 20.0


class Host(NamedTuple):
    """What faults may leave behind on the host, outside any process."""

    mounts: frozenset[str]
    tables: frozenset[str]
    groups: frozenset[str]
    shared: frozenset[str]


class Cell(NamedTuple):
    """One trial: what was left in place (nothing, if all is well), and how late its undos were done."""

    fault: str
    way: str
    left: list[str]
    revert_ms: float | None
    note: str = ""


def host() -> Host:
    """Look at the host itself, not at what anybody says was taken back."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    groups = [str(path) for path in Path("/sys/fs/cgroup").rglob("*blackstart*")]
    shared = [path.name for path in Path("/dev/shm").iterdir() if "blackstart" in path.name]
    return Host(
        frozenset(line.split()[4] for line in mounts), _tables(), frozenset(groups), frozenset(shared)
    )


def _tables() -> frozenset[str]:
    if os.geteuid() != 0:
        return frozenset()
    with NFTables() as filters:
        return frozenset(str(table.get_attr("NFTA_TABLE_NAME")) for table in filters.get_tables())


def cell(kind: str, way: str, root: Path) -> Cell:
    """Run one trial and end it that way."""
    before, began = host(), time.monotonic()
    runs = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=root))
    command = [sys.executable, "-m", "bench.matrix_trial", str(runs), kind]
    command += ["--raise"] if way == RAISING else []
    with (runs / "out.txt").open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    folder = _injected(runs, process) if way != RAISING else None
    if way not in (RAISING, NORMAL) and folder is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        process.wait(LIMIT_S)
        return Cell(kind, way, ["the fault was never injected"], None, _reason(runs))
    ended_ns = _end(process, way, folder)
    return _judge(Cell(kind, way, [], None), runs, before, ended_ns, time.monotonic() - began)


def _injected(runs: Path, process: subprocess.Popen[bytes]) -> Path | None:
    """Wait until the trial's history says that the fault is in place; returns its folder."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end and process.poll() is None:
        for history in runs.glob("*/*/history.jsonl"):
            if b'"stage":"injected"' in history.read_bytes():
                return history.parent
        time.sleep(LOOK_S)
    return None


def _end(process: subprocess.Popen[bytes], way: str, folder: Path | None) -> int:
    """End it, and wait until its guardian has gone, too; returns when the end began."""
    if way in (NORMAL, RAISING):
        process.wait(LIMIT_S)
        return time.monotonic_ns()
    assert folder is not None
    time.sleep(HOLD_S)
    ended_ns = time.monotonic_ns()
    if way == BOTH:
        guardian = journal.holder(str(folder), journal.GUARDIAN_LOCK)
        assert guardian is not None
        os.kill(guardian, signal.SIGKILL)
        process.kill()
    else:
        process.send_signal(SIGNALS[way])
    process.wait(LIMIT_S)
    for name in (journal.OWNER_LOCK, journal.GUARDIAN_LOCK):
        lock = journal.wait_for(str(folder), name, GONE_S)
        if lock is not None:
            journal.release(lock)
    return ended_ns


def _judge(found: Cell, runs: Path, before: Host, ended_ns: int, took_s: float) -> Cell:
    if found.way == BOTH:
        leftovers.clear(runs)  # what every start of `blackstart` does first
    folders = sorted({path.parent for path in runs.rglob(journal.OWED)})
    left = [f"still owed: {entry['id']}" for folder in folders for entry in journal.owed(str(folder))]
    paid = [entry for folder in folders for entry in journal.read(str(folder), journal.PAID)]
    left += [f"not verified: {one['id']} {one['evidence']}" for one in paid if one["verified"] is False]
    left += _survivors(runs)
    after = host()
    for name in Host._fields:
        left += [f"{name}: {one}" for one in sorted(getattr(after, name) - getattr(before, name))]
    undone = [one["mono_ns"] for one in paid if one["action"] != "kill" and one["by"] == "guardian"]
    late_ms = (max(undone) - ended_ns) / 1e6 if undone and found.way == "SIGKILL" else None
    return found._replace(left=left, revert_ms=late_ms, note=f"{took_s:.0f} s")


def _survivors(runs: Path) -> list[str]:
    """Find processes that belong to these runs, by their environment; they get a moment to end."""
    end = time.monotonic() + 2.0
    while found := [pid for pid in _pids() if _belongs(pid, runs)]:
        if time.monotonic() > end:
            return [f"process {pid}: {_words(pid)}" for pid in found]
        time.sleep(LOOK_S)
    return []


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _belongs(pid: int, runs: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    found = procs.stat(pid)
    return f"{procs.MARKER}={runs}".encode() in environment and found is not None and not found.dead


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return "?"


def _reason(runs: Path) -> str:
    lines = (runs / "out.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def summary(cells: list[Cell], missing: dict[str, str]) -> dict[str, Any]:
    """Put together what must hold: nothing left, and the median time to revert after SIGKILL."""
    times = {one.fault: one.revert_ms for one in cells if one.revert_ms is not None}
    return {
        "cells": len(cells),
        "left": [one._asdict() for one in cells if one.left],
        "revert_ms": times,
        "revert_median_ms": round(statistics.median(times.values()), 2) if times else None,
        "not_to_be_had": missing,
    }


def main() -> int:
    """Run what was asked for; status 1 when anything was left in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=sorted(registry.known()), metavar="KIND")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, metavar="WAY")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    missing = {kind: why for kind in options.only if (why := example(kind).missing) is not None}
    todo = [(kind, way) for kind in options.only if kind not in missing for way in options.ways]
    with tempfile.TemporaryDirectory(prefix="matrix-") as root, ThreadPoolExecutor(options.jobs) as pool:
        os.environ["XDG_STATE_HOME"] = f"{root}/state"
        cells = []
        for one in pool.map(lambda pair: cell(*pair, Path(root)), todo):
            cells.append(one)
            mark = "ok  " if not one.left else "LEFT"
            late = "" if one.revert_ms is None else f" reverted after {one.revert_ms:.1f} ms"
            line = f"{mark} {one.fault:20} {one.way:28} {'; '.join(one.left)}{late} ({one.note})"
            print(line, file=sys.stderr, flush=True)
    found = summary(cells, missing)
    print(json.dumps(found, indent=2) if options.json else _told(found))
    return 1 if found["left"] else 0


def _told(found: dict[str, Any]) -> str:
    lines = [f"{found['cells']} cells, {len(found['left'])} with something left in place"]
    lines.append(f"median time to revert after SIGKILL: {found['revert_median_ms']} ms (goal {GOAL_MS:g} ms)")
    lines += [f"not to be had here: {kind}: {why}" for kind, why in found["not_to_be_had"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
