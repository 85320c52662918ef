"""Another host over `ssh` (a real sshd on a loopback port): what distance costs, and how sure the clocks are.

Connecting, a round trip, the difference of the clocks against the known truth, a death known here, and a
process that stands still there running again after our end was killed by SIGKILL. Needs openssh-server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "real" / "remote"))

import other_host

from blackstart.engine.clocks import SystemClock
from blackstart.host import procs, ssh
from blackstart.model.fault import RemoteRef
from blackstart.target.remote import Link, RemoteHold

if TYPE_CHECKING:
    from collections.abc import Iterable

MUST_DEATH_MS, MUST_WAKE_MS = 2.0, 100.0
NS_PER_MS = 1_000_000


async def nobody(_undos: object) -> None:
    """Hold no undo: what is measured here ends by itself."""


async def connect(host: other_host.OtherHost) -> Link:
    options = {"UserKnownHostsFile": str(host.folder / "known_hosts")}
    identity = str(host.folder / "user_key")
    command = ssh.command(
        address="127.0.0.1", port=host.port, identity=identity, options=options, python=sys.executable
    )
    link = Link("there", command, SystemClock())
    await link.open(nobody)
    return link


async def hold(link: Link, name: str, told: Any) -> RemoteHold:
    started = await link.ask(
        "start", id=0, name=name, command=["sleep", f"300.{name}"], marker=f"bench:{name}"
    )
    return await RemoteHold(link, RemoteRef("there", started["pid"], started["start_ticks"]), told).take()


async def round_trip(link: Link) -> float:
    began = time.monotonic_ns()
    await link.ask("clock")
    return (time.monotonic_ns() - began) / NS_PER_MS


async def death(link: Link, number: int) -> float:
    """Kill a process there; returns when its death was known here, after the call."""
    known: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    held = await hold(link, str(number), lambda _ns: known.set_result(time.monotonic_ns()))
    began = time.monotonic_ns()
    await held.signal(signal.SIGKILL)
    return (await known - began) / NS_PER_MS


async def wake(host: other_host.OtherHost, number: int) -> float:
    """Stop a process there, kill our end; returns after how long it ran: it can be seen from here, too."""
    link = await connect(host)
    # Not one that was started for the trial: that would end instead.
    found = await link.ask("start", id=0, name="x", command=["sleep", f"301.{number}"], marker=None)
    held = await RemoteHold(
        link, RemoteRef("there", found["pid"], found["start_ticks"]), lambda _ns: None
    ).take()
    await held.signal(signal.SIGSTOP)
    (here,) = (one for one, _ in procs.matching(f"^sleep 301.{number}$"))
    while not (seen := procs.stat(here.pid)) or not seen.stopped:
        time.sleep(0.001)  # noqa: ASYNC251 - nobody else waits
    (ours,) = (one for one, _ in procs.matching(f"^ssh -T -x -a -p {host.port} "))
    began = time.monotonic_ns()
    os.kill(ours.pid, signal.SIGKILL)
    while (seen := procs.stat(here.pid)) and seen.stopped:
        time.sleep(0.0001)  # noqa: ASYNC251 - as above
    taken = (time.monotonic_ns() - began) / NS_PER_MS
    os.kill(here.pid, signal.SIGKILL)
    await link.close()
    return taken


def spread(values: Iterable[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 3),
        "p90": round(ordered[len(ordered) * 9 // 10], 3),
        "max": round(ordered[-1], 3),
    }


async def measure(host: other_host.OtherHost, times: int) -> dict[str, Any]:
    began = time.monotonic_ns()
    link = await connect(host)
    figures: dict[str, Any] = {"connected_ms": round((time.monotonic_ns() - began) / NS_PER_MS, 1)}
    figures["round_trip_ms"] = spread([await round_trip(link) for _ in range(times * 4)])
    truth = other_host.AHEAD_S * 10**9 if host.apart else 0
    errors, bounds, deaths = [], [], []
    for number in range(times):
        deaths.append(await death(link, number))
        now = link.now()
        errors.append(abs(link.offset.offset_ns(now) - truth) / NS_PER_MS)
        bounds.append(link.offset.uncertainty_ns(now) / NS_PER_MS)
        await asyncio.sleep(0.02)
    figures["clock_error_ms"], figures["clock_uncertainty_ms"] = spread(errors), spread(bounds)
    figures["outside"] = sum(error > bound for error, bound in zip(errors, bounds, strict=True))
    figures["death_known_ms"] = spread(deaths)
    await link.close()
    figures["runs_again_ms"] = spread([await wake(host, number) for number in range(max(5, times // 5))])
    return figures


def main() -> int:
    """Print the figures; the exit status says whether all are as they must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if (reason := other_host.why_not()) is not None:
        print(json.dumps({"error": reason}))
        return 2
    with tempfile.TemporaryDirectory(prefix="remote-") as folder:
        host = other_host.OtherHost(Path(folder, "host"))
        try:
            figures = uvloop.run(measure(host, options.times))
        finally:
            host.close()
    print(json.dumps(figures, indent=None if options.json else 2))
    good = figures["outside"] == 0 and figures["death_known_ms"]["median"] <= MUST_DEATH_MS
    return 0 if good and figures["runs_again_ms"]["median"] <= MUST_WAKE_MS else 1


if __name__ == "__main__":
    sys.exit(main())
