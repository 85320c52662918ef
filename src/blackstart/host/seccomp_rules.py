"""Rules for system calls: which calls, on which files, from which to which one, and what becomes of them.

Standard library only: the supervisor process imports this.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from blackstart.host import procs, syscalls

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLES = 16
ACTIONS = ("errno", "pretend", "kill", "continue")
_AT_FDCWD = -100
_IOVEC = struct.Struct("<QQ")
_DELETED = " (deleted)"
_LONGEST_PATH = 4096
_DEEPEST = 32


class Rule(NamedTuple):
    """One rule; the first that acts decides, and every rule counts the calls that match it.

    `path` is the file itself or, ending in `/`, everything below; "" is any call. `first` to `last`
    (None: for good) of the matching calls are acted on, counted over all processes that it applies to:
    `pids` and their descendants, or all. `errno`: fails, is not done. `pretend`: reported as done, is not
    done. `kill`: the caller and the processes `pids` get `signal` before it is done (earlier calls of
    other threads that were under way may die with it). `continue`: is done. `delay_ms` passes first.
    """

    id: str
    calls: frozenset[str]
    path: str = ""
    exclude: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    first: int = 1
    last: int | None = None
    action: str = "continue"
    errno: int = 0
    delay_ms: float = 0.0
    signal: int = 9

    def problem(self) -> str | None:
        """Say what is wrong with it, or None."""
        unknown = self.calls - syscalls.CALLS.keys()
        if unknown or not self.calls:
            return f"unknown system calls: {', '.join(sorted(unknown)) or 'none named'}"
        if self.action not in ACTIONS:
            return f"unknown action {self.action!r}: one of {', '.join(ACTIONS)}"
        if self.action == "errno" and self.errno <= 0:
            return "`errno` is missing"
        if self.first < 1 or (self.last is not None and self.last < self.first):
            return f"no such calls: from {self.first} to {self.last}"
        return None

    def covers(self, path: str) -> bool:
        """Say whether a file is meant."""
        return _under(path, self.path) and not any(_under(path, one) for one in self.exclude)


def _under(path: str, prefix: str) -> bool:
    return path.startswith(prefix) if prefix.endswith("/") else path == prefix


class Counters(NamedTuple):
    """What a rule has seen: matching calls, calls it acted on, when first and last, and the first of them."""

    seen: int = 0
    acted: int = 0
    first_mono_ns: int | None = None
    last_mono_ns: int | None = None
    samples: tuple[dict[str, Any], ...] = ()


class Active:
    """A rule at work in the supervisor."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.seen = 0
        self.acted = 0
        self.first_mono_ns: int | None = None
        self.last_mono_ns: int | None = None
        self.samples: list[dict[str, Any]] = []
        self.victims = [handle for pid in rule.pids if (handle := _handle(pid)) is not None]

    def count(self) -> bool:
        """Count a matching call; says whether it is one to act on."""
        self.seen += 1
        last = self.rule.last
        return self.seen >= self.rule.first and (last is None or self.seen <= last)

    def act(self, now: int, caller: Caller) -> None:
        """Note that it acts; who called costs 100 µs to find out, so only the first are told by name."""
        self.acted += 1
        self.first_mono_ns = self.first_mono_ns or now
        self.last_mono_ns = now
        if len(self.samples) < SAMPLES:
            self.samples.append({"n": self.seen, "mono_ns": now, **caller.sample()})

    def close(self) -> None:
        """Let go of the handles."""
        while self.victims:
            os.close(self.victims.pop())

    def counters(self) -> Counters:
        """Return what it has seen so far."""
        return Counters(self.seen, self.acted, self.first_mono_ns, self.last_mono_ns, tuple(self.samples))


