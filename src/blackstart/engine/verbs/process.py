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
    from collections.abc import Mapping

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
    """Give a process its `value` of `oom_score_adj` back: `pid`, `start_ticks`."""
    pid, value = int(arguments["pid"]), str(int(arguments["value"]))
    if procs.is_alive(pid, int(arguments["start_ticks"])):
        with contextlib.suppress(ProcessLookupError), open(_file(pid), "w") as file:  # noqa: PTH123 - start time
            file.write(value)

    def verify() -> Outcome:
        if not procs.is_alive(pid, int(arguments["start_ticks"])):
            return True, {"gone": True}
        with open(_file(pid)) as file:  # noqa: PTH123 - start time
            now = file.read().strip()
        return now == value, {"oom_score_adj": now}

    return verify


def _file(pid: int) -> str:
    return f"/proc/{pid}/oom_score_adj"


def _limit(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Give a process its limit back: `pid`, `start_ticks`, `resource` (a number), `soft`, `hard`."""
    pid, what = int(arguments["pid"]), int(arguments["resource"])
    before = (int(arguments["soft"]), int(arguments["hard"]))
    if not procs.is_alive(pid, int(arguments["start_ticks"])):
        return lambda: (True, {"gone": True})
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, what, before)

    def verify() -> Outcome:
        if not procs.is_alive(pid, int(arguments["start_ticks"])):
            return True, {"gone": True}
        now = resource.prlimit(pid, what)
        return now == before, {"limit": list(now)}

    return verify


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
