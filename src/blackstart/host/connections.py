"""TCP connections by `/proc/net/tcp`: who talks to a port, and when the kernel will try again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_TICK_MS = 10  # USER_HZ is 100 on every Linux
_ESTABLISHED = "01"
_TIMERS = {"01": "retransmission", "04": "zero-window probe"}


class Connection(NamedTuple):
    """One end of a connection as the kernel of this network namespace sees it."""

    local_port: int
    remote_port: int
    established: bool
    timer: str
    expires_ms: int


def connections() -> Iterator[Connection]:
    """Yield all, both ends where both are here."""
    for path in (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6")):
        lines = path.read_text(encoding="ascii").splitlines()[1:] if path.exists() else []
        for fields in (line.split() for line in lines):
            kind, _, ticks = fields[5].partition(":")
            yield Connection(
                _port(fields[1]),
                _port(fields[2]),
                fields[3] == _ESTABLISHED,
                _TIMERS.get(kind, ""),
                int(ticks, 16) * _TICK_MS,
            )


def peers(port: int) -> list[int]:
    """Return the client ports of the connections that are established with a port of ours."""
    return sorted(one.remote_port for one in connections() if one.local_port == port and one.established)


def waiting(ports: Collection[int]) -> list[Connection]:
    """Find who waits on these ports until it sends again what was not acknowledged.

    After a heal nothing moves on such a connection before that: it doubles its wait at each try.
    """
    found = (one for one in connections() if one.timer and {one.local_port, one.remote_port} & set(ports))
    return sorted(found, key=lambda one: one.expires_ms)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
