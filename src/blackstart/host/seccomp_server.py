"""The supervisor process behind `host.seccomp`: it answers system calls by rules, and its keeper after it.

`python -m blackstart.host.seccomp_server CONTROL_FD NAME TOKEN`. It lives until the last filtered process has
ended. When its owner goes, all rules go; when it is killed, its keeper, a forked child, answers every call
with "go on", those included that it had taken and not answered: their numbers stand in memory that both
share. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import heapq
import json
import mmap
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from blackstart.host import seccomp_filter, syscalls
from blackstart.host.seccomp_rules import Active, Caller, Rule

_SLOTS = 1024
_SIZE = seccomp_filter.NOTIFICATION.size
_NAMES = syscalls.by_number()
_LINE = 1 << 17
_GONE = select.EPOLLHUP | select.EPOLLERR
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTSTP)
libc = seccomp_filter.libc


class Taken:
    """Calls that were taken from the kernel and may not be answered yet, in memory shared with the keeper."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, _SLOTS * _SIZE)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._free = list(range(_SLOTS))

    def take(self, listener: int) -> tuple[int, tuple[int, ...]] | None:
        """Take one call; the kernel itself writes it where the keeper finds it. None when there is none."""
        slot = self._free[-1]
        place = slot * _SIZE
        self._map[place : place + _SIZE] = bytes(_SIZE)
        if libc.ioctl(listener, seccomp_filter.RECV, self._base + place) != 0:
            return None
        self._free.pop()
        return slot, seccomp_filter.NOTIFICATION.unpack_from(self._map, place)

    def done(self, slot: int) -> None:
        """Free the slot of an answered call."""
        self._free.append(slot)

    @property
    def full(self) -> bool:
        """Whether no further call can be taken."""
        return not self._free

    def numbers(self) -> list[int]:
        """Return the numbers of all calls in it, answered or not."""
        whole = seccomp_filter.NOTIFICATION.iter_unpack(self._map[:])
        return [number for number, *_ in whole if number]


