"""What network faults cost: through the proxy and the kernel's queue at no delay, to inject, to take back.

What a message costs more is measured in pairs: one with, one without, in turn, on two connections to two
servers; so whatever else the machine does meets both. The added p50 and p99 are the differences of the two.
All in one run in a network of its own. Must: injected within 20 ms; taken back within 100 ms after SIGKILL.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import statistics
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from blackstart.engine.clocks import SystemClock
from blackstart.faults import registry
from blackstart.host import namespaces
from blackstart.model.manifest import Link, Manifest, ProxySpec
from blackstart.model.scenario import FaultStep
from blackstart.target.proxies import Proxies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MESSAGE = b"x" * 200
INJECT_MS, KILLED_MS = 20.0, 100.0
KINDS: dict[str, dict[str, Any]] = {
    "partition": {},
    "packet_loss": {},
    "reset": {},
    "half_open": {},
    "latency": {"delay_ms": 20},
    "reorder": {},
    "duplicate_packets": {},
    "corrupt_packets": {},
    "bandwidth": {"bytes_per_s": 1_000_000},
    "slow_reader": {"bytes_per_s": 1_000_000},
}


class Context:
    """Implements FaultContext and a target with one link."""

    name = "bench"

    def __init__(self, port: int) -> None:
        proxy = ProxySpec(listen="127.0.0.1:0", upstream=f"127.0.0.1:{port}")
        links = {"line": Link(ports=(str(port),), proxy=proxy)}
        self.manifest = Manifest(schema=1, name="bench", isolation=("network",), links=links)
        self.port, self.clock, self.isolation = port, SystemClock(), frozenset({"network"})
        self.plan = SimpleNamespace(seed=7, trial_id="bench")
        self.values: dict[str, Any] = {}
        self.proxies = Proxies(self.manifest, self.values, self.protect)

    @property
    def target(self) -> Any:
        """This very object."""
        return self

    def link_ports(self, _name: str) -> list[int]:
        """Tell the port."""
        return [self.port]

    async def protect(self, undos: Iterable[Any]) -> None:
        """Nobody guards a bench."""

    def record(self, record: Any) -> None:
        """Nobody reads it."""


def serve(server: socket.socket) -> None:
    """Echo for ever, in a process of its own; a run of `s` is only swallowed."""
    if os.fork() > 0:
        return
    _die_with_parent()
    while True:
        link, _ = server.accept()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if os.fork() == 0:
            _die_with_parent()
            with contextlib.suppress(OSError):
                while data := link.recv(1 << 20):
                    if data[:1] != b"s":
                        link.sendall(data)
            os._exit(0)
        link.close()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def client(port: int) -> socket.socket:
    """Connect."""
    link = socket.create_connection(("127.0.0.1", port), timeout=10)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def there_and_back(link: socket.socket) -> float:
    """Send one message, wait for its echo; microseconds."""
    began = time.perf_counter_ns()
    link.sendall(MESSAGE)
    left = len(MESSAGE)
    while left:
        left -= len(link.recv(left))
    return (time.perf_counter_ns() - began) / 1000


def speed(port: int) -> float:
    """Send one way for a second; megabytes a second."""
    with client(port) as link:
        sent, began = 0, time.perf_counter()
        while time.perf_counter() - began < 1:
            sent += link.send(b"s" * 65536)
        return sent / (time.perf_counter() - began) / 1e6


def compare(port: int, bare: int, messages: int) -> dict[str, Any]:
    """Measure a way against the bare one: messages in turn, then bytes."""
    with client(port) as link, client(bare) as other:
        for _ in range(100):
            there_and_back(link), there_and_back(other)
        pairs = [(there_and_back(link), there_and_back(other)) for _ in range(messages)]
    used, plain = (sorted(times) for times in zip(*pairs, strict=True))
    found: dict[str, Any] = {}
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        place = int(len(used) * share)
        with_it, without = used[place], plain[place]
        found[name] = {
            "with_us": round(with_it, 1),
            "without_us": round(without, 1),
            "added_us": round(with_it - without, 1),
        }
    fast, bare_fast = speed(port), speed(bare)
    return {
        **found,
        "mb_per_s": {"with": round(fast, 1), "without": round(bare_fast, 1)},
        "throughput_ratio": round(fast / bare_fast, 3),
    }


async def costs(ctx: Any, bare: int, messages: int) -> dict[str, dict[str, Any]]:
    """Measure through the proxy, and through the queue at no delay, each against the bare line."""
    await ctx.proxies.start()
    await ctx.proxies.lead()
    port = int(ctx.values["proxy"]["line"].rpartition(":")[2])
    found = {"proxy": await asyncio.to_thread(compare, port, bare, messages)}
    await ctx.proxies.close()
    fault: Any = registry.make("latency")
    receipt = await fault.inject(ctx, step("latency", {"delay_ms": 0}))
    found["nfqueue"] = await asyncio.to_thread(compare, ctx.port, bare, messages)
    await fault.revert(ctx, receipt)
    return found


def step(kind: str, parameters: dict[str, Any]) -> FaultStep:
    """Write the step."""
    return FaultStep(kind=kind, links=("line",), parameters=parameters)


async def latencies(ctx: Any, kind: str, times: int) -> dict[str, float]:
    """Inject an aimed fault and take it back, some times; the medians in milliseconds."""
    injected, reverted = [], []
    for _ in range(times):
        with client(ctx.port):
            fault: Any = registry.make(kind)
            wanted = step(kind, KINDS[kind])
            await fault.aim(ctx, wanted)
            began = time.monotonic_ns()
            receipt = await fault.inject(ctx, wanted)
            injected.append((receipt.t0_mono_ns - began) / 1e6)
            began = time.monotonic_ns()
            await fault.revert(ctx, receipt)
            reverted.append((time.monotonic_ns() - began) / 1e6)
    return {
        "inject_ms": round(statistics.median(injected), 3),
        "revert_ms": round(statistics.median(reverted), 3),
    }


def after_kill(port: int) -> float:
    """Kill the process that holds a partition; returns when the link works again, in milliseconds."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        asyncio.run(_hold(port, tell))
    os.read(ready, 1)
    began = time.monotonic_ns()
    os.kill(child, signal.SIGKILL)
    while not _connects(port):
        continue
    took = (time.monotonic_ns() - began) / 1e6
    os.waitpid(child, 0)
    return took


