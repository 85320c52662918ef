"""A peer behind TCP: any FIX acceptor."""

from __future__ import annotations

import socket
import time


class TcpPeer:
    """Connects to `host`:`port`; a reset by the other side counts as a close."""

    def __init__(self, host: str, port: int, *, limit_s: float = 5.0) -> None:
        self._address = (host, port)
        self._limit_s = limit_s
        self._sockets: dict[str, socket.socket] = {}

    def connect(self, name: str) -> None:
        """Open a connection."""
        self.disconnect(name)
        self._sockets[name] = socket.create_connection(self._address, timeout=self._limit_s)

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
