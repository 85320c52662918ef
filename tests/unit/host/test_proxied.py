"""The proxy's narrow line: what has no room waits, whatever the size in which it comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from blackstart.engine import verbs
from blackstart.host.proxied import TO_SERVER, Front, Link, Pair, serve_tcp
from blackstart.host.proxy import Proxy, control
from blackstart.host.shaping import Line, Shape

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK = b"x" * 200_000


class Sink:
    """Stands for the connection to the server."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def is_closing(self) -> bool:
        """Say that it is open."""
        return False

    def write(self, data: bytes) -> None:
        """Keep what was passed on."""
        self.written.append(data)


async def narrow() -> Link:
    """Make a stream's link whose line carries a megabyte a second and has room for a quarter of one."""
    return await bad(Shape(bytes_per_s=1e6, buffer_bytes=262_144.0))


async def bad(shape: Shape, *, stream: bool = True) -> Link:
    """Make a link with a bad line towards the server."""
    proxy, link = Proxy(), Link(stream=stream)
    proxy.links["line"] = link
    told = {"verdict": "queue", "direction": TO_SERVER, "share": 1.0, "existing": False, "seed": 1, "by": "x"}
    await proxy.answer({"do": "break", "link": "line", "shape": shape._asdict(), **told})
    return link


def passed_on(chunks: Sequence[bytes]) -> tuple[int, int]:
    """Feed it all at once; return how many bytes had passed then, and after the link was healed."""

    async def run() -> tuple[int, int]:
        link = await narrow()
        pair, sink = Pair(link), Sink()
        pair.there.sink = cast("Any", sink)
        for chunk in chunks:
            pair.there.feed(chunk)
        await asyncio.sleep(0)
        at_once = len(b"".join(sink.written))
        link.release()
        assert sink.written == list(chunks)
        return at_once, len(b"".join(sink.written))

    return asyncio.run(run())


def test_what_has_no_room_in_a_narrow_line_waits_with_its_sender() -> None:
    """A stream loses nothing, and nothing of it passes at once because the line is full already."""
    assert passed_on([CHUNK] * 6) == (0, 6 * len(CHUNK))


def test_what_waits_for_the_server_waits_for_the_line_too() -> None:
    """Data that came before the connection to the server stood are not let go when it does."""

    async def run() -> list[bytes]:
        link = await narrow()
        pair, sink = Pair(link), Sink()
        pair.there.feed(CHUNK)
        pair.there.sink = cast("Any", sink)
        pair.go_on()
        return sink.written

    assert asyncio.run(run()) == []


RARELY = 1e-9
SHAPES = (
    (Shape(corrupt=RARELY), Shape(corrupt=1.0)),
    (Shape(duplicate=RARELY), Shape(duplicate=1.0)),
    (Shape(reorder=RARELY), Shape(reorder=1.0)),
    (Shape(), Shape(delay_ms=1.0)),
    (Shape(), Shape(bytes_per_s=1e6)),
)


@pytest.mark.parametrize(("spared", "hit"), SHAPES)
@pytest.mark.parametrize("stream", [True, False])
def test_what_passes_a_bad_line_untouched_was_not_hit(spared: Shape, hit: Shape, *, stream: bool) -> None:
    """That it went through the line is not enough: it came later, otherwise, twice, or not at all."""

    async def counted(shape: Shape) -> tuple[int, int]:
        link = await bad(shape, stream=stream)
        if stream:
            pair = Pair(link)
            pair.there.sink = cast("Any", Sink())
            pair.there.feed(b"x")
        else:
            Front(link).pass_on(b"x", TO_SERVER, lambda _: None)
        return link.seen, link.hit

    assert asyncio.run(counted(spared)) == (1, 0)
    if not (stream and hit.duplicate):  # no packets, so nothing is doubled: such a fault is refused
        assert asyncio.run(counted(hit)) == (1, 1)


