"""Ports that survive the death of whoever listens on them.

The supervisor binds each port and never listens: with SO_REUSEPORT (our components) or SO_REUSEADDR
(PostgreSQL, NATS) the listener binds beside it, and between two lives of a component nobody else can take the
port: a client is refused, not misled.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from paperfirm.config import ENGINES, Ports

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOPBACK = "127.0.0.1"
LISTENERS = {
    "supervisor": ("http",),
    "postgres": ("service",),
    "nats": ("service",),
    "risk": ("http", "service"),
    "feed": ("http", "service"),
    "router": ("http", "service"),
    "recorder": ("http",),
} | dict.fromkeys(ENGINES, ("http", "order_entry", "replication"))


class Reservations:
    """Holds every port of one firm for as long as the supervisor lives."""

    def __init__(self, former: Mapping[str, Ports] | None = None) -> None:
        """Reserve all listeners of LISTENERS: on the former ports where they are free, else on any."""
        self._held: list[socket.socket] = []
        former = former or {}
        self.ports = {name: self._reserve(kinds, former.get(name)) for name, kinds in LISTENERS.items()}

    def close(self) -> None:
        """Give all ports back."""
        for sock in self._held:
            sock.close()
        self._held.clear()

    def _reserve(self, kinds: tuple[str, ...], former: Ports | None) -> Ports:
        numbers = {kind: self._bind(getattr(former, kind, 0)) for kind in kinds}
        return Ports(**{"http": 0, **numbers})

    def _bind(self, wanted: int) -> int:
        try:
            sock = _bound(wanted)
        except OSError:
            sock = _bound(0)
        self._held.append(sock)
        return int(sock.getsockname()[1])


def _bound(port: int) -> socket.socket:
    if port and _answers(port):
        raise OSError(
            f"somebody listens on {port}"
        )  # SO_REUSEPORT would let us share it with another process of ours
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if port == 0:
            sock.bind(
                (LOOPBACK, 0)
            )  # exclusive first: with SO_REUSEPORT the kernel may hand out a port that is in use
            port = int(sock.getsockname()[1])
            sock.close()
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((LOOPBACK, port))
    except OSError:
        sock.close()
        raise
    return sock


def _answers(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0
