"""The helper on another host: sent over by `ssh`, kept in memory, gone with the connection.

Requests are JSON lines with a number `n`; each is answered by a line with the same number, and what happens
by itself is a line with `event`. Every stamp is this host's monotonic clock. It writes no file.

It is a guardian, too: at the end of its input, at SIGTERM, or when nobody spoke to it for `SILENCE_S`, it
lets every process that it stopped run on, ends what was started only for the trial, starts again what ran
before and was killed, and exits. Nobody need tell it to.

Standard library only, Python 3.9 or newer: it has to run on whatever the other host has.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import pwd
import re
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackstart.host import growing, procs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SILENCE_S = 5.0
"""Without a word for so long, whoever sent us is gone or cannot be reached: take everything back."""

_LOOK_S = 0.25
_BACKLOG = 1 << 24
_GONE_LIMIT_S = 5.0
_KEEP_LIMIT_S = 1.0
_RUNS_LIMIT_S = 1.0
_STARTED_LIMIT_S = 10.0
_ALONE_LIMIT_S = 2.0
ENDING = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "disk-sleep",
    "T": "stopped",
    "t": "tracing-stop",
    "Z": "zombie",
}

Values = dict[str, Any]


class No(Exception):  # noqa: N818 - the answer no, with its reason
    """What was asked for cannot be done; the text says why."""


class Absent(No):
    """It certainly does not run, which is more than that it was not found: only now may it be started."""


class Held:
    """A process that is watched, and the only way in which it is signalled."""

    def __init__(self, pid: int, start_ticks: int) -> None:
        self.pid, self.start_ticks = pid, start_ticks
        self.ended = False
        try:
            self.handle = os.pidfd_open(pid)
        except ProcessLookupError:
            raise No(f"pid {pid} has ended") from None
        if not procs.is_alive(pid, start_ticks):
            os.close(self.handle)
            raise No(f"pid {pid} has ended")

    def signal(self, number: int) -> bool:
        """Signal exactly this process; False when it has ended."""
        if self.ended:  # its descriptor is closed: the number may be another's by now
            return False
        try:
            signal.pidfd_send_signal(self.handle, number)
        except ProcessLookupError:
            return False
        return True


class Tail:
    """Files that match a glob, followed from now on."""

    def __init__(self, files: str) -> None:
        self.folder, self.files = os.path.dirname(files), files  # noqa: PTH120 - a glob, not a path
        self.open: dict[str, growing.Growing] = {}
        self.notices = growing.notices(self.folder)
        self.look(fresh=False)

    def look(self, *, fresh: bool = True) -> None:
        """Take in files that have appeared: their start was not missed."""
        for path in sorted(glob.glob(self.files)):  # noqa: PTH207 - an absolute pattern
            if path not in self.open:
                self.open[path] = growing.Growing(Path(path), from_start=fresh)

    def read(self) -> list[str]:
        """Return the new lines. What is no UTF-8 comes through unchanged."""
        lines = [line for one in self.open.values() for line in one.read()]
        return [line.decode("utf-8", "surrogateescape") for line in lines]


class Talk:
    """Our end of the connection: never blocks, because whoever does not read must not keep us from acting."""

    def __init__(self) -> None:
        os.set_blocking(1, False)
        self.waiting = b""
        self.gone = False

    def say(self, word: Values) -> None:
        """Send a line, now or as soon as there is room."""
        self.waiting += json.dumps(word).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what can be sent."""
        try:
            while self.waiting:
                self.waiting = self.waiting[os.write(1, self.waiting) :]
        except BlockingIOError:
            self.gone = len(self.waiting) > _BACKLOG
        except OSError:
            self.gone = True


