"""Breaks a link in a network of its own and says what became of it: run by test_network.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.engine import verbs
from blackstart.engine.clocks import SystemClock
from blackstart.faults import registry
from blackstart.host import namespaces
from blackstart.model.manifest import Link, Manifest, ProxySpec
from blackstart.model.record import Reverted
from blackstart.model.scenario import FaultStep
from blackstart.target.proxies import Proxies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from blackstart.model.fault import Undo

COUNT = 100
GROUP = "239.7.7.7"
WAIT_S = 0.3


class Context:
    """Implements FaultContext around two servers; the undos are kept for the end."""

    def __init__(self, ports: dict[str, int], *, by_proxy: bool = False, own: bool = True) -> None:
        leads = {
            name: ProxySpec(listen="127.0.0.1:0", upstream=f"127.0.0.1:{port}")
            for name, port in ports.items()
        }
        proxies = leads if by_proxy else dict.fromkeys(ports)
        links = {
            "line": Link(ports=(str(ports["line"]),), proxy=proxies["line"]),
            "quotes": Link(ports=(str(ports["quotes"]),), protocol="udp", proxy=proxies["quotes"]),
        }
        if "tape" in ports:
            links["tape"] = Link(ports=(str(ports["tape"]),), protocol="udp", group=GROUP)
        private: tuple[Any, ...] = ("network",) if own else ()
        self.manifest = Manifest(schema=1, name="here", isolation=private, links=links)
        self.values: dict[str, Any] = {}
        self.proxies = Proxies(self.manifest, self.values, self.protect)
        self.name, self.ports = "here", ports
        self.clock, self.oracle = SystemClock(), None
        self.plan: Any = SimpleNamespace(seed=7, trial_id="X")
        self.isolation = frozenset(private)
        self.undos: dict[str, Undo] = {}
        self.records: list[Any] = []

    @property
    def target(self) -> Any:
        """This very object."""
        return self

    async def ask_proxy(self, link: str, do: str, values: Any) -> Any:
        """Ask the proxy."""
        return await self.proxies.ask(link, do, values)

    @property
    def proxy_pid(self) -> int:
        """The proxy's process."""
        return self.proxies.pid

    def link_ports(self, name: str) -> Sequence[int]:
        """Tell the port."""
        return [self.ports[name]]

    async def protect(self, undos: Iterable[Undo]) -> None:
        """Note the undos."""
        self.undos |= {one.id: one for one in undos}

    def record(self, record: Any) -> None:
        """Note the record."""
        self.records.append(record)


