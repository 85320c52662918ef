"""Length-prefixed msgpack frames over loopback TCP.

One protocol class, a dialler that never gives up, a listener.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

import msgspec

from paperfirm.wire import Message

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FRAME = 1 << 30
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class FrameError(Exception):
    """A peer broke the framing; says what arrived and from whom."""


def pack(message: Message) -> bytes:
    """Encode one message with its length prefix."""
    body = _encode(message)
    return len(body).to_bytes(4, "big") + body


class Splitter:
    """Cuts a byte stream into messages; keeps the unfinished rest."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages completed by `data`; raises FrameError on an impossible length or content."""
        buffer = self._rest
        buffer += data
        messages: list[Message] = []
        position, end = 0, len(buffer)
        with memoryview(buffer) as view:
            while end - position >= 4:  # noqa: PLR2004 - the length prefix
                size = int.from_bytes(view[position : position + 4], "big")
                if size > MAX_FRAME:
                    raise FrameError(
                        f"frame of {size} bytes announced; the peer does not speak this protocol"
                    )
                if end - position - 4 < size:
                    break
                messages.append(self._decode(view[position + 4 : position + 4 + size]))
                position += 4 + size
        del buffer[:position]
        return messages

    @staticmethod
    def _decode(body: memoryview) -> Message:
        try:
            message: Message = _decode(body)
        except msgspec.DecodeError as error:
            raise FrameError(f"undecodable frame of {len(body)} bytes: {error}") from error
        return message


class Link(asyncio.Protocol):
    """One framed connection. `on_message(link, message)` and `on_close(link, error)` are plain callables.

    Writes of one loop turn leave in one system call. `buffered` is what the peer has not taken yet (bytes).
    """

    def __init__(
        self,
        on_message: Callable[[Link, Message], None],
        *,
        on_open: Callable[[Link], None] | None = None,
        on_close: Callable[[Link, Exception | None], None] | None = None,
    ) -> None:
        self._on_message = on_message
        self._on_open = on_open
        self._on_close = on_close
        self._splitter = Splitter()
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.error: Exception | None = None
        self.closed = asyncio.Event()

    @property
    def connected(self) -> bool:
        """True between connection and loss."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def buffered(self) -> int:
        """Bytes written but not yet taken by the kernel."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a fresh connection (called by asyncio)."""
        no_delay(transport.get_extra_info("socket"))
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from asyncio's
        self._transport.set_write_buffer_limits(high=MAX_FRAME)
        if self._on_open is not None:
            self._on_open(self)

    def data_received(self, data: bytes) -> None:
        """Split and hand on (called by asyncio); a broken peer is disconnected."""
        try:
            messages = self._splitter.feed(data)
        except FrameError as error:
            self.error = error
            self.abort()
            return
        for message in messages:
            self._on_message(self, message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner once (called by asyncio)."""
        self._transport = None
        self._out.clear()
        self.closed.set()
        if self._on_close is not None:
            self._on_close(self, self.error or exc)

    def send(self, message: Message) -> None:
        """Queue a message for this loop turn; nothing once the connection is gone (see `connected`)."""
        if self._transport is None or self._transport.is_closing():
            return
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(pack(message))

    def flush(self) -> None:
        """Write everything queued now."""
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def close(self) -> None:
        """Flush, then close in good order."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut without flushing."""
        if self._transport is not None:
            self._transport.abort()


def no_delay(sock: socket.socket | None) -> None:
    """Switch Nagle's algorithm off: every frame is wanted at once."""
    if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def listening_socket(port: int, *, host: str = "127.0.0.1") -> socket.socket:
    """Bind with SO_REUSEPORT, beside the supervisor's reservation of the same port.

    (bound there, never listening).
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


async def listen(port: int, make: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    """Serve `make()` for every connection to a loopback port."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(make, sock=listening_socket(port), backlog=256)


async def dial(port: int, make: Callable[[], Link], *, limit_s: float = 1.0) -> Link:
    """Connect once; raises OSError (also when `limit_s` passes)."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(limit_s):
            _, link = await loop.create_connection(make, "127.0.0.1", port)
    except TimeoutError as error:
        raise OSError(f"no connection to port {port} within {limit_s} s") from error
    return link


async def keep_dialled(
    port: int, make: Callable[[], Link], *, first_s: float = 0.01, longest_s: float = 0.1
) -> None:
    """Connect, wait for the loss, connect again, for ever; the pause doubles up to `longest_s`.

    Cancel to stop.
    """
    pause_s = first_s
    while True:
        try:
            link = await dial(port, make)
        except OSError:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, longest_s)
            continue
        pause_s = first_s
        try:
            await link.closed.wait()
        except asyncio.CancelledError:
            link.close()
            raise
        await asyncio.sleep(pause_s)
