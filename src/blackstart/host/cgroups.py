"""Control groups, version 1 and 2: where they are, one of our own, and how everybody gets home from it.

Standard library only: the guardian imports this. A group of ours lies below that of the process it is made
for, so that the limits of its surroundings go on to hold.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

_REMOVE_LIMIT_S = 5.0
_MANAGERS = "name=systemd"
"""The hierarchy of version 1 that has no controller: service managers and engines keep their groups in it."""

_OURS = re.compile(r"blackstart-\d+-[0-9a-f]{6}-")
_UNLIMITED = (
    ("cpu.max", "max"),
    ("cpu.weight", "100"),
    ("memory.max", "max"),
    ("memory.swap.max", "max"),
    ("cpu.cfs_quota_us", "-1"),
    ("cpu.shares", "1024"),
    ("memory.memsw.limit_in_bytes", "-1"),
    ("memory.limit_in_bytes", "-1"),
)
"""The limits that faults set, as they are in a new group."""

NO_CONTROLLER = "freezer"
"""Version 2 can freeze any group; version 1 has a controller of that name."""


class Hierarchy(NamedTuple):
    """Where a controller's groups are: mounted at `mount`, which shows the hierarchy from `root` on."""

    controller: str
    version: int
    mount: Path
    root: str


@cache
def hierarchy(controller: str) -> Hierarchy | None:
    """Find the controller (`memory`, `cpu`, `freezer`), in version 2 first; None when it is in neither."""
    mounts = list(_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8")))
    for root, mount, kind, _ in mounts:
        if kind == "cgroup2" and controller in (NO_CONTROLLER, *_words(mount / "cgroup.controllers")):
            return Hierarchy(controller, 2, mount, root)
    for root, mount, kind, options in mounts:
        if kind == "cgroup" and controller in options.split(","):
            return Hierarchy(controller, 1, mount, root)
    return None


def _mounts(text: str) -> list[tuple[str, Path, str, str]]:
    """Read mount root, mount point, kind and super options of each line."""
    found = []
    for line in text.splitlines():
        left, right = line.split(" - ", 1)
        parts, (kind, _, options) = left.split(), right.split(" ", 2)
        found.append((parts[3], Path(parts[4].replace("\\040", " ")), kind, options))
    return found


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:
        return []


def home(where: Hierarchy, pid: int) -> Path:
    """Return the group that a process is in."""
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if where.version == 2 and not controllers:  # noqa: PLR2004 - the version
            return _below(where, path)
        if where.version == 1 and where.controller in controllers.split(","):
            return _below(where, path)
    return where.mount


def _below(where: Hierarchy, path: str) -> Path:
    relative = path.removeprefix(where.root) if where.root != "/" else path
    found = where.mount / relative.lstrip("/")
    return found if found.is_dir() else where.mount


def nursery(where: Hierarchy, pid: int) -> Path:
    """Return where a group for this process can be made.

    In version 2 a group with processes cannot hand out controllers: go up to one that does.
    """
    folder = home(where, pid)
    if where.version == 1 or where.controller == NO_CONTROLLER:
        return folder
    while where.controller not in _words(folder / "cgroup.subtree_control") and folder != where.mount:
        folder = folder.parent
    return folder


def path(where: Hierarchy, pid: int, name: str) -> Path:
    """Return where a group of that name for that process would be: known before it is made."""
    return nursery(where, pid) / name


def make(folder: Path) -> None:
    """Make a group. Raises OSError."""
    folder.mkdir()


def join(folder: Path, pid: int) -> None:
    """Move a process with all its threads into a group. Raises OSError."""
    write(folder, "cgroup.procs", str(pid))


def leave(pid: int) -> None:
    """Move a process to the root of the hierarchies by which managers end groups, as far as we may."""
    for controller in (NO_CONTROLLER, _MANAGERS):
        where = hierarchy(controller)
        if where is not None and (where.version == 2 or controller == _MANAGERS):  # noqa: PLR2004 - the version
            with contextlib.suppress(OSError):
                join(where.mount, pid)


def write(folder: Path, file: str, text: str) -> None:
    """Write one of a group's files in a single call, as the kernel demands. Raises OSError."""
    descriptor = os.open(folder / file, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def values(folder: Path, file: str) -> dict[str, int]:
    """Read a file of lines `name number`; empty when it is not there."""
    words = _words(folder / file)
    return {name: int(number) for name, number in zip(words[::2], words[1::2], strict=False)}


def members(folder: Path) -> list[int]:
    """Return the processes in a group; none when there is no such group."""
    return [int(pid) for pid in _words(folder / "cgroup.procs")]


def freeze(folder: Path, *, frozen: bool) -> None:
    """Let all in a group stand still, or run on."""
    if (folder / "cgroup.freeze").exists():
        write(folder, "cgroup.freeze", "1" if frozen else "0")
    elif (folder / "freezer.state").exists():
        write(folder, "freezer.state", "FROZEN" if frozen else "THAWED")


def is_frozen(folder: Path) -> bool:
    """Ask the kernel whether all in a group stand still."""
    if (folder / "cgroup.events").exists():
        return values(folder, "cgroup.events").get("frozen") == 1
    return _words(folder / "freezer.state") == ["FROZEN"]


def lift(folder: Path) -> None:
    """Take all limits from a group of ours: who cannot leave it at once is hurt no more."""
    for file, text in _UNLIMITED:
        with contextlib.suppress(OSError):  # of the other version, or not accounted for
            write(folder, file, text)


def _there_again(home: Path) -> Path:
    """Return the group from which somebody came; made again where it went meanwhile.

    In version 2 the group above it may not hold processes.
    """
    if not home.is_dir():
        with contextlib.suppress(OSError):
            home.mkdir(parents=True)
    return home


def ours(folder: Path) -> bool:
    """Say whether a group was made for a fault."""
    return any(_OURS.match(part) for part in folder.parts)


def left_empty(home: Path, pid: int) -> str | None:
    """Name the systemd scope that would be empty without this process, or None: systemd ends such a scope."""
    scope = next((one for one in (home, *home.parents) if one.name.endswith(".scope")), None)
    if scope is None:
        return None
    inside = {one for group in scope.rglob("cgroup.procs") for one in members(group.parent)}
    return scope.name if inside <= {pid} else None


def dissolve(folder: Path, back_to: Path, limit_s: float = _REMOVE_LIMIT_S) -> bool:
    """Lift a group's limits, thaw it, send everybody home, remove it; says whether it is gone. Idempotent."""
    end = time.monotonic() + limit_s
    lift(folder)
    while folder.is_dir():
        freeze(folder, frozen=False)
        for pid in members(folder):
            with contextlib.suppress(OSError):  # it has just ended, or is about to
                join(_there_again(back_to), pid)
        with contextlib.suppress(OSError):
            folder.rmdir()
            break
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return not folder.is_dir()


@cache
def unavailable(controller: str) -> str | None:
    """Say why no group with this controller can be made here (tried), or None."""
    where = hierarchy(controller)
    if where is None:
        return f"the kernel offers no cgroup controller `{controller}`"
    folder = path(where, os.getpid(), f"blackstart-try-{os.getpid()}")
    try:
        make(folder)
    except OSError as error:
        return f"cannot make a cgroup in {folder.parent}: {error.strerror} (root is needed)"
    try:
        if not (folder / _PROOF[controller][where.version - 1]).exists():
            return f"{folder.parent} does not hand out the controller `{controller}` (cgroup.subtree_control)"
    finally:
        folder.rmdir()
    return None


_PROOF = {
    "memory": ("memory.limit_in_bytes", "memory.max"),
    "cpu": ("cpu.cfs_quota_us", "cpu.max"),
    "freezer": ("freezer.state", "cgroup.freeze"),
}
