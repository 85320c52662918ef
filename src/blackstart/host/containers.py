"""Containers of docker or podman by the Engine API over its unix socket: how one stands, start and stop it.

Standard library only: the guardian imports this. No `docker` command is needed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
from typing import Any, NamedTuple
from urllib.parse import quote

from blackstart.errors import TargetError

RESTARTING = frozenset({"always", "unless-stopped", "on-failure"})
"""The restart policies that bring back a container whose main process was killed."""

_OK, _NOT_MODIFIED, _MULTIPLE, _NOT_FOUND = 200, 304, 300, 404
_ASK_LIMIT_S = 10.0
_STOP_LIMIT_S = 600.0  # as long as the container's own stop time-out may be


class Container(NamedTuple):
    """A container by its name, or by its whole id, and the engine's socket."""

    name: str
    socket: str


class Engine(http.client.HTTPConnection):
    """A connection to the engine's unix socket."""

    def __init__(self, path: str, limit_s: float = _ASK_LIMIT_S) -> None:
        super().__init__("localhost", timeout=limit_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def engine() -> str:
    """Return the engine's socket: DOCKER_HOST says which, as to the docker command; else the first there is.

    Raises TargetError when DOCKER_HOST is something else than a unix socket.
    """
    told = os.environ.get("DOCKER_HOST", "")
    if told.startswith("unix://"):
        return told.removeprefix("unix://")
    if told:
        what = "only an engine of this host has processes that can be broken from here"
        raise TargetError(
            what, where=f"DOCKER_HOST={told}", hint="give a unix socket: unix:///var/run/docker.sock"
        )
    places = _places()
    return next((place for place in places if os.path.exists(place)), places[0])  # noqa: PTH110 - start time


def _places() -> list[str]:
    own = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    rootless = [f"{own}/docker.sock", f"{own}/podman/podman.sock"]
    return ["/var/run/docker.sock", "/run/podman/podman.sock", *rootless]


def inspect(container: Container) -> dict[str, Any]:
    """Return what the engine knows of exactly this container. Raises TargetError, also when there is none.

    The engine takes the beginning of an id for a name, too: what it finds so is somebody else's.
    """
    status, found = _ask(container.socket, "GET", f"/containers/{quote(container.name, safe='')}/json")
    named = isinstance(found, dict) and container.name in (
        str(found.get("Name", "")).lstrip("/"),
        found.get("Id"),
    )
    if status == _NOT_FOUND or (status == _OK and not named):
        raise TargetError("there is no such container", where=container.name, hint="docker ps --all")
    if not isinstance(found, dict) or status != _OK:
        raise TargetError(f"the engine answers {status}: {_message(found)}", where=container.name)
    return found


def start(container: Container) -> None:
    """Start it; one that runs is left alone. Raises TargetError."""
    identifier = inspect(container)["Id"]
    status, said = _ask(container.socket, "POST", f"/containers/{identifier}/start")
    if status >= _MULTIPLE and status != _NOT_MODIFIED:
        raise TargetError(f"cannot be started: {_message(said)}", where=container.name)


def stop(container: Container) -> None:
    """Have the engine begin to stop it, as it would for its operator. Raises TargetError.

    Its answer comes when the container has stopped: a thread waits for it, because an engine may give up
    what nobody waits for.
    """
    identifier = inspect(container)["Id"]
    link = Engine(container.socket, _STOP_LIMIT_S)
    with _reached(container.socket):
        link.request("POST", f"/containers/{identifier}/stop")
    threading.Thread(target=_answer, args=(link,), daemon=True).start()


def version(path: str) -> str:
    """Reach the engine. Raises TargetError saying why it cannot be reached."""
    status, found = _ask(path, "GET", "/version")
    if status != _OK or not isinstance(found, dict):
        raise TargetError(f"answers {status}: {_message(found)}", where=path)
    name = next((one["Name"] for one in found.get("Components", []) if one.get("Name")), "Engine")
    return f"{name} {found.get('Version', '?')}"


def _answer(link: Engine) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(link):
        link.getresponse().read()


def _ask(path: str, method: str, target: str) -> tuple[int, Any]:
    with _reached(path), contextlib.closing(Engine(path)) as link:
        link.request(method, target)
        answer = link.getresponse()
        body = answer.read()
    try:
        return answer.status, json.loads(body) if body else None
    except ValueError:
        return answer.status, body.decode("utf-8", "replace")


class _reached:  # noqa: N801 - reads like contextlib's own; that decorator costs the guardian's start time
    """Turn what goes wrong on the socket into one error that says which engine, and what to do."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, http.client.HTTPException)):
            why = getattr(error, "strerror", None) or error or type(error).__name__
            what = f"the engine cannot be reached: {why}"
            hint = (
                "is docker running, or podman's service, and may we use its socket? DOCKER_HOST names another"
            )
            raise TargetError(what, where=self._path, hint=hint) from None


def _message(said: Any) -> str:
    return str(said.get("message", said)) if isinstance(said, dict) else str(said)
