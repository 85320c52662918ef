"""Does a session of chaos hold out? `python -m bench.chaos_soak [--minutes M] [--faults N] [--json]`.

The reference firm under profile `staging`: no event lost, no false alarm, nothing left behind, Blackstart's
memory and open files flat, at least as many faults as were asked for (300 an hour), at most 3 GB on the disk,
and an end (books read, audited, reported) that takes neither minutes nor gigabytes. Status 0 when all holds.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from blackstart.engine import journal
from blackstart.host import procs

if TYPE_CHECKING:
    from collections.abc import Iterable

FAULTS_PER_MINUTE = 5.0
SETTLED_S = 300.0
OWN = (
    "blackstart.cli.main",
    "blackstart.chaos.process",
    "blackstart.chaos.judge",
    "blackstart.engine.guardian",
)
GROWTH = 1.10
"""How much more memory is allowed at the end than after five minutes."""
DESCRIPTORS = 20
"""So many more open files than in the first five minutes are allowed: each disturbance needs some."""
DISK_MB = 3000
CLOSING_S = 120.0
MOST_MB = 1000


SESSION = "blackstart.chaos.process"
JUMPS = 8
"""So many injections are named that left the session larger than they found it."""


class Seen(NamedTuple):
    """Memory at a moment, in bytes: of all of Blackstart, and of the session alone; and its descriptors."""

    after_s: float
    wall_ns: int
    all_rss: int
    session_rss: int
    descriptors: int


def look(root: psutil.Process, began: float) -> Seen:
    """Measure Blackstart's own processes, without target, load, and what a fault lets loose."""
    total = session = descriptors = 0
    for one in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            line = one.cmdline()
            if any(name in line for name in OWN):
                rss = one.memory_info().rss
                total += rss
                if SESSION in line:
                    session += rss
                    descriptors = max(descriptors, one.num_fds())
    return Seen(time.monotonic() - began, time.time_ns(), total, session, descriptors)


def most_mb(sizes: Iterable[int]) -> float:
    """Return the largest of some sizes in MB."""
    return round(max(sizes, default=0) / 1e6, 1)


