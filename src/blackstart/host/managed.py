"""What a service manager runs, units and containers alike: which process it is, start it, ask it to stop.

Standard library only: the guardian imports this.
"""

from __future__ import annotations

import math
import os
import shlex
import time
from typing import Any, Literal, NamedTuple

from blackstart.errors import TargetError
from blackstart.host import containers, procs, systemd

_POLL_S = 0.01
_NOTICE_LIMIT_S = 10.0
_STOP_LIMIT_S = 10.0  # docker's and podman's own
_REMOVED = "is removed by its engine when it ends (--rm): run it without"
_TRANSIENT = "has no unit file (systemd-run): its manager forgets it when it ends; give it one"
_US = 1000
_ENDED = ("exited", "stopped", "dead")
"""What engines say of a container that ran and has ended."""
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Place(NamedTuple):
    """A unit or a container: `at` is the manager's runtime folder, or `system`; the engine's socket."""

    kind: Literal["unit", "container"]
    name: str
    at: str


class State(NamedTuple):
    """How one stands: `pid` is its main process, 0 for none; `said` are the manager's own words.

    `policy` says who brings it back after a death, and `restarts` whether that is the manager. `group` is in
    the path of its control group. `started_ns` (monotonic) is when its main process began, where the manager
    tells it, and `ready_ns` when it said itself that it is ready (`Type=notify`: before that it does not
    run). `stopping`: it cannot be started yet. `status` is how its main process ended, negative for a signal;
    None while there is one, before the first, and of a unit's end that systemd takes for clean:
    it forgets such a unit at once. `stop_limit_s` is how long the manager waits for its end
    when it is asked to stop, before it kills it (containers). `lost` says why nobody could start it again.
    `bound` are the units that their manager stops whenever this one is down (`BindsTo=`), and does not start
    with it.
    """

    running: bool
    pid: int
    said: str
    policy: str
    restarts: bool
    group: str
    started_ns: int | None = None
    ready_ns: int | None = None
    stopping: bool = False
    status: int | None = None
    stop_limit_s: float = 0.0
    lost: str = ""
    bound: tuple[str, ...] = ()


def look(place: Place) -> State:
    """Ask the manager. Raises TargetError when it cannot be reached, or knows no such thing."""
    return _look_unit(place) if place.kind == "unit" else _look_container(place)


def bound(place: Place) -> list[Place]:
    """Return the units that run now and that their manager stops with this one, whatever ends it.

    Raises TargetError.
    """
    found: dict[str, Place] = {}
    ask = [place] if place.kind == "unit" else []
    while ask:
        for name in look(ask.pop()).bound:
            other = Place("unit", name, place.at)
            if name != place.name and name not in found and look(other).running:
                found[name] = other
                ask.append(other)
    return list(found.values())


def start(place: Place, *, wait: bool = True) -> None:
    """Start it; one that runs is left alone. With `wait` a unit is waited for. Raises TargetError.

    The kernel tells us of a death before the manager hears of it: until then that would call it running. And
    podman starts nothing that it is still stopping.
    """
    end = time.monotonic() + _NOTICE_LIMIT_S
    while ((state := look(place)).running and not lives(state)) or state.stopping:
        if time.monotonic() > end:
            break
        time.sleep(_POLL_S)
    if state.running:
        return
    if place.kind == "unit":
        systemd.start(_unit(place), wait=wait)
    else:
        containers.start(containers.Container(place.name, place.at))


def ask_stop(place: Place) -> None:
    """Ask the manager to stop it, and do not wait for the end. Raises TargetError."""
    if place.kind == "unit":
        systemd.stop(_unit(place))
    else:
        containers.stop(containers.Container(place.name, place.at))


def until_running(place: Place, limit_s: float) -> State:
    """Wait until it runs; returns how it stands then, or after `limit_s`. Raises TargetError."""
    end = time.monotonic() + limit_s
    while not ((state := look(place)).running and lives(state)) and time.monotonic() < end:
        time.sleep(_POLL_S)
    return state


def lives(state: State) -> bool:
    """Say whether its main process is there: it may have ended while the manager does not know yet."""
    found = procs.stat(state.pid)
    return found is not None and not found.dead


def command(place: Place, verb: str) -> str:
    """Name the command that does `start` or `stop`."""
    if place.kind == "unit":
        return systemd.by_hand(_unit(place), verb)
    return f"docker {verb} {shlex.quote(place.name)}"


