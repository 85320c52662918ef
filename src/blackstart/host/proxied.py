"""Links that lead through the proxy: what passes, what waits, what is lost.

A TCP stream loses nothing: what a partition holds back comes when it heals, as after retransmission, and
the end of a stream, a reset too, comes in its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import socket
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from blackstart.host.shaping import Fate, Line

TO_SERVER, TO_CLIENT = "to_server", "to_client"
_DROP, _RESET, _QUEUE = "drop", "reset", "queue"
_FULL = 65_536
_MOST_CLIENTS = 256
_AT_ONCE = struct.pack("ii", 1, 0)
_Write = Any


class Link:
    """One link: where it leads, and what is done to it now."""

    def __init__(self, *, stream: bool = True) -> None:
        self.stream = stream
        self.upstream: tuple[str, int] | None = None
        self.pairs: set[Pair] = set()
        self.front: Front | None = None
        """What holds the datagrams of a link that is no stream."""
        self.seen = self.hit = 0
        self.broken_by: str | None = None
        """The fault that broke it: the end of another leaves it broken."""
        self._verdict, self._sides, self._share = "", frozenset[str](), 1.0
        self._existing: set[Pair] | None = None
        self._line: Line | None = None
        self._rng = random.Random()
        self.healed = asyncio.Event()
        self.healed.set()

    def break_it(
        self, verdict: str, direction: str, *, share: float, existing: bool, line: Line, seed: int
    ) -> None:
        """Do this to it from now on; with `existing` only to the connections that there are."""
        self._rng = random.Random(seed)
        self.seen = self.hit = 0
        self._verdict, self._share, self._line = verdict, share, line
        self._sides = frozenset((TO_SERVER, TO_CLIENT) if direction == "both" else (direction,))
        self._existing = set(self.pairs) if existing else None
        self.healed.clear()
        if verdict == _RESET:
            for pair in list(self.pairs):
                self.hit += 1
                pair.abort()

        if self.narrow:
            for end in (end for pair in self.pairs for end in pair.ends):
                _narrow(end)

    @property
    def narrow(self) -> bool:
        """Whether so few bytes pass that the kernel's own buffers would hide it."""
        return self._line is not None and self._line.shape.bytes_per_s > 0

    def release(self) -> None:
        """Do nothing any more, and let go what was held."""
        self.broken_by = None
        self._verdict, self._line = "", None
        self.healed.set()
        for pair in list(self.pairs):
            pair.go_on()
        if self.front is not None:
            self.front.go_on()

    def broken(self, side: str, pair: Pair | None) -> str:
        """Say what is done to data that go to that side."""
        if not self._verdict or side not in self._sides:
            return ""
        spared = self._existing is not None and pair not in self._existing
        return "" if spared else self._verdict

    def lost(self) -> bool:
        """Draw whether a datagram is lost."""
        return self._verdict == _DROP and self._rng.random() < self._share

    def fate(self, flow: bytes, data: bytes) -> Fate:
        """Ask the bad line; only what it does something to is hit."""
        assert self._line is not None
        now = time.monotonic_ns()
        fate = self._line.fate(flow, data, len(data), now)
        self.hit += fate.due_ns is None or fate.due_ns > now or fate.payload is not None or fate.copies > 0
        return fate


def _narrow(end: asyncio.Transport) -> None:
    _set(end, socket.SO_RCVBUF, _FULL)


def _set(end: asyncio.Transport, option: int, value: int | bytes) -> None:
    """Set an option unless the end is closed: asyncio's socket refuses then, and uvloop has none any more."""
    if (opened := end.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, option, value)


