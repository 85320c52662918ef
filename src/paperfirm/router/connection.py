"""The TCP connection to the exchange: made again and again, with a short back-off."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import TYPE_CHECKING, cast

from paperfirm.supervisor.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from paperfirm.config import Endpoint
    from paperfirm.router.service import Router

FIRST_S, LONGEST_S, STABLE_S = 0.02, 1.0, 1.0
CONNECT_LIMIT_S = 1.0
TRY_LIMIT_S, LOOK_S = 0.5, 0.005
"""How long another gateway may take to say whether it takes orders, and how often we look."""
UNACKNOWLEDGED_MS = 1_000
"""The kernel gives the connection up when sent data stays unacknowledged for so long.

It must not deliver orders later.
"""


class ExchangeConnection(asyncio.Protocol):
    """One connection; hands bytes to the router."""

    def __init__(self, router: Router, gateway: str) -> None:
        self._router = router
        self._gateway = gateway
        self._transport: asyncio.Transport | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (called by asyncio)."""
        self._transport = cast(
            "asyncio.Transport", transport
        )  # uvloop's transports do not inherit from asyncio's
        self._router.exchange_connected(self, self._gateway)

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


async def keep_connected(router: Router, endpoints: dict[str, Endpoint], emit: Callable[..., int]) -> None:
    """Connect for ever, to the gateway where the session was last; cancel to stop.

    Another gateway is tried in the pauses between, so that the way back to the first is no longer for it.
    """
    loop = asyncio.get_running_loop()
    backoff = Backoff(first_s=FIRST_S, longest_s=LONGEST_S, stable_s=STABLE_S)
    while True:
        emit("session_connecting", attempt=backoff.failures + 1)
        favourite = router.gateways.favourite
        ran_s = await _stay(router, endpoints[favourite], favourite, emit)
        pause_ends_s = loop.time() + backoff.failed(ran_s)
        other = router.gateways.other(time.monotonic_ns())
        if other is not None and await _try(router, endpoints[other], other):
            backoff.reset()
            continue
        await asyncio.sleep(max(0.0, pause_ends_s - loop.time()))


async def _stay(router: Router, endpoint: Endpoint, gateway: str, emit: Callable[..., int]) -> float:
    """Stay connected as long as it lasts; how long that was."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    try:
        connection = await _connect(router, endpoint, gateway)
        started_s = loop.time()
        await connection.closed.wait()
    except OSError as error:
        emit("session_refused", reason=str(error))
    return loop.time() - started_s


async def _try(router: Router, endpoint: Endpoint, gateway: str) -> bool:
    """Stay there if orders are taken, else hang up soon; whether orders were taken."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + TRY_LIMIT_S
    try:
        async with asyncio.timeout_at(end_s):
            connection = await _connect(router, endpoint, gateway)
    except OSError:
        return False
    # Either of two things ends the wait, and one of them is no event.
    while not router.session_up and not connection.closed.is_set() and loop.time() < end_s:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)
    if not router.session_up:
        connection.discard()
    taken = router.session_up
    await connection.closed.wait()
    return taken


def _refuse_self_connection(sock: socket.socket) -> None:
    """By TCP's rules a loopback port on which nobody listens may, rarely, connect to itself."""
    if sock.getsockname() == sock.getpeername():
        raise OSError("connected to myself: nobody listens there")


async def _connect(router: Router, endpoint: Endpoint, gateway: str) -> ExchangeConnection:
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
        async with asyncio.timeout(CONNECT_LIMIT_S):
            await loop.sock_connect(sock, (endpoint.host, endpoint.port))
        _refuse_self_connection(sock)
        _, connection = await loop.create_connection(lambda: ExchangeConnection(router, gateway), sock=sock)
    except BaseException:
        sock.close()
        raise
    return connection
