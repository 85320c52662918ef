"""Free TCP ports for a target, outside the range from which the kernel gives ports to clients.

A client that tries again and again to reach a dead server on a port of that range may in the end be given
that very port and be connected to itself; then the server cannot come back. Recovery tests do just that, so
such ports are not used.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from blackstart.errors import TargetError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST, _HIGHEST = 15000, 65535
_ATTEMPTS = 2000


def client_range() -> tuple[int, int]:
    """Return the kernel's range of client ports, its default where it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        low, high = _RANGE_FILE.read_text().split()
        return int(low), int(high)
    return 32768, 60999


def allocate(names: Iterable[str], rng: random.Random) -> dict[str, int]:
    """Return a free port for each name.

    `rng` should not be the run's seed: two runs with one seed may go on at once.
    """
    taken: dict[str, int] = {}
    for name in names:
        taken[name] = _free(set(taken.values()), rng)
    return taken


def _free(taken: set[int], rng: random.Random) -> int:
    low, high = client_range()
    candidates = [*range(_LOWEST, low), *range(high + 1, _HIGHEST)] or list(range(_LOWEST, _HIGHEST))
    for _ in range(_ATTEMPTS):
        port: int = rng.choice(candidates)
        if port not in taken and is_free(port):
            return port
    raise TargetError("no free TCP port found", hint="too many listeners on this host?")


def is_free(port: int) -> bool:
    """Say whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
