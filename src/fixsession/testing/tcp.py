"""A peer behind TCP: any FIX acceptor."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from fixsession.errors import FixError

if TYPE_CHECKING:
    from collections.abc import Mapping


class TcpPeer:
    """Connects to `host`:`port`, or to one of the other `gateways`; a reset counts as a close."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        limit_s: float = 5.0,
        gateways: Mapping[str, tuple[str, int]] | None = None,
    ) -> None:
        self._addresses = {"": (host, port), **(gateways or {})}
        self._limit_s = limit_s
        self._sockets: dict[str, socket.socket] = {}

    def connect(self, name: str, gateway: str = "") -> None:
        """Open a connection; `FixError` where no gateway of that name is known."""
        self.disconnect(name)
        if gateway not in self._addresses:
            known = ", ".join(name for name in self._addresses if name) or "none, only the acceptor itself"
            raise FixError(f"gateway {gateway!r} is not known; known are {known}")
        self._sockets[name] = socket.create_connection(self._addresses[gateway], timeout=self._limit_s)

    def send(self, name: str, data: bytes) -> None:
        """Send bytes; a connection that the other side closed swallows them."""
        try:
            self._sockets[name].sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def receive(self, name: str, limit_s: float) -> bytes | None:
        """Give what came: bytes; empty where the other side closed; None where nothing came in time."""
        connection = self._sockets[name]
        connection.settimeout(max(limit_s, 0.001))  # 0 would mean: do not wait at all
        try:
            return connection.recv(65536)
        except TimeoutError:
            return None
        except ConnectionResetError:
            return b""

    def disconnect(self, name: str) -> None:
        """Close a connection, if it is open."""
        connection = self._sockets.pop(name, None)
        if connection is not None:
            connection.close()

    def wait(self, seconds: float) -> None:
        """Let real time pass."""
        time.sleep(seconds)

    def wall_ns(self) -> int:
        """Unix time."""
        return time.time_ns()
