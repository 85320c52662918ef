"""Undos of processes: end one with all that belongs to it, let a stopped one run on."""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from blackstart.host import procs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blackstart.engine.verbs.verb import ByHand, Outcome, Verb, Verify

GONE_LIMIT_S = 10.0
_RUNS_LIMIT_S = 1.0
_SHARED_S = 0.05  # whom the first look missed, because it was born since, the last look finds


class _Censuses:
    """Many processes are ended at once: those who look at the same moment look together."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._last: procs.Census | None = None

    def taken(self, age_s: float) -> procs.Census:
        """Return one that was begun not longer than `age_s` before this call."""
        wanted_s = time.monotonic() - age_s
        with self._turn:
            if self._last is None or self._last.taken_s < wanted_s:
                self._last = procs.Census()
            return self._last


_CENSUSES = _Censuses()


def _kill(arguments: Mapping[str, Any], _run: str) -> Verify:
    """End a process and all that belongs to it: `pid`, `start_ticks`.

    `marker` finds those who lost their parents. Without one it is a program of ours, which is hit at once:
    what it starts stays in its session.
    """
    pid, ticks, marker = int(arguments["pid"]), int(arguments["start_ticks"]), arguments.get("marker")

    def find(age_s: float = 0.0) -> list[procs.Stat]:
        if marker is None:
            return procs.family(pid, ticks, young=True)
        return procs.family(pid, ticks, marker, census=_CENSUSES.taken(age_s))

    own = procs.stat(pid)
    first = _kill_all([own] if marker is None and own is not None and own.start_ticks == ticks else [])
    first += _kill_all(find(_SHARED_S))

    def verify() -> Outcome:
        killed = list(first)
        left = procs.wait_gone(first, GONE_LIMIT_S)
        while not left and (members := find()):  # somebody may have forked in between
            more = _kill_all(members)
            killed += more
            left = procs.wait_gone(members, GONE_LIMIT_S)  # with whom we may not kill
        return not left, {"killed": [one.pid for one in killed], "left": left}

    return verify


def gone(ends: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Choose the arguments of `kill` for which nobody is left to be ended; looks, and does nothing.

    Looked for twice: at the first time somebody may have been forking.
    """
    left = [one for one in ends if not procs.is_alive(int(one["pid"]), int(one["start_ticks"]))]
    for _ in range(2):
        census = procs.Census() if left else None
        left = [
            one
            for one in left
            if not procs.family(int(one["pid"]), int(one["start_ticks"]), one.get("marker"), census=census)
        ]
    return left


def _kill_all(members: list[procs.Stat]) -> list[procs.Stat]:
    return [one for one in members if procs.send(one, signal.SIGKILL)]


def _continue(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Let a stopped process run on: `pid`, `start_ticks`."""
    pid, ticks = int(arguments["pid"]), int(arguments["start_ticks"])
    found = procs.stat(pid)
    if found is None or found.start_ticks != ticks:
        return lambda: (True, {"gone": True})
    procs.send(found, signal.SIGCONT)

    def verify() -> Outcome:
        """Look, and say it again to one whom somebody on the point of dying stopped once more."""
        end = time.monotonic() + _RUNS_LIMIT_S
        while (now := procs.stat(pid)) is not None and now.start_ticks == ticks and now.state == "T":
            procs.send(now, signal.SIGCONT)
            if time.monotonic() > end:
                return False, {"state": now.state}
            time.sleep(0.001)
        return True, {"state": now.state if now is not None and now.start_ticks == ticks else "gone"}

    return verify


def _oom_score(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Give a process its `value` of `oom_score_adj` back: `pid`, `start_ticks`; and its heirs (`_heirs`)."""
    value = int(arguments["value"])

    def give(pid: int) -> None:
        with open(_file(pid), "w") as file:  # noqa: PTH123 - start time
            file.write(str(value))

    return _given_back(arguments, "oom_score_adj", value, _score, give)


def _score(pid: int) -> int:
    with open(_file(pid)) as file:  # noqa: PTH123 - start time
        return int(file.read())


def _file(pid: int) -> str:
    return f"/proc/{pid}/oom_score_adj"


def _limit(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Give a process its limit back: `pid`, `start_ticks`, `resource`, `soft`, `hard`; and its heirs."""
    what, before = int(arguments["resource"]), [int(arguments["soft"]), int(arguments["hard"])]

    def give(pid: int) -> None:
        resource.prlimit(pid, what, (before[0], before[1]))

    return _given_back(arguments, "limit", before, lambda pid: list(resource.prlimit(pid, what)), give)


def _given_back(
    arguments: Mapping[str, Any],
    name: str,
    value: Any,
    ask: Callable[[int], Any],
    give: Callable[[int], None],
) -> Verify:
    """Have a process and its heirs have `value` again, whom `ask` asks and `give` gives it."""
    pid, ticks = int(arguments["pid"]), int(arguments["start_ticks"])

    def restore() -> list[int]:
        """Give, to the process first: whoever is born then has it already. Returns who had not got it."""
        whose = [pid] if procs.is_alive(pid, ticks) else []
        wrong = []
        for one in (*whose, *_heirs(arguments, ask)):
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if ask(one) != value:
                    give(one)
                    wrong.append(one)
        return wrong

    restore()

    def verify() -> Outcome:
        if left := [one for one in restore() if _otherwise(one, value, ask)]:
            return False, {"pids": left}
        return True, {name: value} if procs.is_alive(pid, ticks) else {"gone": True}

    return verify


def _otherwise(pid: int, value: Any, ask: Callable[[int], Any]) -> bool:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        return bool(ask(pid) != value)
    return False


def _heirs(arguments: Mapping[str, Any], ask: Callable[[int], Any]) -> list[int]:
    """Find who was born of it since `since_ticks` and has inherited what the fault had set: `to`."""
    if "to" not in arguments:
        return []
    to, since = arguments["to"], int(arguments["since_ticks"])
    pid, found = int(arguments["pid"]), []
    for one in procs.family(pid, int(arguments["start_ticks"]), young=True):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, PermissionError):
            if one.pid != pid and one.start_ticks >= since and ask(one.pid) == to:
                found.append(one.pid)
    return found


BY_HAND: dict[str, ByHand] = {
    "kill": lambda arguments: f"kill -KILL {arguments['pid']}",
    "continue": lambda arguments: f"kill -CONT {arguments['pid']}",
    "oom_score": lambda arguments: f"echo {arguments['value']} > /proc/{arguments['pid']}/oom_score_adj",
}
VERBS: dict[str, Verb] = {
    "kill": _kill,
    "continue": _continue,
    "oom_score": _oom_score,
    "limit": _limit,
}
