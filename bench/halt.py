"""The kill switch: `blackstart halt` from another process, with faults of every kind of undo in place.

`python -m bench.halt [--only KIND …] [--together N] [--times N] [--json]`. Each kind is a trial of its own on
its example's target, so many at once as a suite runs side by side (2), all of one user; then one `blackstart
halt` takes all of them back. Counted from the start of that command, its interpreter included: until each
undo of a fault was carried out and proven, and until the command was done. Counted from the moment at which
it pulls the switch (the stamp of the file HALT, as coarse as a tick of the kernel): the same. What was left
is looked for by this program itself. Must: everything reverted within 100 ms of the command's start, and
nothing left.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from bench import matrix_cell, matrix_look

from blackstart.engine import alarm, journal

MUST_MS = 100.0
KINDS = {
    "pause": "a process stopped",
    "oom": "limits and helpers",
    "cpu_quota": "a control group",
    "clock_skew": "a clock in memory",
    "partition": "packet filter",
    "latency": "packet queue",
    "disk_full": "a full file system",
    "disk_error": "system calls",
    "flip_file_bits": "bits in a file",
    "refuse_service": "SQL",
    "misbehave": "HTTP",
}
"""One kind of fault for each kind of undo."""

_PATIENCE_S = 90.0


class Halted(NamedTuple):
    """One pull: milliseconds, since the command's start and since the switch was pulled, of each undo."""

    command_ms: float
    since_start_ms: dict[str, float]
    since_pull_ms: dict[str, float]
    target_ms: float
    left: list[str]
    missing: list[str]


def once(kinds: list[str], root: Path) -> Halted:
    """Break everything at once, halt from another process, and look at what is left."""
    runs = {kind: Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=root)) for kind in kinds}
    before = matrix_look.host()
    state = root / "state"
    trials = {kind: matrix_cell.start(folder, kind, "--hold", state=state) for kind, folder in runs.items()}
    try:
        folders = {kind: matrix_cell.injected(runs[kind], trials[kind]) for kind in kinds}
        there = {kind: str(folder) for kind, folder in folders.items() if folder is not None}
        owed = {kind: faults(journal.owed(folder)) for kind, folder in there.items()}
        environment = {**os.environ, "XDG_STATE_HOME": str(state)}
        command = [sys.executable, "-m", "blackstart.cli", "halt", "--out", str(root / "none")]
        wall_ahead = time.time_ns() - time.monotonic_ns()
        began = time.monotonic_ns()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        command_ms = (time.monotonic_ns() - began) / 1e6
        pulled = min(Path(one, alarm.HALT).stat().st_mtime_ns - wall_ahead for one in there.values())
        since_start, since_pull, target_ms = {}, {}, 0.0
        left = [f"halt: {line}" for line in done.stderr.splitlines()]
        for kind, folder in there.items():
            proven = first_proven(folder, began)
            left += [f"{kind}: {one} was not taken back" for one in owed[kind] if one not in proven]
            late = max((proven[one] for one in owed[kind] if one in proven), default=began)
            since_start[kind], since_pull[kind] = (late - began) / 1e6, (late - pulled) / 1e6
            target_ms = max([target_ms, *((one - began) / 1e6 for one in proven.values())])
    finally:
        for trial in trials.values():
            end(trial)
    for folder in runs.values():
        left += [*matrix_look.still_owed(folder), *matrix_look.survivors(folder)]
    left += matrix_look.settled(before)
    missing = [kind for kind in kinds if kind not in there or not owed[kind]]
    return Halted(command_ms, since_start, since_pull, target_ms, left, missing)


def faults(entries: list[dict[str, Any]]) -> list[str]:
    """Name what a fault owes; not the target's own processes, which end with the trial."""
    return [one["id"] for one in entries if not one["id"].startswith("process:")]


def first_proven(folder: str, since_ns: int) -> dict[str, int]:
    """Tell when each undo was first carried out and proven."""
    found: dict[str, int] = {}
    for one in journal.read(folder, journal.PAID):
        if one["verified"] and one["mono_ns"] > since_ns:
            found.setdefault(one["id"], one["mono_ns"])
    return found


def end(trial: subprocess.Popen[bytes]) -> None:
    """Wait for a trial whose fault was taken away from it."""
    try:
        trial.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        trial.kill()
        trial.wait()


def spread(values: list[float]) -> dict[str, float]:
    """Sum up."""
    return {"median": round(statistics.median(values), 1), "max": round(max(values), 1)}


def summary(found: list[Halted]) -> dict[str, Any]:
    """Put together what must hold."""
    last = [max(one.since_start_ms.values(), default=float("inf")) for one in found]
    figures: dict[str, Any] = {
        "bench": "halt",
        "together": max(len(one.since_start_ms) for one in found),
        "kinds": len({kind for one in found for kind in one.since_start_ms}),
        "reverted_ms": spread(last),
        "reverted_since_pull_ms": spread([max(one.since_pull_ms.values(), default=0) for one in found]),
        "with_targets_ended_ms": spread([one.target_ms for one in found]),
        "command_ms": spread([one.command_ms for one in found]),
        "since_pull_ms_of": {
            kind: spread([one.since_pull_ms[kind] for one in found if kind in one.since_pull_ms])
            for kind in sorted({kind for one in found for kind in one.since_pull_ms})
        },
        "left": [text for one in found for text in one.left],
        "not_to_be_had": sorted({kind for one in found for kind in one.missing}),
        "must_ms": MUST_MS,
    }
    figures["good"] = max(last) <= MUST_MS and not figures["left"]
    return figures


def main() -> int:
    """Print the figures; the exit status says whether every one was quick enough and nothing was left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--together", type=int, default=2)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = []
    for begin in [*range(0, len(options.only), options.together)] * options.times:
        with tempfile.TemporaryDirectory(prefix="halt-") as root:
            found.append(once(options.only[begin : begin + options.together], Path(root)))
    figures = summary(found)
    print(json.dumps(figures, indent=None if options.json else 2))
    return 0 if figures["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