def _handle(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


class Caller:
    """The process behind a waiting call, looked at no more than needed: every look costs microseconds."""

    def __init__(self, tid: int, name: str, arguments: Sequence[int]) -> None:
        self.tid, self.name, self.arguments = tid, name, arguments
        self._paths: list[str] | None = None
        self._lineage: list[int] | None = None

    @property
    def paths(self) -> list[str]:
        """Return the files that it names, as the process sees them."""
        if self._paths is None:
            self._paths = list(_paths(self.tid, syscalls.CALLS[self.name].names, self.arguments))
        return self._paths

    @property
    def lineage(self) -> list[int]:
        """Return its pid and those of its ancestors."""
        if self._lineage is None:
            self._lineage = _lineage(self.tid)
        return self._lineage

    @property
    def size(self) -> int:
        """Return how many bytes it would write; 0 for calls that write none."""
        if self.name in syscalls.VECTORS:
            return _vector_size(self.tid, self.arguments[1], self.arguments[2])
        place = syscalls.CALLS[self.name].size
        return self.arguments[place] if place >= 0 else 0

    def meant_by(self, rule: Rule) -> bool:
        """Say whether the rule applies, cheapest question first."""
        if self.name not in rule.calls:
            return False
        if rule.path and not any(rule.covers(path) for path in self.paths):
            return False
        return not rule.pids or any(pid in rule.pids for pid in self.lineage)

    def sample(self) -> dict[str, Any]:
        """Tell who called what, for the witness."""
        return {"pid": self.lineage[0], "call": self.name, "path": " ".join(self.paths)}


def _paths(tid: int, names: str, arguments: Sequence[int]) -> list[str]:
    if names == syscalls.FD:
        return [_link(tid, f"fd/{_int(arguments[0])}")]
    if names == syscalls.PATH:
        return [_named(tid, _AT_FDCWD, arguments[0])]
    if names == syscalls.AT:
        return [_named(tid, _int(arguments[0]), arguments[1])]
    if names == syscalls.PATHS:
        return [_named(tid, _AT_FDCWD, one) for one in arguments[:2]]
    return [_named(tid, _int(folder), one) for folder, one in (arguments[:2], arguments[2:4])]


def _int(value: int) -> int:
    """Read a C `int` out of a register."""
    return (value & 0xFFFF_FFFF) - ((value & 0x8000_0000) << 1)


def _link(tid: int, what: str) -> str:
    try:
        return os.readlink(f"/proc/{tid}/{what}").removesuffix(_DELETED)  # noqa: PTH115 - 2 µs instead of 10
    except OSError:
        return ""


def _named(tid: int, folder: int, address: int) -> str:
    """Read a path out of the caller's memory, and make it absolute."""
    path = os.fsdecode(_memory(tid, address, _LONGEST_PATH).split(b"\0", 1)[0])
    if not path.startswith("/"):
        path = f"{_link(tid, 'cwd' if folder == _AT_FDCWD else f'fd/{folder}')}/{path}"
    return os.path.normpath(path)


def _memory(tid: int, address: int, size: int) -> bytes:
    """Read up to `size` bytes; what lies beyond the end of its page may not be there."""
    data = b""
    try:
        with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123 - 5 µs instead of 15
            while len(data) < size and b"\0" not in data:
                memory.seek(address + len(data))
                step = min(size - len(data), 4096 - (address + len(data)) % 4096)
                data += memory.read(step)
    except (OSError, ValueError, OverflowError):
        pass
    return data


def _vector_size(tid: int, address: int, count: int) -> int:
    try:
        with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123 - see above
            memory.seek(address)
            data = memory.read(_IOVEC.size * min(count, 1024))
    except (OSError, OverflowError):
        return 0
    return sum(size for _, size in _IOVEC.iter_unpack(data))


def _lineage(tid: int) -> list[int]:
    found = [_leader(tid)]
    while found[-1] > 1 and len(found) < _DEEPEST and (one := procs.stat(found[-1])) is not None:
        found.append(one.ppid)
    return found


def _leader(tid: int) -> int:
    """Return the process that a thread belongs to."""
    try:
        with open(f"/proc/{tid}/status", "rb") as file:  # noqa: PTH123 - see above
            return next(int(line.split()[1]) for line in file if line.startswith(b"Tgid:"))
    except (OSError, StopIteration):
        return tid
