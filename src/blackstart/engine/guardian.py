"""The guardian: a process of its own that takes everything back when Blackstart dies, in whatever way.

`python -m blackstart.engine.guardian RUN` with one end of a socket pair as standard input. Requests are JSON
lines: `{"protect": [undo …]}` is written to `RUN/undo.jsonl` and synced before it is answered; `{"undo": [id
…] | null}` carries out some or all and answers with the outcomes; `{"close": true}` ends the guardian when
nothing is owed. End of file means that the owner is dead: everything owed is carried out at once. The file
`RUN/HALT` and SIGUSR1 do the same on demand.

Standard library only, few modules: it has to be there within 150 ms.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from blackstart.engine import journal, openruns

_LOOK_MS = 100
_NICENESS = -10
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTSTP)


class Guardian:
    """Holds what is owed for one run folder."""

    def __init__(self, run: str, link: socket.socket) -> None:
        self._run = run
        self._link = link
        self._owed: dict[str, journal.Entry] = {}
        self._halt = False
        self._rest = b""
        # A signal ends no `select` by itself: it writes here.
        self._woken, waking = socket.socketpair()
        waking.setblocking(False)
        signal.set_wakeup_fd(waking.detach(), warn_on_full_buffer=False)

    def serve(self) -> None:
        """Answer requests until the owner is gone or says goodbye."""
        self._say({"ready": os.getpid()})
        while self._turn():
            pass

    def halt(self) -> None:
        """Ask for everything to be taken back at the next turn (from a signal handler)."""
        self._halt = True

    def _turn(self) -> bool:
        readable, _, _ = select.select([self._link, self._woken], [], [], _LOOK_MS / 1000)
        if self._halt or os.path.exists(os.path.join(self._run, journal.HALT)):  # noqa: PTH110,PTH118 - start time
            self._pay(None, "halt")
            self._say({"halted": True})
            return False
        self._expire()
        return self._read() if self._link in readable else True

    def _read(self) -> bool:
        try:
            data = self._link.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            self._pay(None, "guardian")
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        return all(self._answer(json.loads(line)) for line in lines)

    def _answer(self, request: dict[str, Any]) -> bool:
        number = {"number": request.get("number")}
        if "protect" in request:
            self._say(self._protect(request["protect"]) | number)
        elif "undo" in request:
            self._say({"undone": self._pay(request["undo"], "owner")} | number)
        return "close" not in request

    def _protect(self, entries: list[journal.Entry]) -> dict[str, Any]:
        """Hold undos; what cannot be written down is refused, so that its fault never comes to be."""
        try:
            journal.append(self._run, journal.OWED, entries)
        except OSError as error:
            return {"refused": error.strerror, "errno": error.errno}
        self._owed.update({entry["id"]: entry for entry in entries})
        return {"protected": len(entries)}

    def _pay(self, ids: list[str] | None, by: str) -> list[journal.Entry]:
        chosen = [entry for entry in self._owed.values() if ids is None or entry["id"] in ids]
        outcomes = journal.pay(self._run, chosen, by=by)
        for outcome in outcomes:
            if outcome["verified"] is not False:
                self._owed.pop(outcome["id"], None)
        return outcomes

    def _expire(self) -> None:
        """Every fault has a maximum lifetime."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        over = [
            e["id"] for e in self._owed.values() if e.get("expires_mono_ns") and e["expires_mono_ns"] <= now
        ]
        if over:
            self._pay(over, "lifetime")

    def _say(self, answer: dict[str, Any]) -> None:
        try:
            self._link.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            self._rest = b""  # the owner is gone; the next turn reads the end of file


def main() -> None:
    """Run as a process."""
    run = sys.argv[1]
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # only root may; it must come through when processors are busy
        os.nice(_NICENESS)
    lock = journal.hold(run, journal.GUARDIAN_LOCK)
    if lock is None:
        sys.exit(f"{run}: another guardian watches over this run folder")
    guardian = Guardian(run, socket.socket(fileno=0))
    signal.signal(signal.SIGUSR1, lambda *_: guardian.halt())
    openruns.note(run)
    guardian.serve()
    if not journal.owed(run):
        openruns.strike(run)


if __name__ == "__main__":
    main()