def _connects(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.001):
        return True
    return False


async def _hold(port: int, tell: int) -> None:
    ctx: Any = Context(port)
    fault: Any = registry.make("partition")
    await fault.inject(ctx, step("partition", {}))
    os.write(tell, b"x")
    await asyncio.sleep(60)


async def measure(port: int, bare: int, messages: int, times: int) -> dict[str, Any]:
    """All of it, but for the kills."""
    ctx = Context(port)
    return {
        "cost": await costs(ctx, bare, messages),
        "faults": {kind: await latencies(ctx, kind, times) for kind in KINDS},
    }


def main() -> int:
    """Print the figures; the exit status says whether they are good enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    namespaces.enter([namespaces.NETWORK])
    servers = [socket.create_server(("127.0.0.1", 0), backlog=128) for _ in range(2)]
    for server in servers:
        serve(server)
    port, bare = (server.getsockname()[1] for server in servers)
    kills = [after_kill(port) for _ in range(arguments.times)]
    found = {"bench": "network", **asyncio.run(measure(port, bare, arguments.messages, arguments.times))}
    found["killed_ms"] = {"median": round(statistics.median(kills), 2), "max": round(max(kills), 2)}
    slowest = max(one["inject_ms"] for one in found["faults"].values())
    show: Callable[[Any], str] = json.dumps if arguments.json else lambda what: json.dumps(what, indent=2)
    print(show(found))
    return 0 if slowest <= INJECT_MS and statistics.median(kills) <= KILLED_MS else 1


if __name__ == "__main__":
    sys.exit(main())