class Pipe:
    """One direction of a connection. What waits is bounded: then its source is not read any more."""

    def __init__(self, link: Link, pair: Pair, side: str) -> None:
        self._link, self._pair, self._side = link, pair, side
        self._held: deque[tuple[int | None, bytes | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = 0
        self.over = False
        """Whether its end was passed on."""
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None

    def feed(self, data: bytes | None) -> None:
        """Take in what came; empty data are the end, None is a reset."""
        self._link.seen += 1
        verdict = self._link.broken(self._side, self._pair)
        self._link.hit += verdict in (_RESET, _DROP)
        if verdict == _RESET:
            self._pair.abort()
        elif verdict == _QUEUE:
            fate = self._link.fate(self._side.encode() + id(self).to_bytes(8, "big"), data or b"")
            self._hold(fate.due_ns, fate.payload or data)
        elif verdict == _DROP:
            self._hold(None, data)
        elif self._held or self.sink is None:
            self._hold(0, data)
        else:
            self._write(data)

    def go_on(self) -> None:
        """Pass on what is due, in order, and come back for the rest; all is due when nothing is broken."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._held and self.sink is not None:
            due_ns = self._held[0][0]
            if self._link.broken(self._side, self._pair):
                if due_ns is None:
                    return
                if (wait_ns := due_ns - time.monotonic_ns()) > 0:
                    self._timer = asyncio.get_running_loop().call_later(wait_ns / 1e9, self.go_on)
                    return
            self._next()

    def forget(self) -> None:
        """Hold nothing any more: nobody is left who could take it."""
        self._held.clear()
        self._waiting = 0
        self.go_on()

    def _hold(self, due_ns: int | None, data: bytes | None) -> None:
        """Keep data until they are due, without a time until the link heals."""
        self._held.append((due_ns, data))
        self._waiting += len(data or b"")
        if self._timer is None:
            self.go_on()
        if self._waiting > _FULL and self.source is not None:
            self.source.pause_reading()

    def _next(self) -> None:
        _, data = self._held.popleft()
        self._waiting -= len(data or b"")
        self._write(data)
        if self._waiting <= _FULL and self.source is not None and not self.source.is_closing():
            self.source.resume_reading()

    def _write(self, data: bytes | None) -> None:
        assert self.sink is not None
        if self.sink.is_closing():
            return
        if data is None:
            _reset_behind(self.sink)
            return
        if data:
            self.sink.write(data)
            return
        if self.sink.can_write_eof():
            self.sink.write_eof()
        self.over = True
        self._pair.passed_on()


class End(asyncio.Protocol):
    """One side's connection to us."""

    def __init__(self, pair: Pair, into: Pipe, out: Pipe) -> None:
        self._pair, self._into, self._out = pair, into, out

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join it to the pipes; what waits for it goes on."""
        joined = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._into.source = self._out.sink = joined
        self._pair.ends.append(joined)
        if self._pair.over:
            _reset(joined)
        elif self._pair.link.narrow:
            _narrow(joined)

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self._into.feed(data)

    def eof_received(self) -> bool:
        """Pass the end on; the other direction may go on.

        Without the proxy whoever gives up before the link heals would never have been connected.
        """
        if self._pair.waits:
            self._pair.over = True
            return False
        self._into.feed(b"")
        return True

    def pause_writing(self) -> None:
        """Its receiver is slow: so are we to its sender."""
        if self._out.source is not None:
            self._out.source.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if self._out.source is not None and not self._out.source.is_closing():
            self._out.source.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass a reset on, as the link passes on data; where there was none we have ended both sides."""
        self._pair.ended(self._into, abruptly=exc is not None)


class Pair:
    """A client's connection and ours to the server."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.ends: list[asyncio.Transport] = []
        self.there, self.back = Pipe(link, self, TO_SERVER), Pipe(link, self, TO_CLIENT)
        self._connecting: asyncio.Task[None] | None = None
        self.over = False
        """Whether one end has gone, or both were reset: whoever connects now would have nobody to talk to."""
        self.waits = False
        """Whether the connection to the server is not even tried before the link heals."""
        link.pairs.add(self)

    def accepted(self) -> asyncio.Protocol:
        """Make the client's end, and begin to connect to the server."""
        self._connecting = asyncio.ensure_future(self._connect())
        return End(self, self.there, self.back)

    async def _connect(self) -> None:
        link = self.link
        if link.broken(TO_SERVER, self) == _RESET or link.upstream is None:
            link.hit += 1
            self.abort()
            return
        if link.broken(TO_SERVER, self) == _DROP or link.broken(TO_CLIENT, self) == _DROP:
            link.hit += 1
            self.waits = True
            await link.healed.wait()
            self.waits = False
            if self.over:
                return
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: End(self, self.back, self.there), *link.upstream)
        except OSError:
            self.abort()
            return
        self.go_on()

    def go_on(self) -> None:
        """Let go what need not be held any more, in both directions."""
        self.there.go_on()
        self.back.go_on()

    def abort(self) -> None:
        """Reset both connections."""
        self.over = True
        self.link.pairs.discard(self)
        for end in self.ends:
            _reset(end)

    def ended(self, pipe: Pipe, *, abruptly: bool) -> None:
        """Have the other end, once this pipe's is gone, learn of a reset behind what was said before it."""
        self.over = True
        self.ends = [end for end in self.ends if end is not pipe.source]
        if not self.ends:
            self.link.pairs.discard(self)
            self.there.forget()
            self.back.forget()
        elif abruptly:
            pipe.feed(None)

    def passed_on(self) -> None:
        """Close both connections once the ends of both directions have been passed on."""
        if self.there.over and self.back.over:
            self.link.pairs.discard(self)
            for end in self.ends:
                end.close()


def _reset(end: asyncio.Transport) -> None:
    """Have the kernel send a reset now."""
    _set(end, socket.SO_LINGER, _AT_ONCE)
    end.abort()


def _reset_behind(end: asyncio.Transport) -> None:
    """Have the kernel send a reset once it has taken what was written: uvloop writes only after a while."""
    _set(end, socket.SO_LINGER, _AT_ONCE)
    end.close()


async def serve_tcp(link: Link, host: str, port: int) -> int:
    """Listen; returns the port. Raises OSError."""
    server = await asyncio.get_running_loop().create_server(lambda: Pair(link).accepted(), host, port)
    return int(server.sockets[0].getsockname()[1])


class _Back(asyncio.DatagramProtocol):
    """Our socket towards the server for one client."""

    def __init__(self, front: Front, client: Any) -> None:
        self._front, self._client = front, client

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Bring the answer to its client."""
        del addr
        self._front.pass_on(data, TO_CLIENT, lambda sent: self._front.send(sent, self._client))


class Front(asyncio.DatagramProtocol):
    """The socket to which clients send datagrams."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._transport: Any = None
        self._backs: dict[Any, asyncio.Task[Any]] = {}
        self._held: list[tuple[int, int, _Write, bytes]] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        link.front = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it to answer."""
        self._transport = transport

    def send(self, data: bytes, client: Any) -> None:
        """Send to a client."""
        self._transport.sendto(data, client)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Bring it to the server, from a socket of this client's own."""
        if self._link.upstream is None:
            return
        back = self._back(addr)
        self.pass_on(data, TO_SERVER, lambda sent: back.add_done_callback(lambda task: _send(task, sent)))

    def _back(self, client: Any) -> asyncio.Task[Any]:
        """Return the client's own socket; of many, who was silent for longest loses it."""
        back = self._backs.pop(client, None)
        if back is None or (back.done() and _opened(back) is None):
            back = asyncio.ensure_future(self._open(client))
        self._backs[client] = back
        if len(self._backs) > _MOST_CLIENTS:
            self._backs.pop(next(iter(self._backs))).add_done_callback(_close)
        return back

    async def _open(self, client: Any) -> Any:
        loop = asyncio.get_running_loop()
        upstream = self._link.upstream
        return await loop.create_datagram_endpoint(lambda: _Back(self, client), remote_addr=upstream)

    def pass_on(self, data: bytes, side: str, send: _Write) -> None:
        """Send it now, later, twice, damaged, or not at all."""
        link = self._link
        link.seen += 1
        verdict = link.broken(side, None)
        if verdict == _QUEUE:
            fate = link.fate(side.encode(), data)
            if fate.due_ns is None:
                return
            for _ in range(1 + fate.copies):
                self._count += 1
                heapq.heappush(self._held, (fate.due_ns, self._count, send, fate.payload or data))
            self.go_on()
        elif verdict and link.lost():
            link.hit += 1
        else:
            send(data)

    def go_on(self) -> None:
        """Send what is due, in the order in which it is, and come back for the rest; in a healed link all is.

        Timers of their own would fire in any order.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        healed = self._link.healed.is_set()
        while self._held and (healed or self._held[0][0] <= time.monotonic_ns()):
            _, _, send, data = heapq.heappop(self._held)
            send(data)
        if self._held:
            wait_s = max(0, self._held[0][0] - time.monotonic_ns()) / 1e9
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.go_on)


def _opened(task: asyncio.Task[Any]) -> Any:
    """Return the socket that a task has opened; None when it could not, or it was closed since."""
    failed = task.cancelled() or task.exception() is not None
    return None if failed or task.result()[0].is_closing() else task.result()[0]


def _send(task: asyncio.Task[Any], data: bytes) -> None:
    if (opened := _opened(task)) is not None:
        opened.sendto(data)


def _close(task: asyncio.Task[Any]) -> None:
    if (opened := _opened(task)) is not None:
        opened.close()


async def serve_udp(link: Link, host: str, port: int) -> int:
    """Listen; returns the port. Raises OSError."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Front(link), local_addr=(host, port))
    return int(transport.get_extra_info("sockname")[1])
