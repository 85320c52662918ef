"""The TCP connection to the exchange: made again and again, with a short back-off."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, cast

from paperfirm.supervisor.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from paperfirm.config import Endpoint
    from paperfirm.router.service import Router

FIRST_S, LONGEST_S, STABLE_S = 0.02, 1.0, 1.0
CONNECT_LIMIT_S = 1.0
UNACKNOWLEDGED_MS = 1_000
"""The kernel gives the connection up when sent data stays unacknowledged for so long.

It must not deliver orders later.
"""


class ExchangeConnection(asyncio.Protocol):
    """One connection; hands bytes to the router."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._transport: asyncio.Transport | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (called by asyncio)."""
        self._transport = cast(
            "asyncio.Transport", transport
        )  # uvloop's transports do not inherit from asyncio's
        self._router.exchange_connected(self)

    def data_received(self, data: bytes) -> None:
        """Hand on (called by asyncio)."""
        self._router.exchange_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """End (called by asyncio)."""
        self._transport = None
        self.closed.set()
        self._router.exchange_lost(str(exc) if exc else "closed by the exchange or by us")

    def write(self, data: bytes) -> None:
        """Queue bytes."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Close after what is queued."""
        if self._transport is not None:
            self._transport.close()

    def discard(self) -> None:
        """Reset the connection: neither we nor the kernel deliver what is queued."""
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def backlog(self) -> int:
        """Return the bytes that the kernel has not taken."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0


async def keep_connected(router: Router, endpoint: Endpoint, emit: Callable[..., int]) -> None:
    """Connect for ever; cancel to stop."""
    loop = asyncio.get_running_loop()
    backoff = Backoff(first_s=FIRST_S, longest_s=LONGEST_S, stable_s=STABLE_S)
    while True:
        emit("session_connecting", attempt=backoff.failures + 1)
        started_s = loop.time()
        try:
            connection = await _connect(router, endpoint)
            started_s = loop.time()
            await connection.closed.wait()
        except OSError as error:
            emit("session_refused", reason=str(error))
        await asyncio.sleep(backoff.failed(loop.time() - started_s))


def _refuse_self_connection(sock: socket.socket) -> None:
    """By TCP's rules a loopback port on which nobody listens may, rarely, connect to itself."""
    if sock.getsockname() == sock.getpeername():
        raise OSError("connected to myself: nobody listens there")


async def _connect(router: Router, endpoint: Endpoint) -> ExchangeConnection:
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
        async with asyncio.timeout(CONNECT_LIMIT_S):
            await loop.sock_connect(sock, (endpoint.host, endpoint.port))
        _refuse_self_connection(sock)
        _, connection = await loop.create_connection(lambda: ExchangeConnection(router), sock=sock)
    except BaseException:
        sock.close()
        raise
    return connection
