"""What an undo can do: few verbs, each harmless when applied twice, each verified. Standard library only.

A verb begins its work and hands back a function that waits for the effect and tells it: so a hundred undos
are under way at once, and one that hangs does not hold up the others.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat as modes
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from blackstart.host import procs

Outcome = tuple[bool | None, dict[str, Any]]
"""Was it verified (None: could not be compared), and the evidence."""

Verify = Callable[[], Outcome]
GONE_LIMIT_S = 10.0
_HTTP_LIMIT_S = 3.0


def begin(action: str, arguments: Mapping[str, Any], run: str) -> Verify:
    """Carry out one undo; never raises: what went wrong is the outcome."""
    verb = VERBS.get(action)
    if verb is None:
        return lambda: (False, {"error": f"unknown action {action!r}"})
    try:
        return _guarded(verb(arguments, run))
    except Exception as error:  # noqa: BLE001 - one undo must never keep the others from happening
        problem = f"{type(error).__name__}: {error}"
        return lambda: (False, {"error": problem})


def _guarded(verify: Verify) -> Verify:
    def outcome() -> Outcome:
        try:
            return verify()
        except Exception as error:  # noqa: BLE001 - see `begin`
            return False, {"error": f"{type(error).__name__}: {error}"}

    return outcome


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


def _http(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Ask over plain HTTP: `url`, `method`. A server that is gone took its misbehaviours with it."""
    url = urlsplit(str(arguments["url"]))
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    head = f"{arguments.get('method', 'DELETE')} {path} HTTP/1.1\r\nHost: {url.netloc}\r\n"
    try:
        link = socket.create_connection((str(url.hostname), url.port or 80), timeout=_HTTP_LIMIT_S)
        link.sendall(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
    except ConnectionError as error:
        gone = {"gone": str(error)}
        return lambda: (True, gone)

    def verify() -> Outcome:
        with link:
            line = link.recv(65536).split(b"\r\n", 1)[0].decode(errors="replace")
        return line.split(" ")[1:2] in (["200"], ["202"], ["204"], ["404"]), {"answer": line}

    return verify


def _unlink(arguments: Mapping[str, Any], run: str) -> Verify:
    """Remove one file below the run folder: `path`."""
    path = _inside(str(arguments["path"]), run)
    if os.path.lexists(path):
        os.unlink(path)  # noqa: PTH108 - pathlib would double the guardian's start time
    return lambda: (not os.path.lexists(path), {"path": path})


def _rmtree(arguments: Mapping[str, Any], run: str) -> Verify:
    """Remove a folder below the run folder: `path`."""
    path = _inside(str(arguments["path"]), run)
    if os.path.lexists(path) and modes.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    return lambda: (not os.path.lexists(path), {"path": path})


def _inside(path: str, run: str) -> str:
    """Resolve the folder that holds `path`, and refuse anything that is not truly below the run folder."""
    parent = os.path.realpath(os.path.dirname(path))  # noqa: PTH120 - see above
    root = os.path.realpath(run)
    if parent != root and not parent.startswith(root + os.sep):
        raise PermissionError(f"{path} is not below the run folder {run}")
    return os.path.join(parent, os.path.basename(path))  # noqa: PTH118,PTH119 - see above


VERBS: dict[str, Callable[[Mapping[str, Any], str], Verify]] = {
    "kill": _kill,
    "continue": _continue,
    "http": _http,
    "unlink": _unlink,
    "rmtree": _rmtree,
}