class Helper:
    """Everything that is watched and owed on this host."""

    def __init__(self) -> None:
        self.talk = Talk()
        self.held: dict[int, Held] = {}
        self.tails: dict[int, Tail] = {}
        self.stopped: dict[int, int] = {}
        self.struck: list[Values] = []
        self.ours: dict[str, Values] = {}
        self.kept: list[Values] = []
        self.children: dict[int, int] = {}
        self.silence_s = SILENCE_S
        self._rest = b""
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)
        self._ready: dict[int, Callable[[int], None]] = {}
        self._over = False
        self._do: dict[str, Callable[[Values], Values]] = {
            "clock": lambda _: {"at": time.monotonic_ns()},
            "find": find,
            "hold": self._hold,
            "release": self._release,
            "signal": self._signal,
            "state": lambda values: {"state": state(values)},
            "use": use,
            "tail": self._tail,
            "keep": self._keep,
            "start": self._start,
            "undo": undo,
            "silence": self._silence,
            "bye": self._bye,
        }

    def serve(self) -> None:
        """Answer and watch until there is nobody left to do it for."""
        heard = looked = time.monotonic()
        while not self._over and not self.talk.gone:
            self._poll.modify(0, select.POLLIN)
            if self.talk.waiting:
                self._poll.register(1, select.POLLOUT)
            ready = self._poll.poll(_LOOK_S * 1000)
            now = time.monotonic_ns()
            if self.talk.waiting:
                self._poll.unregister(1)
                self.talk.flush()
            for descriptor, _ in ready:
                if descriptor == 0:
                    heard = time.monotonic()
                    self._hear()
                elif descriptor in self._ready:
                    self._ready[descriptor](now)
            if time.monotonic() - looked > _LOOK_S:
                looked = time.monotonic()
                self._look(now)
            self._over = self._over or time.monotonic() - heard > self.silence_s

    def take_back(self) -> None:
        """Leave nothing of ours behind, whatever has happened."""
        for pid, ticks in self.stopped.items():
            run_on({"pid": pid, "start_ticks": ticks})
        limit = time.monotonic() + _GONE_LIMIT_S
        while self.kept and any(state(one) != "gone" for one in self.struck) and time.monotonic() < limit:
            time.sleep(0.005)
        self._collect()
        for one in self.kept:
            with contextlib.suppress(No, OSError):
                keep(one)
        for one in self.ours.values():
            end(one)

    def _hear(self) -> None:
        try:
            data = os.read(0, 1 << 16)
        except OSError:
            data = b""
        if not data:
            self._over = True
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._answer(json.loads(line))

    def _answer(self, values: Values) -> None:
        try:
            answer = self._do[values["do"]](values)
        except PermissionError as error:
            answer = {"error": f"{user()} may not do that: {error.strerror}"}
        except (No, OSError, ValueError, KeyError) as error:
            answer = {"error": str(error) or type(error).__name__, "absent": isinstance(error, Absent)}
        self.talk.say({"n": values["n"], **answer})

    def _watch(self, descriptor: int, told: Callable[[int], None]) -> None:
        self._ready[descriptor] = told
        self._poll.register(descriptor, select.POLLIN)

    def _unwatch(self, descriptor: int) -> None:
        if self._ready.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)
            os.close(descriptor)

    def _hold(self, values: Values) -> Values:
        held = Held(values["pid"], values["start_ticks"])
        held.signal(0)  # raises where we may not
        self.held[values["id"]] = held

        def died(now: int) -> None:
            held.ended = True
            self._unwatch(held.handle)
            self.talk.say({"event": "died", "id": values["id"], "at": now})

        self._watch(held.handle, died)
        return {}

    def _release(self, values: Values) -> Values:
        held = self.held.pop(values["id"], None)
        if held is not None and not held.ended:
            held.ended = True
            self._unwatch(held.handle)
        return {}

    def _signal(self, values: Values) -> Values:
        held, number = self.held[values["id"]], values["signal"]
        if number == signal.SIGSTOP:
            self.stopped[held.pid] = held.start_ticks  # first the way back
        if number in ENDING:
            self.struck.append({"pid": held.pid, "start_ticks": held.start_ticks})
        before = time.monotonic_ns()
        sent = held.signal(number)
        after = time.monotonic_ns()
        if number == signal.SIGCONT:
            self.stopped.pop(held.pid, None)
        return {"before": before, "after": after, "sent": sent}

    def _tail(self, values: Values) -> Values:
        tail = self.tails[values["id"]] = Tail(values["files"])
        self._notice(values["id"], tail)
        return {}

    def _notice(self, identifier: int, tail: Tail) -> None:
        descriptor = tail.notices
        if descriptor is not None:
            self._watch(descriptor, lambda now: self._changed(identifier, tail, descriptor, now))

    def _changed(self, identifier: int, tail: Tail, descriptor: int, now: int) -> None:
        if growing.any_new(os.read(descriptor, 1 << 16)):
            tail.look()
        self._tell(identifier, tail, now)

    def _tell(self, identifier: int, tail: Tail, now: int) -> None:
        lines = tail.read()
        if lines:
            self.talk.say({"event": "lines", "id": identifier, "at": now, "lines": lines})

    def _look(self, now: int) -> None:
        """Look at what no notice may have come of, and collect children that ended."""
        for identifier, tail in self.tails.items():
            if tail.notices is None and (descriptor := growing.notices(tail.folder)) is not None:
                tail.notices = descriptor
                self._notice(identifier, tail)
            tail.look()
            self._tell(identifier, tail, now)
        self._collect()

    def _collect(self) -> None:
        for pid, identifier in list(self.children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self.children[pid]
                word = {"event": "ended", "id": identifier, "status": os.waitstatus_to_exitcode(status)}
                self.talk.say(word)

    def _keep(self, values: Values) -> Values:
        """Remember that it ran when we came: it is to run when we go."""
        self.kept.append(values)
        return {}

    def _start(self, values: Values) -> Values:
        marker, name = values.get("marker"), values["name"]
        if marker is not None:
            self.ours[name] = {"marker": marker}  # first the way back
        kept = next((_kept(one["find"]) for one in self.kept if one["name"] == name), None)
        pid = start(values["command"], marker or kept)
        self.children[pid] = values["id"]
        found = procs.stat(pid)
        ticks = found.start_ticks if found is not None else 0
        if marker is not None:
            self.ours[name].update({"pid": pid, "start_ticks": ticks})
        return {"pid": pid, "start_ticks": ticks}

    def _silence(self, values: Values) -> Values:
        self.silence_s = float(values["limit_s"])
        return {}

    def _bye(self, values: Values) -> Values:
        del values
        self._over = True
        return {}


def find(values: Values) -> Values:
    """Find exactly one process: by `pid`, `pid_file` or `match`, a regular expression on the command line.

    Raises Absent when it certainly does not run. That a `pid` has ended does not say so: by now another may
    be what it was.
    """
    if "match" in values:
        return _described(_only(values["match"]))
    pid = values["pid"] if "pid" in values else _written(values["pid_file"])
    found = procs.stat(pid)
    if found is None or found.dead:
        raise (No if "pid" in values else Absent)(f"pid {pid} is not running")
    return _described(found)


def _only(pattern: str) -> procs.Stat:
    found = procs.matching(pattern)
    if len(found) != 1:
        listed = "; ".join(f"{one.pid}: {line[:80]}" for one, line in found[:5])
        said = f"`{pattern}` matches {len(found)} processes, not one{f' ({listed})' if listed else ''}"
        raise No(said) if found else Absent(said)
    return found[0][0]


def _written(path: str) -> int:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - start time
            text = file.read(100)
    except FileNotFoundError:
        raise Absent(f"there is no {path}") from None
    except OSError as error:
        raise No(f"no pid in {path}: {error.strerror}") from None
    pid = re.match(r"\s*([1-9][0-9]*)(\s|$)", text)
    if pid is None:  # it may be about to be written
        raise No(f"no pid in {path}: it says {text[:40]!r}")
    return int(pid[1])


def _described(found: procs.Stat) -> Values:
    return {"pid": found.pid, "start_ticks": found.start_ticks, "command": procs.command_line(found.pid)}


def state(values: Values) -> str:
    """Return the kernel's letter for the state of exactly this process, or `gone`."""
    found = procs.stat(values["pid"])
    gone = found is None or found.dead or found.start_ticks != values["start_ticks"]
    return "gone" if gone or found is None else found.state


def use(values: Values) -> Values:
    """Measure a process: processor time, memory, threads, state."""
    pid = values["pid"]
    letter = state(values)
    if letter == "gone":
        raise No(f"pid {pid} has ended")
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - start time
        text = file.read()
    fields = text[text.rindex(b")") + 2 :].split()
    return {
        "pid": pid,
        "cpu_s": (int(fields[11]) + int(fields[12])) / _TICKS,
        "rss": int(fields[21]) * _PAGE,
        "threads": int(fields[17]),
        "state": _STATES.get(letter, letter),
        "thread_states": procs.thread_states(pid),
    }


def start(command: list[str], marker: str | None) -> int:
    """Start a program in a session of its own; with a marker it and its descendants are found again."""
    environment = {key: text for key, text in os.environ.items() if key != procs.MARKER}
    if marker is not None:
        environment[procs.MARKER] = marker
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    signals = (signal.SIGPIPE, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
    try:
        return os.posix_spawnp(
            command[0], command, environment, file_actions=null, setsid=True, setsigdef=signals
        )
    except OSError as error:
        raise No(f"cannot execute {command[0]}: {error.strerror}") from None


def undo(values: Values) -> Values:
    """Take one thing back: `what` is `continue`, `end` or `keep`; says whether it was seen to be so."""
    return {"continue": run_on, "end": end, "keep": keep}[values["what"]](values)


def run_on(values: Values) -> Values:
    """Let a stopped process run on, and see it do so."""
    limit = time.monotonic() + _RUNS_LIMIT_S
    while (letter := state(values)) == "T" and time.monotonic() < limit:
        found = procs.stat(values["pid"])
        if found is not None and found.start_ticks == values["start_ticks"]:
            procs.send(found, signal.SIGCONT)
        time.sleep(0.001)
    return {"verified": letter != "T", "evidence": {"state": letter}}


def end(values: Values) -> Values:
    """End what was started for the trial and all that belongs to it, by `marker`, and by `pid` if known."""
    killed: list[int] = []
    limit = time.monotonic() + _GONE_LIMIT_S
    while (members := _members(values)) and time.monotonic() < limit:
        killed += [one.pid for one in members if procs.send(one, signal.SIGKILL)]
        time.sleep(0.002)
    left = [one.pid for one in members]
    return {"verified": not left, "evidence": {"killed": sorted(set(killed)), "left": left}}


def _members(values: Values) -> list[procs.Stat]:
    """Find the process with all that belongs to it, and whoever an earlier start left behind."""
    found = {one.pid: one for one in procs.carriers(values["marker"]) if one.pid != os.getpid()}
    if "pid" in values:
        family = procs.family(values["pid"], values["start_ticks"], values["marker"])
        found.update({one.pid: one for one in family})
    return list(found.values())


def keep(values: Values) -> Values:
    """See that what ran before runs: start it again where it certainly does not, and nobody has yet.

    When it is not found in the end, the evidence says what was, and whether anything was started.
    """
    wanted, done = values["find"], "nothing was started"
    with contextlib.suppress(No):
        return {"verified": True, "evidence": {"runs": _awaited(wanted, _KEEP_LIMIT_S)}}
    try:
        done = _again(wanted, values["command"])
        found = _awaited(wanted, _STARTED_LIMIT_S)
    except No as error:
        return {"verified": False, "evidence": {"error": f"{done}: {error}"}}
    return {"verified": True, "evidence": {"runs": found, "done": done}}


def _again(wanted: Values, command: list[str]) -> str:
    """Start what does not run, unless it is on its way already; says what was done."""
    marker = _kept(wanted)
    with _alone(marker):
        try:
            find(wanted)
        except Absent:
            coming = procs.carriers(marker)
            if coming:
                return f"was started already (pid {coming[0].pid})"
            return f"started again (pid {start(command, marker)})"
        except No:
            return "nothing was started"
    return "it came back by itself"


def _kept(wanted: Values) -> str:
    """Return the marker of every start of what is to be kept: by it another helper sees it on its way.

    It may be long before it can be found, and whoever started it may have gone by then.
    """
    return f"keep:{hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:32]}"


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Keep all other helpers on this host from looking and starting meanwhile.

    The trial's helper and the guardian's see to the same at the same time. The name is an abstract socket's,
    which goes with us and leaves nothing.
    """
    limit = time.monotonic() + _ALONE_LIMIT_S
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        while True:
            try:
                one.bind(f"\0blackstart-{name}")
                break
            except OSError:
                if time.monotonic() > limit:
                    raise No("another helper has been about to start it for too long") from None
            time.sleep(0.02)
        yield


def _awaited(wanted: Values, limit_s: float) -> int:
    """Return the pid of a process as soon as it is found. Raises the last No when it is not in time."""
    limit = time.monotonic() + limit_s
    while True:
        try:
            return int(find(wanted)["pid"])
        except No:
            if time.monotonic() > limit:
                raise
        time.sleep(0.02)


def user() -> str:
    """Name whoever we are on this host."""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return f"uid {os.geteuid()}"


def _boundary(number: int, _frame: Any) -> None:
    sys.exit(128 + number)


def main() -> None:
    """Say who and where we are, serve, and take everything back."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    helper = Helper()
    if not hasattr(os, "pidfd_open"):
        sys.exit("this Python has no os.pidfd_open: it was built for a kernel older than Linux 5.3")
    helper.talk.say(
        {
            "blackstart": 1,
            "pid": os.getpid(),
            "user": user(),
            "host": socket.gethostname(),
            "python": sys.version.split()[0],
            "kernel": os.uname().release,
        }
    )
    signal.signal(signal.SIGTERM, _boundary)
    try:
        helper.serve()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        helper.take_back()
