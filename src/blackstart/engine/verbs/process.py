"""Undos of processes: end one with all that belongs to it, let a stopped one run on."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from blackstart.host import procs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import Outcome, Verb, Verify

GONE_LIMIT_S = 10.0


def _kill(arguments: Mapping[str, Any], _run: str) -> Verify:
    """End a process and all that belongs to it: `pid`, `start_ticks`.

    `marker` finds those who lost their parents.
    """
    pid, ticks, marker = int(arguments["pid"]), int(arguments["start_ticks"]), arguments.get("marker")

    def find() -> list[procs.Stat]:
        return procs.family(pid, ticks, marker)

    first = _kill_all(find())

    def verify() -> Outcome:
        killed = list(first)
        left = procs.wait_gone(first, GONE_LIMIT_S)
        while not left and (more := _kill_all(find())):  # somebody may have forked in between
            killed += more
            left = procs.wait_gone(more, GONE_LIMIT_S)
        return not left, {"killed": [one.pid for one in killed], "left": left}

    return verify


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
        now = procs.stat(pid)
        state = now.state if now is not None and now.start_ticks == ticks else "gone"
        return state != "T", {"state": state}

    return verify


VERBS: dict[str, Verb] = {"kill": _kill, "continue": _continue}