class Server:
    """Listeners, rules, and the calls that wait for their time."""

    def __init__(self, control: socket.socket, name: str, token: str) -> None:
        self._name, self._token = name, token
        self._control: socket.socket | None = control
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._door.bind(f"\0{name}")
        self._door.listen(64)
        self._guests: dict[int, socket.socket] = {}
        self._listeners: set[int] = set()
        self._rules: dict[str, Active] = {}
        self._expected: set[str] = set()
        self._delayed: list[tuple[int, int, int, int, str, Caller]] = []  # due, number, listener, slot, rule
        self._awaited: list[tuple[str, int, Any]] = []
        self._taken = Taken()
        self._poll = select.epoll()
        self._keeper = self._fork()
        for one in (control, self._door):
            self._poll.register(one, select.EPOLLIN)

    def serve(self) -> None:
        """Work until the owner is gone and no filtered process is left."""
        while self._control is not None or self._listeners:
            for descriptor, event in self._poll.poll(self._patience()):
                self._turn(descriptor, event)
            self._release(time.monotonic_ns())

    def _turn(self, descriptor: int, event: int) -> None:
        if descriptor in self._listeners:
            if event & select.EPOLLIN and not self._taken.full:
                self._call(descriptor)
            elif event & _GONE:
                self._poll.unregister(descriptor)
                self._listeners.discard(descriptor)
                os.close(descriptor)
        elif descriptor == self._door.fileno():
            guest, _ = self._door.accept()
            self._guests[guest.fileno()] = guest
            self._poll.register(guest, select.EPOLLIN)
        elif self._control is not None and descriptor == self._control.fileno():
            self._hear(self._control)
        elif descriptor == self._keeper.fileno():
            self._poll.unregister(descriptor)
            self._keeper.close()
            self._keeper = self._fork()
        else:
            self._hear(self._guests[descriptor])

    # Calls of the target.

    def _call(self, listener: int) -> None:
        taken = self._taken.take(listener)
        if taken is None:
            return
        slot, (number, tid, _, call, _, _, *arguments) = taken
        if not self._rules:
            self._finish(listener, slot, number)
            return
        caller = Caller(tid, _NAMES[call], arguments)
        acting = None
        for active in self._rules.values():
            if caller.meant_by(active.rule) and active.count() and acting is None:
                acting = active
        if acting is None or not seccomp_filter.valid(listener, number):
            self._finish(listener, slot, number)
            return
        acting.act(time.monotonic_ns(), caller)
        if acting.rule.delay_ms:
            due = time.monotonic_ns() + round(acting.rule.delay_ms * 1e6)
            heapq.heappush(self._delayed, (due, number, listener, slot, acting.rule.id, caller))
        else:
            self._act(acting, listener, slot, number, caller)
        self._tell_acted()

    def _act(self, acting: Active, listener: int, slot: int, number: int, caller: Caller) -> None:
        rule = acting.rule
        if rule.action == "kill":
            self._strike(acting, caller)
        if rule.action == "errno":
            self._finish(listener, slot, number, error=rule.errno)
        elif rule.action == "pretend":
            self._finish(listener, slot, number, value=caller.size)
        elif rule.action == "kill" and rule.signal == signal.SIGKILL:
            self._taken.done(slot)  # never answered: the call is not done
        else:
            self._finish(listener, slot, number)

    def _strike(self, acting: Active, caller: Caller) -> None:
        """Signal everybody; the instants just before and just after stand in the first samples."""
        callers = caller.lineage[0]
        before = time.monotonic_ns()
        for handle in acting.victims:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, acting.rule.signal)
        if callers not in acting.rule.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(callers, acting.rule.signal)
        acting.samples[-1] |= {"before_mono_ns": before, "after_mono_ns": time.monotonic_ns()}

    def _finish(
        self, listener: int, slot: int, number: int, *, value: int | None = None, error: int = 0
    ) -> None:
        flags = seccomp_filter.CONTINUE if value is None and not error else 0
        seccomp_filter.answer(listener, number, value=value or 0, error=error, flags=flags)
        self._taken.done(slot)

    def _release(self, now: int) -> None:
        """Let go of delayed calls whose time has come; those whose rule is gone go on at once."""
        while self._delayed and self._delayed[0][0] <= now:
            _, number, listener, slot, rule, caller = heapq.heappop(self._delayed)
            active = self._rules.get(rule)
            if listener not in self._listeners:
                self._taken.done(slot)
            elif active is None:
                self._finish(listener, slot, number)
            else:
                self._act(active, listener, slot, number, caller)

    def _patience(self) -> float:
        if not self._delayed:
            return -1
        return max(0.0, (self._delayed[0][0] - time.monotonic_ns()) / 1e9)

    # Requests of the owner and of guests.

    def _hear(self, link: socket.socket) -> None:
        try:
            data, handles, _, _ = socket.recv_fds(link, _LINE, 1)
        except ConnectionError:
            data, handles = b"", []
        if not data:
            self._part(link)
            return
        request = json.loads(data)
        lost = "listener" in request and not handles  # no descriptor was free for it here
        if lost or (link is not self._control and request.get("token") != self._token):
            self._part(link)
            return
        answer = self._answer(request, handles)
        if answer is not None:
            self._say(link, {"number": request.get("number"), **answer})

    def _part(self, link: socket.socket) -> None:
        self._poll.unregister(link)
        if link is self._control:
            self._control = None
            self._drop(list(self._rules))
        self._guests.pop(link.fileno(), None)
        link.close()

    def _answer(self, request: dict[str, Any], handles: list[int]) -> dict[str, Any] | None:
        if "listener" in request:
            self._add(handles[0])
            return {"held": True}
        if "expected" in request:
            return {"expected": sorted(self._expected)}
        if "expect" in request:
            self._expected.update(request["expect"])
        if "put" in request:
            made = request["put"]
            rule = Rule(**{**made, "calls": frozenset(made["calls"]), "pids": tuple(made["pids"])})
            self._drop([rule.id])
            self._rules[rule.id] = Active(rule)
        if "drop" in request:
            named = request["drop"]
            counters = {one: self._rules[one].counters()._asdict() for one in named if one in self._rules}
            self._drop(named)
            return {"rules": list(self._rules), "counters": counters}
        if "counters" in request:
            active = self._rules.get(request["counters"])
            return {"counters": active.counters()._asdict() if active else None}
        if "acted" in request:
            self._awaited.append((request["acted"], request["number"], self._control))
            self._tell_acted()
            return None
        return {"rules": list(self._rules), "listeners": len(self._listeners)}

    def _tell_acted(self) -> None:
        for one in list(self._awaited):
            rule, number, link = one
            active = self._rules.get(rule)
            if active is None or active.acted:
                self._awaited.remove(one)
                self._say(
                    link, {"number": number, "counters": active.counters()._asdict() if active else None}
                )

    def _drop(self, rules: list[str]) -> None:
        for one in rules:
            if (active := self._rules.pop(one, None)) is not None:
                active.close()
        now = time.monotonic_ns()
        gone = [one for one in self._delayed if one[4] not in self._rules]
        self._delayed = [(now, *one[1:]) for one in gone] + [one for one in self._delayed if one not in gone]
        heapq.heapify(self._delayed)
        self._release(now)
        self._tell_acted()

    def _add(self, listener: int) -> None:
        """Serve one more listener, once the keeper holds it, too."""
        socket.send_fds(self._keeper, [b"l"], [listener])
        self._keeper.recv(1)
        seccomp_filter.wake_together(listener)
        self._listeners.add(listener)
        self._poll.register(listener, select.EPOLLIN)

    def _say(self, link: socket.socket | None, answer: dict[str, Any]) -> None:
        try:
            if link is not None:
                link.send(json.dumps(answer).encode())
        except OSError:
            return  # gone; the next turn reads its end of file

    def _fork(self) -> socket.socket:
        """Make a keeper, and hand it everything that is held already."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            self._poll.close()
            ours.close()
            for one in (self._door, self._control, *self._guests.values()):
                if one is not None:
                    one.close()
            seen = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with contextlib.suppress(OSError):
                seen.bind(f"\0{keeper(self._name)}")
                seen.listen(64)
            keep(theirs, self._taken, set(self._listeners))
            os._exit(0)
        theirs.close()
        self._poll.register(ours, 0)  # only its end is of interest
        return ours


def keeper(name: str) -> str:
    """Name the abstract socket that stands for as long as the keeper of that supervisor lives."""
    return f"{name}-keeper"


def keep(link: socket.socket, taken: Taken, listeners: set[int]) -> None:
    """Hold the listeners; when the server is gone, let every call pass until the last process has ended."""
    while True:
        try:
            data, handles, _, _ = socket.recv_fds(link, 1, 1)
        except ConnectionError:
            break
        if not data:
            break
        listeners.update(handles)
        link.send(b"k")
        for one in [one for one in listeners if _ended(one)]:
            listeners.discard(one)
            os.close(one)
    pass_all(taken, listeners)


def pass_all(taken: Taken, listeners: set[int]) -> None:
    """Answer "go on" to everything: what the server had taken first, then whatever comes."""
    poll = select.epoll()
    for listener in listeners:
        for number in taken.numbers():
            seccomp_filter.answer(listener, number, flags=seccomp_filter.CONTINUE)
        poll.register(listener, select.EPOLLIN)
    mine = Taken()
    while listeners:
        for listener, event in poll.poll():
            if event & select.EPOLLIN and (found := mine.take(listener)) is not None:
                seccomp_filter.answer(listener, found[1][0], flags=seccomp_filter.CONTINUE)
                mine.done(found[0])
            elif event & _GONE:
                poll.unregister(listener)
                listeners.discard(listener)


def _ended(listener: int) -> bool:
    poll = select.poll()
    poll.register(listener, 0)
    return bool(poll.poll(0))


def main() -> None:
    """Run as a process."""
    control, name, token = sys.argv[1:]
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers need no burial
    link = socket.socket(fileno=int(control))
    try:
        server = Server(link, name, token)
    except OSError as error:
        sys.exit(f"seccomp supervisor: {errno.errorcode.get(error.errno or 0)}: {error}")
    link.send(b'{"ready": true}')
    server.serve()


if __name__ == "__main__":
    main()