def by_hand(place: Place, verb: str) -> str:
    """Return the command with which an operator does it, wherever the manager is."""
    said = command(place, verb)
    if place.kind == "unit":
        return said if place.at == systemd.SYSTEM else f"XDG_RUNTIME_DIR={shlex.quote(place.at)} {said}"
    return f"DOCKER_HOST={shlex.quote(f'unix://{place.at}')} {said}"


def belongs(pid: int, group: str) -> bool | None:
    """Say whether a process is in that control group, or below it; None when the kernel does not tell.

    A manager in another pid namespace tells pids that mean somebody else here.
    """
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:  # noqa: PTH123 - start time
            paths = [line.rstrip("\n").split(":", 2)[2] for line in file]
    except (OSError, IndexError):
        return None
    return any(group in path for path in paths) if paths and group else None


def began_ns(pid: int) -> int | None:
    """Return when a process began on the monotonic clock, known to a clock tick; None when it has gone."""
    found = procs.stat(pid)
    if found is None:
        return None
    boot, mono = time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return found.start_ticks * _NS_PER_TICK - (boot - mono)


def _unit(place: Place) -> systemd.Unit:
    return systemd.Unit(place.name, place.at)


def _look_unit(place: Place) -> State:
    found = systemd.show(_unit(place))
    active, result = found["ActiveState"], found.get("Result", "success")
    pid = int(found.get("MainPID") or 0)
    why = f", {result}" if result != "success" else ""
    tells = found.get("Type", "").startswith("notify") and active == "active"
    return State(
        running=active in ("active", "reloading") and pid > 0,
        pid=pid,
        said=f"{active} ({found.get('SubState', '')}{why})",
        policy=f"Restart={found.get('Restart', '')}",
        restarts=found.get("Restart", "") in systemd.RESTARTING,
        group=found.get("ControlGroup", ""),
        started_ns=_stamp_ns(found, "ExecMainStartTimestampMonotonic"),
        ready_ns=_stamp_ns(found, "ActiveEnterTimestampMonotonic") if tells else None,
        status=None if pid or result == "success" else _status(found),
        lost=_TRANSIENT if found.get("Transient") == "yes" else "",
        bound=tuple(found.get("BoundBy", "").split()),
    )


def _status(found: dict[str, str]) -> int | None:
    """Return the main process's exit status, negative for a signal (CLD_KILLED, CLD_DUMPED)."""
    how, number = int(found.get("ExecMainCode") or 0), int(found.get("ExecMainStatus") or 0)
    return {1: number, 2: -number, 3: -number}.get(how)


def _stamp_ns(found: dict[str, str], name: str) -> int | None:
    return int(found.get(name) or 0) * _US or None


def _look_container(place: Place) -> State:
    found = containers.inspect(containers.Container(place.name, place.at))
    state: dict[str, Any] = found.get("State") or {}
    host: dict[str, Any] = found.get("HostConfig") or {}
    policy = str((host.get("RestartPolicy") or {}).get("Name") or "no")
    told = (found.get("Config") or {}).get("StopTimeout")
    code, words = state.get("ExitCode", 0), str(state.get("Status") or "unknown")
    if not state.get("Running") and state.get("Error"):
        words = f"{words}: {state['Error']}"
    paused, again = bool(state.get("Paused")), bool(state.get("Restarting"))
    running = bool(state.get("Running")) and not paused and not again
    return State(
        running=running,
        pid=int(state.get("Pid") or 0) if not again else 0,
        said=words if running else f"{words} (exit code {code})",
        policy=f"restart policy {policy}",
        restarts=policy in containers.RESTARTING,
        group=str(found["Id"]),
        stopping=words == "stopping",
        status=int(code) if words in _ENDED else None,
        stop_limit_s=_STOP_LIMIT_S if told is None else float(told) if told >= 0 else math.inf,
        lost=_REMOVED if host.get("AutoRemove") else "",
    )


def refuse_strange(place: Place, state: State) -> None:
    """See that the main process is the manager's own. Raises TargetError when its pid is somebody else's."""
    if belongs(state.pid, state.group) is False:
        what = f"pid {state.pid} is not in its control group ({state.group})"
        hint = "is the manager in another pid namespace? Run Blackstart where the manager runs"
        raise TargetError(what, where=place.name, hint=hint)