class Line:
    """A TCP server that echoes, and a client."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.to = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        self.client = self.connect()

    def connect(self) -> socket.socket:
        """Make one more connection."""
        client = socket.create_connection(("127.0.0.1", self.to), timeout=WAIT_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def _accept(self) -> None:
        while True:
            link, _ = self.server.accept()
            threading.Thread(target=self._echo, args=(link,), daemon=True).start()

    def _echo(self, link: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := link.recv(65536):
                if data != b"s" * len(data):  # what fills the line is swallowed
                    link.sendall(data)

    def measure(self, phase: str) -> dict[str, Any]:
        """Ask and wait for the answers; then see whether another connection works."""
        took, lost, error = [], 0, ""
        if phase == "after":
            self._wait_until_healed()
        for _ in range(COUNT if phase == "before" else 3):
            began = time.monotonic()
            try:
                self.client.sendall(b"x")
                assert self.client.recv(10)
                took.append((time.monotonic() - began) * 1000)
            except OSError as problem:
                lost += 1
                error = "" if isinstance(problem, TimeoutError) else type(problem).__name__
                if error:
                    break
        return {
            "sent": len(took) + lost,
            "lost": lost,
            "error": error,
            "least_ms": min(took, default=0),
            "again": self._again(),
        }

    def _wait_until_healed(self) -> None:
        """Use the same connection as soon as the kernel has tried again; a reset one is made anew."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                self.client.sendall(b"x")
                if self.client.recv(1000):
                    break
            except TimeoutError:
                continue
            except OSError:
                self.client = self.connect()
        with contextlib.suppress(TimeoutError):
            while self.client.recv(1000):
                continue

    def _again(self) -> str:
        try:
            with self.connect() as another:
                another.sendall(b"y")
                return "answers" if another.recv(10) else "ends"
        except OSError as problem:
            return type(problem).__name__

    def throughput(self) -> dict[str, Any]:
        """Send for a second as fast as it goes, on a connection of its own; count what was taken in."""
        with self.connect() as filling:
            filling.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
            sent, began = 0, time.monotonic()
            while (passed := time.monotonic() - began) < 1.0:
                with contextlib.suppress(TimeoutError):
                    sent += filling.send(b"s" * 8192)
            return {"sent": 1, "lost": 0, "bytes_per_s": sent / passed}

    def stream(self) -> dict[str, Any]:
        """Send two megabytes on a connection of its own; see whether the echo is what was sent."""
        sent = random.Random(7).randbytes(2_000_000)
        back = bytearray()
        with self.connect() as through:
            through.settimeout(20)
            writer = threading.Thread(target=through.sendall, args=(sent,), daemon=True)
            writer.start()
            with contextlib.suppress(TimeoutError):
                while len(back) < len(sent):
                    back += through.recv(65536)
            writer.join(1)
        return {"sent": 1, "lost": int(len(back) < len(sent)), "intact": bytes(back) == sent}


class Quotes:
    """A UDP server that echoes, and a client."""

    def __init__(self) -> None:
        self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.server.bind(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.heard: list[bytes] = []
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client.connect(("127.0.0.1", self.port))
        self.client.settimeout(WAIT_S)
        threading.Thread(target=self._echo, daemon=True).start()

    def _echo(self) -> None:
        while True:
            data, sender = self.server.recvfrom(1000)
            self.heard.append(data)
            self.server.sendto(data, sender)

    def measure(self, _phase: str) -> dict[str, Any]:
        """Send numbered datagrams, collect what comes back."""
        self.heard.clear()
        began, back = {}, dict[bytes, int]()
        collecting = threading.Thread(target=self._collect, args=(back,))
        collecting.start()
        sent = [f"{number:08d}".encode() for number in range(COUNT)]
        for one in sent:
            began[one] = time.monotonic_ns()
            self._send(one)
            time.sleep(0.0005)
        collecting.join()
        took = [(back[one] - began[one]) / 1e6 for one in sent if one in back]
        arrived = [back[one] for one in sent if one in back]
        return {
            "sent": len(sent),
            "lost": len(set(sent) - set(back)),
            "heard_by_server": len(self.heard),
            "order_kept": self.heard == sorted(self.heard),
            "unchanged": sum(one == two for one, two in zip(sent, self.heard, strict=False)),
            "least_ms": min(took, default=0),
            "most_ms": max(took, default=0),
            "lasted_ms": (max(arrived) - min(arrived)) / 1e6 if arrived else 0,
        }

    def _send(self, one: bytes) -> None:
        self.client.send(one)

    def _collect(self, back: dict[bytes, int]) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                one = self.client.recv(1000)
                back.setdefault(one, time.monotonic_ns())


class Tape(Quotes):
    """A server that sends to a multicast group, and one that listens there: it is who hears, and no echo."""

    def __init__(self) -> None:
        here = socket.inet_aton("127.0.0.1")
        self.speaker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.speaker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client.bind((GROUP, 0))
        self.client.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + here)
        self.client.settimeout(WAIT_S)
        self.port = self.client.getsockname()[1]
        self.heard = []

    def _send(self, one: bytes) -> None:
        self.speaker.sendto(one, (GROUP, self.port))

    def _collect(self, back: dict[bytes, int]) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                one = self.client.recv(1000)
                self.heard.append(one)
                back.setdefault(one, time.monotonic_ns())


