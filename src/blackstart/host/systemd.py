"""systemd units by `systemctl`: how one stands, start it, ask it to stop.

Standard library only: the guardian imports this.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import NamedTuple

from blackstart.errors import TargetError

SYSTEM = "system"
RESTARTING = frozenset({"always", "on-failure", "on-abnormal", "on-abort"})
"""The values of `Restart=` that bring back a unit whose main process was killed."""

_SHOWN = (
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "MainPID",
    "Type",
    "Restart",
    "ControlGroup",
    "Transient",
    "BoundBy",
    "ExecMainStartTimestampMonotonic",
    "ExecMainCode",
    "ExecMainStatus",
    "ActiveEnterTimestampMonotonic",
)
_ASK_LIMIT_S = 10.0
_START_LIMIT_S = 90.0


class Unit(NamedTuple):
    """A unit of the system's manager, or of a user's: then `manager` is its XDG_RUNTIME_DIR."""

    name: str
    manager: str


def manager(which: str | None) -> str:
    """Return where the manager is: `system`, or the runtime folder of our user. Raises TargetError."""
    if which != "user":
        return SYSTEM
    folder = os.environ.get("XDG_RUNTIME_DIR")
    if not folder:
        what = "nobody says where our user's manager is: XDG_RUNTIME_DIR is not set"
        usual = f"/run/user/{os.getuid()}"
        there = f"export XDG_RUNTIME_DIR={usual}"
        is_there = os.path.isdir(usual)  # noqa: PTH112 - start time
        absent = f"our user has no manager here (no {usual}); systemd has `loginctl enable-linger`"
        raise TargetError(what, where="systemctl --user", hint=there if is_there else absent)
    return folder


def show(unit: Unit) -> dict[str, str]:
    """Return what the manager knows of the unit. Raises TargetError, also when there is no such unit."""
    text = _ask(unit.manager, "show", f"--property={','.join(_SHOWN)}", "--", unit.name)
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    load = found.get("LoadState", "")
    if load == "masked":
        raise TargetError("is masked", where=unit.name, hint=by_hand(unit, "unmask"))
    if load != "loaded":
        listed = " ".join((*_command(unit.manager), "list-units", "--all"))
        raise TargetError(f"the manager knows no such unit ({load})", where=unit.name, hint=listed)
    return found


def start(unit: Unit, *, wait: bool) -> None:
    """Start it, though it failed too often before; with `wait` until its job is done. Raises TargetError."""
    with contextlib.suppress(TargetError):  # it may not be loaded at present; the start tells what is wrong
        _ask(unit.manager, "reset-failed", "--", unit.name)
    waiting = () if wait else ("--no-block",)
    _ask(unit.manager, *waiting, "start", "--", unit.name, limit_s=_START_LIMIT_S)


def stop(unit: Unit) -> None:
    """Have the manager begin to stop it, and only it. Raises TargetError.

    Otherwise units with `Requires=` or `PartOf=` on it are stopped, too, and start no more with it.
    """
    _ask(unit.manager, "--no-block", "--job-mode=ignore-dependencies", "stop", "--", unit.name)


def version(where: str) -> str:
    """Reach the manager. Raises TargetError saying why it cannot be reached."""
    return _ask(where, "show", "--property=Version", "--value").strip()


def by_hand(unit: Unit, verb: str) -> str:
    """Return the command with which an operator does the same."""
    return " ".join((*_command(unit.manager), verb, unit.name))


def journal(unit: Unit) -> list[str]:
    """Return the command that follows what the unit says from now on, a JSON object a line."""
    of = "--unit" if unit.manager == SYSTEM else "--user-unit"
    return ["journalctl", "--follow", "--lines=0", "--output=json", "--quiet", f"{of}={unit.name}"]


def environment(where: str) -> dict[str, str]:
    """Return the environment in which the manager is asked, in plain English."""
    own = {} if where == SYSTEM else {"XDG_RUNTIME_DIR": where}
    kept = {key: text for key, text in os.environ.items() if not (own and key == "DBUS_SESSION_BUS_ADDRESS")}
    return {**kept, **own, "LC_ALL": "C"}


def _command(where: str) -> tuple[str, ...]:
    return ("systemctl",) if where == SYSTEM else ("systemctl", "--user")


def _ask(where: str, *arguments: str, limit_s: float = _ASK_LIMIT_S) -> str:
    command = [*_command(where), "--no-pager", "--no-ask-password", *arguments]
    said = " ".join((*_command(where), *(word for word in arguments if not word.startswith("--"))))
    try:
        done = subprocess.run(
            command, env=environment(where), capture_output=True, text=True, check=False, timeout=limit_s
        )
    except FileNotFoundError:
        raise TargetError("there is no systemctl here", where=said, hint="this host has no systemd") from None
    except subprocess.TimeoutExpired:
        raise TargetError(f"no answer within {limit_s:g} s", where=said) from None
    if done.returncode != 0:
        why = done.stderr.strip().splitlines()
        raise TargetError(why[0] if why else f"status {done.returncode}", where=said, hint=" ".join(why[1:2]))
    return done.stdout
