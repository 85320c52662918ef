"""The guardian: a process of its own that takes everything back when Blackstart dies, in whatever way.

`python -m blackstart.engine.guardian RUN LIFELINE [PARENTS_LIFELINE]` with one end of a socket pair as
standard input. Requests are JSON lines: `{"protect": [undo …]}` is written to `RUN/undo.jsonl` and synced
before it is answered; `{"undo": [id …] | null}` carries out some or all and answers with the outcomes;
`{"close": true}` ends the guardian when nothing is owed.

When a lifeline (`host.lifeline`) says that the owner has died, or its parent, everything owed is carried out
at once, and once more when the end of file says that the owner is wholly gone: a system call under way may
still have come to its end in between. An owner whose parent died is ended first, as the kernel would have
done a little later. The file `RUN/HALT` and SIGUSR1 have everything carried out on demand: at once, and once
more when the owner, who hears of it, says goodbye or is gone.

Standard library only, few modules: it has to be there within 150 ms.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from typing import Any

from blackstart.engine import alarm, journal, locks, openruns, verbs
from blackstart.host import lifeline

_LOOK_MS = 100
_GONE_LIMIT_S = 10.0
_AGAIN_NS = 30_000_000_000
"""After so long an undo that failed at its expiry is tried again, then after twice as long, and so on."""
_MANY = 64
"""Of so many processes that are held, those that are gone are looked for."""
_CREDENTIALS = 12
_NICENESS = -10
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTSTP)


class Guardian:
    """Holds what is owed for one run folder."""

    def __init__(self, run: str, link: socket.socket) -> None:
        self._run = run
        self._link = link
        self._owed: dict[int | str, journal.Entry] = {}
        self._held: dict[str, journal.Entry] = {}
        self._pauses_ns: dict[int | str, int] = {}
        self._many = _MANY
        self._serial = len(journal.read(run, journal.OWED))
        self._halt = False
        self._orphaned = False
        self._owner = _parent(link)
        self._rest = b""
        self._boot = journal.boot()
        # A signal ends no `select` by itself: it writes here.
        self._woken, waking = socket.socketpair()
        waking.setblocking(False)
        self._waking = waking.detach()
        signal.set_wakeup_fd(self._waking, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Answer requests until the owner is gone or says goodbye."""
        self._say({"ready": os.getpid()})
        while self._turn():
            pass

    def halt(self) -> None:
        """Ask for everything to be taken back at the next turn (from a signal handler)."""
        self._halt = True

    def watch(self, fd: int, *, parents: bool) -> None:
        """Act when the holder of a lifeline dies: the owner, or its parent, whom it must not outlive."""
        threading.Thread(target=self._await, args=(fd, parents), daemon=True).start()

    def _await(self, fd: int, parents: bool) -> None:  # noqa: FBT001 - a thread's argument
        if not lifeline.died(fd):
            return
        if parents and self._owner is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._owner, signal.SIGKILL)
        self._orphaned = True
        os.write(self._waking, b"x")

    def _turn(self) -> bool:
        readable, _, _ = select.select([self._link, self._woken], [], [], _LOOK_MS / 1000)
        if self._halt or os.path.exists(os.path.join(self._run, alarm.HALT)):  # noqa: PTH110,PTH118 - start time
            self._finish("halt")
            return False
        if self._orphaned:
            self._finish("guardian")
            return False
        # What is asked comes first: an undo that fails slowly at its expiry must not hold it up twice.
        if self._link in readable and not self._read():
            return False
        self._expire()
        if not readable:
            self._forget_the_gone()
        return True

    def _finish(self, by: str) -> None:
        """Take everything back at once, and see to it once more when the owner can do nothing any more."""
        held = dict(self._owed)
        if by == "halt":  # before anybody dies of it: that is no finding about the target or its load
            self._say({"halting": True})
        self._pay(None, by)
        if by == "halt":
            self._say({"halted": True})
        end = time.monotonic() + _GONE_LIMIT_S
        bye = False
        while not bye and (lines := self._lines(end)) is not None:
            requests = [json.loads(line) for line in lines]
            # Nobody waits for the answer, but what it was about to begin must end, too.
            self._protect([one for request in requests for one in request.get("protect", ())])
            bye = any("close" in request for request in requests)
        self._owed |= held
        self._pay(None, by)

    def _read(self) -> bool:
        lines = self._lines()
        if lines is None:
            self._pay(None, "guardian")
            return False
        return all(self._answer(json.loads(line)) for line in lines)

    def _lines(self, end_s: float | None = None) -> list[bytes] | None:
        """Return the whole lines that came; None at the end of file, or at that time."""
        try:
            self._link.settimeout(None if end_s is None else max(0.001, end_s - time.monotonic()))
            data = self._link.recv(1 << 20)
        except (ConnectionError, TimeoutError):
            data = b""
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def _answer(self, request: dict[str, Any]) -> bool:
        number = {"number": request.get("number")}
        if "protect" in request:
            self._say(self._protect(request["protect"]) | number)
            verbs.make_ready(request["protect"])
        elif "undo" in request:
            self._say({"undone": self._pay(request["undo"], "owner")} | number)
        return "close" not in request

    def _protect(self, entries: list[journal.Entry]) -> dict[str, Any]:
        """Hold undos; what cannot be written down is refused, so that its fault never comes to be.

        What is held already, word for word, is held once.
        """
        named = {_same(entry): entry for entry in entries}
        new = {same: entry for same, entry in named.items() if same not in self._held}
        numbered = {
            same: {**entry, "serial": self._serial + k, "boot": self._boot}
            for k, (same, entry) in enumerate(new.items())
        }
        try:
            journal.append(self._run, journal.OWED, numbered.values())
        except OSError as error:
            return {"refused": error.strerror, "errno": error.errno}
        self._serial += len(numbered)
        self._owed.update({journal.key(entry): entry for entry in numbered.values()})
        self._held.update(numbered)
        for same, entry in named.items():
            self._held[same]["expires_mono_ns"] = entry.get("expires_mono_ns")
        return {"protected": len(entries)}

    def _pay(self, ids: list[str] | None, by: str) -> list[journal.Entry]:
        chosen = [entry for entry in self._owed.values() if ids is None or entry["id"] in ids]
        return self._carry_out(chosen, by)

    def _carry_out(self, chosen: list[journal.Entry], by: str) -> list[journal.Entry]:
        outcomes = journal.pay(self._run, chosen, by=by)
        for outcome in outcomes:
            if outcome["verified"] is not False:
                self._let_go(journal.key(outcome))
        return outcomes

    def _let_go(self, key: int | str) -> None:
        self._pauses_ns.pop(key, None)
        entry = self._owed.pop(key, None)
        if entry is not None:
            self._held.pop(_same(entry), None)

    def _expire(self) -> None:
        """Every fault has a maximum lifetime. An undo that fails then is tried again, ever more rarely."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        over = [e for e in self._owed.values() if e.get("expires_mono_ns") and e["expires_mono_ns"] <= now]
        if not over:
            return
        done = [one for one in self._carry_out(over, "lifetime") if one["verified"] is not False]
        if done:
            self._say({"expired": done})
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        for entry in over:
            if (key := journal.key(entry)) in self._owed:
                self._pauses_ns[key] = pause = 2 * self._pauses_ns.get(key, _AGAIN_NS // 2)
                entry["expires_mono_ns"] = now + pause

    def _forget_the_gone(self) -> None:
        """Hold no longer the end of processes of which nobody is left: a session starts thousands.

        When there is nothing else to do, for looking at all processes takes some milliseconds.
        """
        if len(self._owed) < self._many:
            return
        ends = [entry for entry in self._owed.values() if entry["action"] == "kill"]
        gone = verbs.process.gone([entry["arguments"] for entry in ends])
        settled = [entry for entry in ends if entry["arguments"] in gone]
        journal.settle(self._run, settled, by="guardian")
        for entry in settled:
            self._let_go(journal.key(entry))
        self._many = max(_MANY, 2 * len(self._owed))

    def _say(self, answer: dict[str, Any]) -> None:
        try:
            self._link.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            self._rest = b""  # the owner is gone; the next turn reads the end of file


def _same(entry: journal.Entry) -> str:
    """Return what two undos that do the same have in common."""
    return json.dumps([entry["id"], entry["action"], entry["arguments"]], sort_keys=True)


def _parent(link: socket.socket) -> int | None:
    """Open a handle on the owner, who made `link` and started us; None when it has died already."""
    pid = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS))[0]
    if os.getppid() != pid:
        return None
    handle = os.pidfd_open(pid)
    if os.getppid() == pid:
        return handle
    os.close(handle)
    return None


def main() -> None:
    """Run as a process."""
    run, *lifelines = sys.argv[1:]
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # only root may; it must come through when processors are busy
        os.nice(_NICENESS)
    lock = locks.hold(run, locks.GUARDIAN_LOCK)
    if lock is None:
        sys.exit(f"{run}: another guardian watches over this run folder")
    guardian = Guardian(run, socket.socket(fileno=0))
    signal.signal(signal.SIGUSR1, lambda *_: guardian.halt())
    for place, fd in enumerate(lifelines):
        guardian.watch(int(fd), parents=place > 0)
    openruns.note(run)
    guardian.serve()
    if not journal.owed(run):
        openruns.strike(run)


if __name__ == "__main__":
    main()
