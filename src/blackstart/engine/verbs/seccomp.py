"""Undo of rules for system calls: the supervisor is asked to take them out (`host.seccomp`)."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING, Any

from blackstart.host import procs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blackstart.engine.verbs.verb import Outcome, Verb, Verify

_LIMIT_S = 5.0
_AGAIN_S = 0.001
_LINE = 1 << 17
_UNANSWERED = "nobody answers their filtered system calls any more (ENOSYS): start them again"


def _drop(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Take rules out: `name`, `token`, `rules`.

    Without a supervisor there are none: its keeper has no rules. One that ends before it has answered is
    asked again, until it is seen that it is gone. Without a keeper, too, nobody lets the calls of the running
    processes that were `filtered` (pid, start time) pass: the kernel fails them until they are started again.
    Nor, ever, those of the `unanswered`, whose filter the supervisor did not get.
    """
    asked = _ask(arguments)

    def verify() -> Outcome:
        if unanswered := _living(arguments.get("unanswered", ())):
            return False, {"error": _UNANSWERED, "pids": unanswered}
        link, end = asked, time.monotonic() + _LIMIT_S
        while link is not None:
            with link:
                left = _left(link)
            if left is not None:
                still = left & set(arguments["rules"])
                return not still, {"rules_left": sorted(still)}
            if time.monotonic() > end:
                return False, {"supervisor": "ends the connection without an answer"}
            time.sleep(_AGAIN_S)
            link = _ask(arguments)
        if unanswered := _unanswered(arguments):
            return False, {"error": _UNANSWERED, "pids": unanswered}
        return True, {"supervisor": "gone, and its rules with it"}

    return verify


def _unanswered(arguments: Mapping[str, Any]) -> list[int]:
    """Name the filtered processes that live without a keeper."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(_LIMIT_S)
        try:
            link.connect(f"\0{arguments['name']}-keeper")
        except ConnectionRefusedError:
            return _living(arguments.get("filtered", ()))
    return []


def _living(refs: Iterable[tuple[int, int]]) -> list[int]:
    return [pid for pid, ticks in refs if procs.is_alive(pid, ticks) and procs.filtered(pid)]


def _ask(arguments: Mapping[str, Any]) -> socket.socket | None:
    """Ask the supervisor; None when there is none."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.settimeout(_LIMIT_S)
    try:
        link.connect(f"\0{arguments['name']}")
    except ConnectionRefusedError:
        link.close()
        return None
    with contextlib.suppress(ConnectionError):  # it ended just now: seen when the answer is read
        link.send(json.dumps({"token": arguments["token"], "drop": arguments["rules"]}).encode())
    return link


def _left(link: socket.socket) -> set[Any] | None:
    """Read which rules are left; None when the supervisor ended before it told."""
    try:
        said = link.recv(_LINE)
    except ConnectionError:
        return None
    return set(json.loads(said)["rules"]) if said else None


VERBS: dict[str, Verb] = {"seccomp": _drop}
