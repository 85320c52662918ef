"""What the proxy holds when a connection or a fault ends: it comes in its turn, and the end comes behind it.

By uvloop, as the proxy runs: that forgets the socket of a closed connection, and writes only after a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import uvloop

from blackstart.host.proxied import Link, serve_tcp, serve_udp
from blackstart.host.shaping import Line, Shape

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SAID = b"x" * 50_000
HOUR_MS = 3_600_000.0


class Side(NamedTuple):
    """One side's connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def reset(self) -> None:
        """Die of it."""
        lingers = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingers)
        self.writer.transport.abort()

    async def heard(self) -> tuple[bytes, bool]:
        """Return what comes until the end, and whether that is a reset."""
        heard = b""
        async with asyncio.timeout(5):
            try:
                while data := await self.reader.read(65_536):
                    heard += data
            except ConnectionResetError:
                return heard, True
        return heard, False


def descriptors() -> int:
    """Count our own, less what earlier tests have only forgotten to close."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.asynccontextmanager
async def connected(link: Link) -> AsyncIterator[tuple[Side, Side]]:
    """Connect a client to a server through the link; afterwards nothing may be left of it."""
    accepted: asyncio.Queue[Side] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.put_nowait(Side(reader, writer))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    link.upstream = listening.sockets[0].getsockname()
    port = await serve_tcp(link, "127.0.0.1", 0)
    before = descriptors()
    client = Side(*await asyncio.open_connection("127.0.0.1", port))
    server = await accepted.get()
    await asyncio.sleep(0.02)
    yield client, server
    client.writer.close()
    server.writer.close()
    await asyncio.sleep(0.1)
    assert not link.pairs, "the proxy still holds a connection of which nobody is left"
    assert descriptors() == before, "a socket was left open"
    listening.close()


def break_it(link: Link, verdict: str, shape: Shape, direction: str = "both") -> None:
    """Do it to everybody."""
    line = Line(shape, random.Random(1))
    link.break_it(verdict, direction, share=1.0, existing=False, line=line, seed=1)


PARTITION, LATE, NARROW = (
    ("drop", Shape()),
    ("queue", Shape(delay_ms=300.0)),
    ("queue", Shape(bytes_per_s=2e5)),
)
HOLDING = [
    pytest.param(*PARTITION, True, id="partition"),
    pytest.param(*LATE, True, id="latency-released"),
    pytest.param(*LATE, False, id="latency-runs-dry"),
    pytest.param(*NARROW, True, id="bandwidth-released"),
    pytest.param(*NARROW, False, id="bandwidth-runs-dry"),
]


@pytest.mark.parametrize(("verdict", "shape", "released"), HOLDING)
def test_a_reset_comes_behind_what_was_said_before_it(verdict: str, shape: Shape, *, released: bool) -> None:
    """Sooner would lose a part of the stream, and never would leave the server alone with its connection."""

    async def run() -> tuple[bytes, bool]:
        link = Link()
        async with connected(link) as (client, server):
            break_it(link, verdict, shape)
            client.writer.write(SAID)
            await asyncio.sleep(0.05)
            client.reset()
            await asyncio.sleep(0.05)
            if released:
                link.release()
            return await server.heard()

    assert uvloop.run(run()) == (SAID, True)


def test_a_reset_takes_as_long_as_data_do() -> None:
    """On a line with latency the other side does not know at once, also when nothing was said."""

    async def run() -> float:
        link = Link()
        async with connected(link) as (client, server):
            break_it(link, *LATE)
            begin = time.monotonic()
            client.reset()
            assert await server.heard() == (b"", True)
            return time.monotonic() - begin

    assert uvloop.run(run()) >= 0.3


def test_a_half_closed_connection_has_its_whole_answer_before_the_reset() -> None:
    """Who asks, says that this was all, and waits, hears what was answered before the server died."""

    async def run() -> list[tuple[bytes, bool]]:
        link = Link()
        async with connected(link) as (client, server):
            break_it(link, *LATE)
            client.writer.write(SAID)
            client.writer.write_eof()
            asked = await server.heard()
            server.writer.write(SAID)
            await asyncio.sleep(0.05)
            server.reset()
            return [asked, await client.heard()]

    assert uvloop.run(run()) == [(SAID, False), (SAID, True)]


def test_a_reset_passes_a_partition_of_the_other_direction() -> None:
    """What goes to the client is not broken: it learns at once, and what was held for the server is void."""

    async def run() -> tuple[bytes, bool]:
        link = Link()
        async with connected(link) as (client, server):
            break_it(link, "drop", Shape(), "to_server")
            client.writer.write(SAID)
            await asyncio.sleep(0.05)
            server.reset()
            return await client.heard()

    assert uvloop.run(run()) == (b"", True)


@pytest.mark.parametrize("shape", [Shape(delay_ms=HOUR_MS), Shape(bytes_per_s=1.0)], ids=["late", "narrow"])
def test_nothing_is_held_for_whom_nobody_is_left(shape: Shape) -> None:
    """Both sides died long before what they had said was due."""

    async def run() -> None:
        link = Link()
        async with connected(link) as (client, server):
            break_it(link, "queue", shape)
            for side in (client, server):
                side.writer.write(SAID)
            await asyncio.sleep(0.05)
            for side in (client, server):
                side.reset()

    uvloop.run(run())


LATE_DATAGRAMS = [
    pytest.param(Shape(delay_ms=HOUR_MS), id="latency"),
    pytest.param(Shape(delay_ms=HOUR_MS, jitter_ms=HOUR_MS / 2), id="jitter"),
    pytest.param(Shape(bytes_per_s=1.0, buffer_bytes=262_144.0), id="bandwidth"),
]


class Heard(asyncio.DatagramProtocol):
    """One side's socket: what it heard, and where it answers."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.peer: Any = None

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Keep it."""
        self.heard.append(data)
        self.peer = addr


@pytest.mark.parametrize("shape", LATE_DATAGRAMS)
def test_datagrams_that_are_held_go_when_the_fault_ends(shape: Shape) -> None:
    """All of both directions, in their order, and before those that come later: the link is healed then."""

    async def run() -> list[list[bytes]]:
        loop, link = asyncio.get_running_loop(), Link(stream=False)
        server, there = await loop.create_datagram_endpoint(Heard, local_addr=("127.0.0.1", 0))
        link.upstream = server.get_extra_info("sockname")
        port = await serve_udp(link, "127.0.0.1", 0)
        client, back = await loop.create_datagram_endpoint(Heard, remote_addr=("127.0.0.1", port))
        client.sendto(b"first")
        await asyncio.sleep(0.05)
        server.sendto(b"first", there.peer)
        await asyncio.sleep(0.05)
        break_it(link, "queue", shape)
        for number in range(3):
            client.sendto(b"held%d" % number)
            server.sendto(b"held%d" % number, there.peer)
        await asyncio.sleep(0.05)
        link.release()
        client.sendto(b"new")
        server.sendto(b"new", there.peer)
        await asyncio.sleep(0.05)
        return [there.heard, back.heard]

    assert uvloop.run(run()) == [[b"first", b"held0", b"held1", b"held2", b"new"]] * 2
