"""How soon the death of a process is noticed: from the kill call to our loop hearing of it (pidfd).

Must: median ≤ 0.3 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import subprocess
import sys
import time

from blackstart.engine.clocks import SystemClock
from blackstart.faults.death import Deathbed
from blackstart.host import procs
from blackstart.model.fault import ProcessRef

LIMIT_MS = 0.3


async def measure(deaths: int) -> list[float]:
    """Kill `deaths` processes one after the other; returns the latencies in milliseconds."""
    clock = SystemClock()
    found = []
    for _ in range(deaths):
        process = subprocess.Popen(["sleep", "60"])  # noqa: ASYNC220 - its start is not what is timed
        entry = procs.stat(process.pid)
        assert entry is not None
        bed = Deathbed({"sleeper": ProcessRef(process.pid, entry.start_ticks)}, clock)
        await asyncio.sleep(0.002)
        before, _ = await bed.strike(signal.SIGKILL)
        await bed.gone(5.0)
        found.append((bed.noticed["sleeper"] - before) / 1e6)
        bed.close()
        process.wait()
    return found


def main() -> int:
    """Print the figures; the exit status says whether the median is good enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deaths", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    began = time.monotonic()
    latencies = sorted(asyncio.run(measure(arguments.deaths)))
    median = round(statistics.median(latencies), 4)
    figures = {
        "bench": "death_notice",
        "deaths": len(latencies),
        "median_ms": median,
        "p99_ms": round(latencies[int(len(latencies) * 0.99) - 1], 4),
        "max_ms": round(latencies[-1], 4),
        "must_median_ms": LIMIT_MS,
        "took_s": round(time.monotonic() - began, 2),
    }
    print(
        json.dumps(figures)
        if arguments.json
        else "\n".join(f"{key:16} {value}" for key, value in figures.items())
    )
    return 0 if median <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
