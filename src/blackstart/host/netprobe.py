"""Try for real, in a network of its own, whether this machine lets one break links by its packet filter.

`python -m blackstart.host.netprobe VERDICT` prints `ok` or the reason.
"""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import blackstart
from blackstart.host import namespaces, netfilter, netlink
from blackstart.host.nfqueue import Queue
from blackstart.host.shaping import Shape

_LIMIT_S = 20.0
_DELAY_MS = 5.0
_TRIES = 3


@functools.cache
def unavailable(verdict: str) -> str | None:
    """Say why packets cannot be dropped (`drop`), `reset` or `queue`d here, or None; tried in a process."""
    environment = {**os.environ, "PYTHONPATH": str(Path(blackstart.__file__).parents[1])}
    try:
        done = subprocess.run(
            (sys.executable, "-S", "-s", "-m", "blackstart.host.netprobe", verdict),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the packet filter cannot be tried: {error}"
    said = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return None if said and said[-1] == "ok" else (said[-1] if said else "the packet filter does not answer")


@functools.cache
def ours() -> str | None:
    """Say why we cannot change the rules of the host itself, or None; a table without rules harms nobody."""
    try:
        with netlink.netfilter() as link:
            netfilter.install(link, f"blackstart_try_{os.getpid()}", [], owned=True)
    except OSError as error:
        return f"the host's packet filter cannot be changed: {error.strerror}"
    return None


def try_it(verdict: str) -> None:
    """Send a datagram through a rule of that kind. Raises OSError when that cannot be or does nothing."""
    with (
        netlink.netfilter() as link,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        port = server.getsockname()[1]
        protocol = "tcp" if verdict == "reset" else "udp"
        rule = netfilter.Rule(protocol, port, "to_server", verdict, queue=1)
        queue = Queue(1, Shape(delay_ms=_DELAY_MS), 0) if verdict == "queue" else None
        netfilter.install(link, "blackstart_try", [rule], owned=True)
        if verdict == "reset":
            return
        for _ in range(_TRIES):  # on a busy machine one in some hundred was seen to slip by
            began = time.monotonic()  # before it is sent: somebody else may have the processor then
            client.sendto(b"x", ("127.0.0.1", port))
            came_ms = _arrival_ms(server, queue, began)
            if came_ms is None if queue is None else came_ms is not None and came_ms >= _DELAY_MS:
                return
        raise OSError(0, f"a rule ({verdict}) did nothing")


def _arrival_ms(server: socket.socket, queue: Queue | None, began: float) -> float | None:
    while (passed := time.monotonic() - began) < (1.0 if queue else 0.05):
        if queue is not None:
            queue.take()
            queue.release()
        try:
            server.recv(1)
        except BlockingIOError:
            time.sleep(0.001)
            continue
        return passed * 1000
    return None


def main() -> None:
    """Run as a process."""
    what = "no network of its own for a trial"
    try:
        namespaces.enter([namespaces.NETWORK])
        what = "the kernel's packet filter (nf_tables, nfnetlink_queue)"
        try_it(sys.argv[1])
    except OSError as error:
        print(f"{what}: {error.strerror or error}")
    else:
        print("ok")


if __name__ == "__main__":
    main()
