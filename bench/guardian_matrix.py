"""Every fault times every way to end Blackstart: what is left in place, and how soon it was taken back.

`python -m bench.guardian_matrix [--only KIND …] [--ways WAY …] [--repeat N] [--jobs N] [--json]`. Each cell
is one trial on a small target, with the fault of `blackstart.testing.examples`, ended in the middle of the
fault; then this program looks for itself. `--repeat` repeats the cells with SIGKILL, for the times to revert;
these run alone, the others `--jobs` side by side. Status 0: nothing was left, and the times are good enough.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import matrix_cell, matrix_look
from bench.matrix_cell import WAYS, Cell

from blackstart.faults import registry
from blackstart.faults.network.fault import NetworkFault
from blackstart.scenario.plan import carry
from blackstart.target import manifest as manifests
from blackstart.testing import examples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GOAL_MS = 20.0
PROCESSES = (
    *("kill", "terminate", "cold", "segv", "pause", "crash_loop", "kill_at_syscall"),
    *("oom", "memory_pressure", "cpu_stress", "cpu_quota"),
)
_TIMED = "SIGKILL"


def group(kind: str) -> str:
    """Say which goal holds for a fault: that for `process` and `network` faults, or none (`other`)."""
    if isinstance(registry.make(kind), NetworkFault):
        return "network"
    return "process" if kind in PROCESSES else "other"


def missing(kind: str) -> str | None:
    """Say why a fault cannot be tried at all, or None; in the trial itself it may still turn out so."""
    if kind not in examples.EXAMPLES:
        return "no example in blackstart.testing.examples"
    manifest = manifests.load(examples.EXAMPLES[kind].target)
    return carry(manifest, examples.trial(kind))


def cells(todo: Sequence[tuple[str, str]], repeat: int, jobs: int, root: Path) -> Iterator[Cell]:
    """Run all: first those whose time counts, alone."""
    for kind, way in todo:
        for _ in range(repeat if way == _TIMED else 0):
            yield matrix_cell.run(kind, way, root)
    others = [pair for pair in todo if pair[1] != _TIMED]
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda pair: matrix_cell.run(*pair, root), others)


def line(one: Cell) -> str:
    """Tell of one cell."""
    mark = "n/a " if one.missing is not None else "LEFT" if one.left else "ok  "
    late = f" reverted within {max(one.revert_ms.values()):.1f} ms" if one.revert_ms else ""
    words = one.missing or "; ".join(one.left)
    return f"{mark} {one.fault:18} {one.way:28} {words}{late} ({one.took_s:.1f} s)"


def summary(found: list[Cell], without: dict[str, str], host: list[str]) -> dict[str, Any]:
    """Put together what must hold: nothing left, and the times to revert after SIGKILL."""
    some = {one.fault for one in found if one.missing is None}
    without |= {one.fault: one.missing for one in found if one.missing is not None and one.fault not in some}
    tried = [
        one if one.missing is None else one._replace(left=[f"not tried, though others were: {one.missing}"])
        for one in found
        if one.fault in some
    ]
    times: dict[str, list[float]] = {}
    for one in tried:
        if one.revert_ms:
            times.setdefault(one.fault, []).append(max(one.revert_ms.values()))
    goal = [ms for kind, late in times.items() if group(kind) != "other" for ms in late]
    left = [one._asdict() for one in tried if one.left]
    return {
        "bench": "guardian_matrix",
        "cells": len(tried),
        "kinds": len({one.fault for one in tried}),
        "left": left,
        "left_on_the_host": host,
        "not_to_be_had": without,
        "revert_ms": {
            "process and network": _figures(goal),
            "all": _figures([ms for late in times.values() for ms in late]),
        },
        "revert_median_ms_of": {
            kind: round(statistics.median(late), 2) for kind, late in sorted(times.items())
        },
        "goal_ms": GOAL_MS,
        "good": not left and not host and (not goal or statistics.median(goal) <= GOAL_MS),
    }


def _figures(times: list[float]) -> dict[str, float]:
    if not times:
        return {"n": 0}
    ordered = sorted(times)
    at_99 = ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))]
    return {"n": len(times), "median": round(statistics.median(times), 2), "p99": at_99, "max": ordered[-1]}


def told(found: dict[str, Any]) -> str:
    """Say it in words."""
    clean, kinds = found["cells"] - len(found["left"]), found["kinds"]
    lines = [f"nothing left in {clean} of {found['cells']} cells ({kinds} kinds of fault)"]
    lines += [f"LEFT {one['fault']}, {one['way']}: {'; '.join(one['left'])}" for one in found["left"]]
    lines += [f"LEFT on the host: {one}" for one in found["left_on_the_host"]]
    for name, figures in found["revert_ms"].items():
        if figures["n"]:
            words = f"median {figures['median']:g} ms, p99 {figures['p99']:g}, max {figures['max']:g}"
            lines.append(f"reverted after SIGKILL, {name} faults: {words} (n = {figures['n']})")
    lines += [f"not to be had here: {kind}: {why}" for kind, why in found["not_to_be_had"].items()]
    lines.append(f"goal: nothing left, median ≤ {GOAL_MS:g} ms: {'held' if found['good'] else 'MISSED'}")
    return "\n".join(lines)


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=sorted(registry.known()), metavar="KIND")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, metavar="WAY")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    without = {kind: why for kind in options.only if (why := missing(kind)) is not None}
    todo = [(kind, way) for kind in options.only if kind not in without for way in options.ways]
    before, found = matrix_look.host(), []
    with tempfile.TemporaryDirectory(prefix="matrix-") as root:
        for one in cells(todo, options.repeat, options.jobs, Path(root)):
            found.append(one)
            print(line(one), file=sys.stderr, flush=True)
    result = summary(found, without, matrix_look.settled(before))
    print(json.dumps(result, indent=2) if options.json else told(result))
    return 0 if result["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