def course_mb(seen: list[Seen]) -> list[float]:
    """Return the median of the session's memory in each five minutes: a single look is one disturbance's."""
    found: dict[int, list[int]] = {}
    for one in seen:
        if one.session_rss:
            found.setdefault(int(one.after_s // SETTLED_S), []).append(one.session_rss)
    return [round(statistics.median(found[part]) / 1e6, 1) for part in sorted(found)]


def open_files(seen: list[Seen]) -> dict[str, int]:
    """Return the most that the session had open in its first five minutes, and in its last; 0: not seen."""
    alive = [one for one in seen if one.descriptors]
    last_s = alive[-1].after_s - 60.0 if alive else 0.0
    return {
        "settled": max((one.descriptors for one in alive if one.after_s <= SETTLED_S), default=0),
        "end": max((one.descriptors for one in alive if one.after_s >= last_s), default=0),
    }


def jumps(injections: list[dict[str, Any]], seen: list[Seen]) -> list[str]:
    """Name the injections during which the session grew most, with what it had before and at most, in MB."""
    found = []
    begins = [one["wall_ns"] for one in injections]
    for one, (begin, end) in zip(injections, itertools.pairwise([*begins, time.time_ns()]), strict=True):
        before = [now.session_rss for now in seen if now.session_rss and now.wall_ns <= begin]
        during = [now.session_rss for now in seen if begin < now.wall_ns <= end]
        if before and during:
            found.append((max(during) - before[-1], before[-1], max(during), one["name"]))
    found.sort(reverse=True)
    return [f"{name}: {start / 1e6:.0f} → {most / 1e6:.0f}" for _, start, most, name in found[:JUMPS]]


class Watch(threading.Thread):
    """Measures once a second until the process ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root = psutil.Process(pid)
        self.seen: list[Seen] = []

    def run(self) -> None:
        """Measure."""
        begin = time.monotonic()
        with contextlib.suppress(psutil.Error):
            while self.root.is_running() and self.root.status() != psutil.STATUS_ZOMBIE:
                self.seen.append(look(self.root, begin))
                time.sleep(1.0)


def left_behind(folder: Path) -> list[str]:
    """Name undos that are owed, and processes of the run that live on."""
    owed = [f"owed: {one['id']}" for one in journal.owed(str(folder))]
    alive = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder) in one.environ().get(procs.MARKER, ""):
                alive.append(f"process {one.pid} {one.name()}")
    return owed + alive


def disk_mb(folder: Path) -> dict[str, float]:
    """Measure what lies in the folder, by its parts, the largest first, and in all."""
    sizes: dict[str, int] = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink():
                part = path.relative_to(folder).parts[0]
                sizes[part] = sizes.get(part, 0) + path.stat().st_blocks * 512
    largest = sorted(sizes, key=lambda part: -sizes[part])[:6]
    found = {part: round(sizes[part] / 1e6, 1) for part in largest}
    return {"all": round(sum(sizes.values()) / 1e6, 1), **found}


def soak(minutes: float, seed: int, runs: Path, profile: str) -> tuple[Path, int, list[Seen], float]:
    """Run the session; returns its folder, its exit status, the memory over time, and how long it took."""
    began = time.monotonic()
    command = (sys.executable, "-m", "blackstart.cli.main", "chaos", "run", "--profile", profile)
    options = ("--for", f"{minutes * 60:g}s", "--seed", str(seed), "--out", str(runs))
    process = subprocess.Popen([*command, *options], stdout=sys.stderr)
    watch = Watch(process.pid)
    watch.start()
    status = process.wait()
    return (runs / "latest").resolve(), status, watch.seen, time.monotonic() - began


def judge(
    folder: Path, status: int, memory: list[Seen], took_s: float, wanted: int
) -> tuple[dict[str, Any], list[str]]:
    """Return the figures, and what is not as it should be."""
    result = json.loads((folder / "chaos.json").read_bytes())
    chaos = result["summary"]["memory"]
    placed = sum(1 for one in result["injections"] if one["at_s"] is not None)
    figures = {
        "verdict": result["verdict"],
        "exit_status": status,
        "faults": placed,
        "counts": result["counts"],
        "acknowledged": result["summary"]["rpo"]["acknowledged"],
        "lost": result["summary"]["rpo"]["events"],
        "alerts": len(result["alerts"]),
        "false_alarms": result["false_alarms"],
        "left_behind": left_behind(folder),
        "start_and_end_s": round(took_s - result["summary"]["duration_s"], 1),
        "disk_mb": disk_mb(folder),
        "session_mb": {name: round(value / 1e6, 1) for name, value in chaos.items()},
        "session_mb_median_of_5_min": course_mb(memory),
        "all_of_blackstart_mb": {
            "settled": round(
                max((now.all_rss for now in memory if now.after_s <= SETTLED_S), default=0) / 1e6, 1
            ),
            "most": round(max((now.all_rss for now in memory), default=0) / 1e6, 1),
        },
        "session_descriptors": open_files(memory),
        "session_grew_by": jumps(result["injections"], memory),
        "reasons": result["reasons"][:10],
        "folder": str(folder),
    }
    bad = [
        text
        for holds, text in (
            (status == 0, f"exit status {status}"),
            (placed >= wanted, f"{placed} faults, {wanted} wanted"),
            (figures["lost"] == 0, f"{figures['lost']} events lost"),
            (figures["false_alarms"] == 0, f"{figures['false_alarms']} false alarms"),
            (not figures["left_behind"], f"left behind: {figures['left_behind']}"),
            (figures["start_and_end_s"] <= CLOSING_S, f"start and end took {figures['start_and_end_s']} s"),
            (figures["disk_mb"]["all"] <= DISK_MB, f"files: {figures['disk_mb']}"),
            (
                figures["all_of_blackstart_mb"]["most"] <= MOST_MB,
                f"memory at most: {figures['all_of_blackstart_mb']}",
            ),
            (
                0
                < figures["session_descriptors"]["end"]
                <= figures["session_descriptors"]["settled"] + DESCRIPTORS,
                f"descriptors grew, or nobody saw them: {figures['session_descriptors']}",
            ),
            (chaos["end"] <= GROWTH * chaos["begin"], f"memory grew: {figures['session_mb']}"),
            (result["summary"]["duration_s"] > SETTLED_S, "too short to say whether memory grew"),
        )
        if not holds
    ]
    return figures, bad


def main() -> int:
    """Soak, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--faults", type=int, help="at least so many; default: five a minute")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--profile", default="staging")
    parser.add_argument("--out", type=Path, help="where the run is kept; default: nowhere")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    wanted = given.faults if given.faults is not None else round(FAULTS_PER_MINUTE * given.minutes)
    with tempfile.TemporaryDirectory() as scratch:
        runs = given.out or Path(scratch)
        figures, bad = judge(*soak(given.minutes, given.seed, runs, given.profile), wanted)
    if given.json:
        print(json.dumps({**figures, "bad": bad}, indent=2))
        return 1 if bad else 0
    for name, value in figures.items():
        print(f"{name:22} {value}")
    print("holds out" if not bad else "\n".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
