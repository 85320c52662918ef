"""The process that holds network faults: `python -m blackstart.host.netholder PARENT_PID`.

It owns the packet filter table and serves the queue: when it ends, by whatever cause, the kernel takes the
rules away. It ends with its parent, and when its standard input closes. It is spoken to in JSON lines:
`queue` (number, shape, seed), `install` (table, rules), `counts`, `release` (let go, take away). Standard
library only, to be quick.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
from typing import Any

from blackstart.host import netfilter, netlink
from blackstart.host.nfqueue import Queue
from blackstart.host.shaping import Shape

_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29


class Holder:
    """One table and perhaps one queue."""

    def __init__(self) -> None:
        self.link = netlink.netfilter()
        self.table = ""
        self.queue: Queue | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request; an error of the kernel is an answer."""
        doing = {
            "queue": self._queue,
            "install": self._install,
            "counts": self._counts,
            "release": self._release,
        }
        try:
            return doing[request["do"]](request)
        except OSError as error:
            return {"error": error.strerror or str(error)}

    def _queue(self, request: dict[str, Any]) -> dict[str, Any]:
        self.queue = Queue(request["number"], Shape(**request["shape"]), request["seed"])
        return {}

    def _install(self, request: dict[str, Any]) -> dict[str, Any]:
        rules = [netfilter.Rule(**one) for one in request["rules"]]
        before, after = netfilter.install(self.link, request["table"], rules, owned=True)
        self.table = request["table"]
        return {"before_ns": before, "after_ns": after}

    def _counts(self, _request: dict[str, Any]) -> dict[str, Any]:
        found = netfilter.counts(self.link, self.table) if self.table else []
        answer: dict[str, Any] = {"rules": [one._asdict() for one in found]}
        if (queue := self.queue) is not None:
            answer["queue"] = {
                "met": queue.met,
                "late": queue.late,
                "lost": queue.lost,
                "changed": queue.changed,
                "doubled": queue.doubled,
                "held": queue.held,
            }
        return answer

    def _release(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Take the rules away, and lose no packet by it: `netfilter.remove` drops what waits in the queue.

        What is held goes first, in its order, so that hardly anything overtakes it; then the rules, so that
        nothing more comes; then what came meanwhile.
        """
        counted = self._counts({})
        if self.queue is not None:
            self.queue.let_go()
            if self.table:
                netfilter.empty(self.link, self.table)
            while self.queue.let_go():
                continue
        if self.table:
            netfilter.remove(self.link, self.table)
            self.table = ""
        return counted

    def serve(self) -> None:
        """Serve the queue and standard input until that ends."""
        heard = b""
        while True:
            watched: list[Any] = [0] if self.queue is None else [0, self.queue.link]
            ready, _, _ = select.select(watched, [], [], self.queue.wait_s() if self.queue else None)
            if self.queue is not None:
                self.queue.take()
                self.queue.release()
            if 0 in ready:
                data = os.read(0, 1 << 20)
                *lines, heard = (heard + data).split(b"\n")
                for line in lines:
                    _say(self.answer(json.loads(line)))
                if not data:
                    return


def main() -> None:
    """Run as a process."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent died first")
    holder = Holder()
    _say({"ready": True})
    holder.serve()
    with contextlib.suppress(OSError):
        holder.answer({"do": "release"})


def _say(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