async def trial(told: dict[str, Any]) -> dict[str, Any]:
    """Measure, break, measure, take back, measure."""
    line, quotes = Line(), Quotes()
    by_proxy = told["parameters"].get("mechanism") == "proxy"
    ports = {"line": line.port, "quotes": quotes.port}
    tape = None if by_proxy else Tape()
    if tape is not None:
        ports["tape"] = tape.port
    ctx: Any = Context(ports, by_proxy=by_proxy, own=told["own"])
    if by_proxy:
        await ctx.proxies.start()
        await ctx.proxies.lead()
        leads = {name: int(address.rpartition(":")[2]) for name, address in ctx.values["proxy"].items()}
        line.to = leads["line"]
        line.client = line.connect()
        quotes.client.connect(("127.0.0.1", leads["quotes"]))
    fault: Any = registry.make(told["kind"])
    step = FaultStep(kind=told["kind"], links=(told["link"],), parameters=told["parameters"])
    sides = {"line": line.measure, "quotes": quotes.measure, "tape": tape.measure if tape else None}
    measure: Callable[[str], dict[str, Any]] = sides[told["link"]]  # type: ignore[assignment]
    if told["link"] == "line" and told["kind"] in ("reorder", "duplicate_packets", "corrupt_packets"):
        measure = lambda _: line.stream()  # noqa: E731
    if told["link"] == "line" and told["kind"] in ("bandwidth", "slow_reader"):
        measure = lambda phase: line.throughput() if phase != "after" else line.measure(phase)  # noqa: E731
    found: dict[str, Any] = {"unavailable": fault.unavailable(ctx.manifest, step)}
    found["before"] = await asyncio.to_thread(measure, "before")
    found["began_ns"] = time.monotonic_ns()
    receipt = await fault.inject(ctx, step)
    assert {one.id for one in receipt.undo} <= ctx.undos.keys(), "protected before it was broken"
    found["receipt"] = msgspec.to_builtins(receipt)
    found["during"] = await asyncio.to_thread(measure, "during")
    found["witness"] = msgspec.to_builtins(await fault.witness(ctx, receipt))
    await fault.revert(ctx, receipt)
    await fault.revert(ctx, receipt)
    found["undone"] = [verbs.begin(one.action, one.arguments, "/")()[0] for one in receipt.undo]
    told_floor = [one for one in ctx.records if isinstance(one, Reverted)]
    found["floor"], found["last"] = told_floor[0].evidence, told_floor[0].evidence["counted"]
    found["after"] = await asyncio.to_thread(measure, "after")
    await ctx.proxies.close()
    return found


def killed() -> dict[str, Any]:
    """Break a link from a child, kill the child, and see when the link works again."""
    line = Line()
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        asyncio.run(_break_and_hang(line.port, tell))
    os.read(ready, 1)
    line.client.settimeout(0.05)
    broken = line.measure("during")["lost"] > 0
    os.kill(child, signal.SIGKILL)
    began = time.monotonic()
    os.waitpid(child, 0)
    healed = None
    while healed is None and time.monotonic() - began < 10:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", line.port), timeout=0.02):
            healed = (time.monotonic() - began) * 1000
    return {"broken": broken, "healed_after_ms": healed}


async def _break_and_hang(port: int, tell: int) -> None:
    ctx: Any = Context({"line": port, "quotes": 1})
    fault: Any = registry.make("partition")
    await fault.inject(ctx, FaultStep(kind="partition", links=("line",)))
    os.write(tell, b"x")
    await asyncio.sleep(60)


def main() -> None:
    """Run as a process."""
    told = json.loads(sys.argv[1])
    if told["own"]:
        namespaces.enter(["network"])  # also brings the loopback interface up inside `unshare -Urn`
    print(json.dumps(killed() if told.get("kill") else asyncio.run(trial(told))))


main()
