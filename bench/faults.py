"""What each kind of fault costs: how soon it takes effect once called for, and how long taking it back takes.

`python -m bench.faults [--only KIND …] [--times N] [--json]`. Each kind on its example's target, in a process
and namespaces of its own, aimed beforehand as in a trial; after each time the target must look as before.
"injected" ends at t0, where the fault took effect. Kinds that wait for something in the target (a system
call, the kernel's want of memory, a death for each round) say so: what they wait for is not their own time.
The ordinary revert is timed, without any kill; deeds have none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "conformance" / "faults"))

import stage

from blackstart.contracts import Aimed
from blackstart.faults import registry
from blackstart.faults.network.fault import NetworkFault
from blackstart.scenario.plan import plan
from blackstart.target import manifest as manifests
from blackstart.testing.examples import EXAMPLES, trial

INJECT_MS = 20.0
WAITS = {
    "kill_at_syscall": "the n-th sync of the target",
    "disk_error": "a write of the target",
    "disk_slow": "a write of the target",
    "fsync_fail": "a sync of the target",
    "fsync_lie": "a sync of the target",
    "oom": "the kernel, until memory is short",
    "memory_pressure": "memory being filled",
    "disk_full": "a file system being filled",
    "crash_loop": "each return of the target",
    "stop_service": "the end of the service",
    "terminate": "the call only; the end of the process is the target's",
    "nonsense": "an order of the client",
    "refuse_service": "the answers of the database",
}
"""What the time until t0 also holds: that is not the fault's own speed."""

_LIMIT_S = 170.0


class Timed(stage.Stage):
    """Injects and takes back, again and again, and asks after each time what is left."""

    times = 5

    async def timed(self) -> dict[str, Any]:
        """Time it."""
        injected, returned, reverted, bits = [], [], [], []
        for life in self.lives[: self.times]:
            if isinstance(life.fault, Aimed):
                await life.fault.aim(self.ctx, self.step)
                life.fault.aim = already  # the stage would aim once more, and be timed
            began = time.monotonic_ns()
            receipt = await life.inject()
            returned.append((time.monotonic_ns() - began) / 1e6)
            injected.append((receipt.t0_mono_ns - began) / 1e6)
            bits.append((await life.witness())[0])
            await life.operated()
            began = time.monotonic_ns()
            await life.fault.revert(self.ctx, receipt)
            reverted.append((time.monotonic_ns() - began) / 1e6)
            await self.undone(life)
            if left := await self.look.left():
                return {"mistake": f"left: {left}"}
        found: dict[str, Any] = {"n": len(injected), "bit": bits.count(True), "mechanism": receipt.mechanism}
        for name, values in (("inject_ms", injected), ("call_ms", returned), ("revert_ms", reverted)):
            found[name] = {"median": round(statistics.median(values), 3), "max": round(max(values), 3)}
        return found


async def already(_ctx: Any, _step: Any) -> None:
    """Do nothing: it is aimed."""


def one(kind: str, times: int, folder: Path) -> dict[str, Any]:
    """Measure a kind in this process, whose namespaces become its own."""
    manifest = manifests.load(EXAMPLES[kind].target)
    isolation = stage.isolate(manifest)
    (planned,) = plan(trial(kind), manifest, seed=7)
    reason = registry.make(kind).unavailable(manifest, planned.faults[0])
    if reason is not None:
        return {"missing": reason}
    stage.PARTS, stage.Stage, Timed.times = ("timed",), Timed, times  # type: ignore[misc,assignment]
    found = asyncio.run(stage.on_stage(planned, manifest, folder, isolation))
    return dict(found["timed"])


def apart(kind: str, times: int) -> dict[str, Any]:
    """Measure a kind in a process of its own."""
    with tempfile.TemporaryDirectory(prefix=f"faults-{kind}-") as root:
        command = [sys.executable, "-m", "bench.faults", "--times", str(times), "--one", kind, f"{root}/run"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            return {"mistake": f"not done within {_LIMIT_S:g} s"}
        if done.returncode != 0:
            return {"mistake": (done.stderr.strip().splitlines() or ["nothing said"])[-1]}
        return dict(json.loads(done.stdout))


def line(kind: str, found: dict[str, Any]) -> str:
    """Tell of a kind."""
    if "inject_ms" not in found:
        return f"{kind:18} {found.get('missing') or found['mistake']}"
    into, back = found["inject_ms"], found["revert_ms"]
    waits = f"  (with {WAITS[kind]})" if kind in WAITS else ""
    return (
        f"{kind:18} injected {into['median']:8.2f} ms (max {into['max']:.2f})"
        f"  reverted {back['median']:8.2f} ms (max {back['max']:.2f}){waits}"
    )


def summary(kinds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Judge what is held to a figure: network faults and those that wait for nobody, within 20 ms."""
    own = {kind: one for kind, one in kinds.items() if "inject_ms" in one and kind not in WAITS}
    slow = sorted(kind for kind, one in own.items() if one["inject_ms"]["median"] > INJECT_MS)
    reverts = [one["revert_ms"]["median"] for one in kinds.values() if "revert_ms" in one]
    return {
        "bench": "faults",
        "kinds": kinds,
        "measured": sum("inject_ms" in one for one in kinds.values()),
        "of": len(kinds),
        "must_inject_ms": INJECT_MS,
        "inject_ms": {
            "median": statistics.median([one["inject_ms"]["median"] for one in own.values()] or [0.0]),
            "slowest": max([one["inject_ms"]["median"] for one in own.values()], default=0.0),
        },
        "revert_ms": {"median": statistics.median(reverts or [0.0]), "slowest": max(reverts, default=0.0)},
        "slow": slow,
        "network": sorted(kind for kind in own if isinstance(registry.make(kind), NetworkFault)),
        "mistakes": {kind: one["mistake"] for kind, one in kinds.items() if "mistake" in one},
        "not_to_be_had": {kind: one["missing"] for kind, one in kinds.items() if "missing" in one},
    }


def main() -> int:
    """Print a line a kind and the sum; status 1 when a kind that waits for nobody is slow, or one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=sorted(registry.known()), metavar="KIND")
    parser.add_argument("--times", type=int, default=5, choices=range(1, 7))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], options.times, Path(options.one[1]))))
        return 0
    kinds = {}
    for kind in options.only:
        kinds[kind] = apart(kind, options.times)
        print(line(kind, kinds[kind]), file=sys.stderr, flush=True)
    found = summary(kinds)
    print(json.dumps(found, indent=None if options.json else 2))
    return 0 if not found["slow"] and not found["mistakes"] else 1


if __name__ == "__main__":
    sys.exit(main())