@pytest.mark.parametrize("linger", [None, struct.pack("ii", 1, 0)], ids=["closes", "resets"])
@pytest.mark.parametrize("speaks", [True, False])
def test_who_gave_up_during_a_partition_never_reaches_the_server(
    linger: bytes | None, *, speaks: bool
) -> None:
    """Its attempt to connect would have failed; who is patient is connected when the link heals."""

    async def run() -> list[bytes]:
        heard: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                heard.append(await reader.read(100))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1")
        link = Link()
        link.upstream = server.sockets[0].getsockname()
        port = await serve_tcp(link, "127.0.0.1", 0)
        line = Line(Shape(), random.Random(1))
        link.break_it("drop", "both", share=1.0, existing=False, line=line, seed=1)
        patient, impatient = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        patient[1].write(b"patient")
        if speaks:
            impatient[1].write(b"impatient")
        if linger is not None:
            impatient[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        impatient[1].close()
        await asyncio.sleep(0.05)
        link.release()
        async with asyncio.timeout(5):
            await patient[0].read()
        patient[1].close()
        await asyncio.sleep(0.05)
        assert not link.pairs, "a connection that ended on both sides is still held"
        server.close()
        return heard

    assert asyncio.run(run()) == [b"patient"]


def test_who_is_reset_while_the_server_is_being_connected_leaves_no_connection_behind() -> None:
    """The connection that comes too late ends as the other did."""

    async def run() -> bytes:
        ended = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                ended.set_result(await reader.read(100))
            except ConnectionError:
                ended.set_result(b"reset")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1")
        pair = Pair(Link())
        pair.link.upstream = server.sockets[0].getsockname()
        pair.accepted()
        await asyncio.sleep(0)
        pair.there.feed(b"logon")
        pair.abort()
        async with asyncio.timeout(5):
            said = await ended
        server.close()
        return cast("bytes", said)

    assert asyncio.run(run()) in (b"", b"reset")


def sockets() -> int:
    """Count our own open sockets."""
    links = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return sum(str(entry.readlink()).startswith("socket:") for entry in links)


class Counts(asyncio.DatagramProtocol):
    """A server that counts its datagrams and answers none."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Count it."""
        del addr
        self.heard.append(data)


def test_many_udp_clients_hold_a_bounded_number_of_sockets() -> None:
    """A client with a new port for each datagram is served, and does not use up the descriptors."""

    async def run() -> tuple[int, list[bytes]]:
        loop = asyncio.get_running_loop()
        server, counts = await loop.create_datagram_endpoint(Counts, local_addr=("127.0.0.1", 0))
        link = Link(stream=False)
        link.upstream = server.get_extra_info("sockname")
        front, before = Front(link), sockets()
        for number in range(600):
            front.datagram_received(str(number).encode(), ("127.0.0.1", number))
            await asyncio.sleep(0.001)
        held = sockets() - before
        server.close()
        return held, counts.heard

    held, heard = asyncio.run(run())
    assert heard == [str(number).encode() for number in range(600)]
    assert held <= 257


def test_a_udp_client_whose_socket_could_not_be_opened_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """One failure is not for ever."""

    async def run() -> list[bytes]:
        loop = asyncio.get_running_loop()
        server, counts = await loop.create_datagram_endpoint(Counts, local_addr=("127.0.0.1", 0))
        link = Link(stream=False)
        link.upstream = server.get_extra_info("sockname")
        front = Front(link)

        async def fail(*_: Any, **__: Any) -> None:
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as patched:
            patched.setattr(loop, "create_datagram_endpoint", fail)
            front.datagram_received(b"lost", ("127.0.0.1", 1))
            await asyncio.sleep(0.01)
        front.datagram_received(b"heard", ("127.0.0.1", 1))
        await asyncio.sleep(0.05)
        server.close()
        return counts.heard

    assert asyncio.run(run()) == [b"heard"]


TOLD = {"verdict": "drop", "direction": "both", "share": 1.0, "existing": False, "seed": 1, "do": "break"}


def test_the_end_of_one_fault_leaves_the_other_links_broken() -> None:
    """The guardian's verb ends the fault that it names, and no second one is put on top of a first."""

    async def run() -> dict[str, str | None]:
        proxy = Proxy()
        proxy.links |= {name: Link() for name in ("orders", "quotes", "drops")}
        served = await asyncio.start_unix_server(proxy.released, f"\0{control(os.getpid())}")
        told = TOLD | {"shape": Shape()._asdict()}
        for name, by in (("orders", "one"), ("quotes", "two"), ("drops", "one")):
            assert "before_ns" in await proxy.answer({**told, "link": name, "by": by})
        assert await proxy.answer({**told, "link": "orders", "by": "two"}) == {"broken_by": "one"}
        await proxy.answer({"do": "release", "link": "drops", "by": "two"})
        assert proxy.links["drops"].broken(TO_SERVER, None) == "drop"
        undo = {"pid": os.getpid(), "by": "one"}
        for _ in range(2):
            paid = await asyncio.to_thread(verbs.begin("proxy", undo, "/"))
            assert paid == (True, {"answer": "released"})
        served.close()
        return {name: link.broken(TO_SERVER, None) for name, link in proxy.links.items()}

    assert asyncio.run(run()) == {"orders": "", "quotes": "drop", "drops": ""}
