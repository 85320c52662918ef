"""Undos of disk faults: what fills a disk is emptied, what lies over a folder is taken away."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any

from blackstart.host import mounts, namespaces, procs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import ByHand, Outcome, Verb, Verify

_GONE_LIMIT_S = 5.0


def _unmount(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Take our file system from the folder `path`, in the mount `namespace` of that number.

    From outside it is not touched: it ends with the last process in there, and each of those has its `kill`.
    """
    path, number = str(arguments["path"]), int(arguments["namespace"])
    here = namespaces.identity(namespaces.FILES) == number
    if here:
        mounts.unmount(path)

    def gone() -> bool:
        return not mounts.mounted(path) if here else namespaces.member(namespaces.FILES, number) is None

    def verify() -> Outcome:
        end = time.monotonic() + _GONE_LIMIT_S
        while not (done := gone()) and time.monotonic() < end:
            time.sleep(0.001)
        return done, {"path": path} if here else {"path": path, "namespace_gone": done}

    return verify


def _ballast(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Empty the nameless file that fills a disk: `pid`, `start_ticks`, `descriptor`, `inode`.

    When its holder has ended, the kernel has done that.
    """
    pid, ticks = int(arguments["pid"]), int(arguments["start_ticks"])
    descriptor, inode = int(arguments["descriptor"]), int(arguments["inode"])
    if procs.is_alive(pid, ticks):
        mounts.empty(pid, descriptor, inode)

    def verify() -> Outcome:
        if not procs.is_alive(pid, ticks):
            return True, {"holder": "gone, and its ballast with it"}
        return mounts.empty(pid, descriptor, inode), {"folder": arguments["folder"]}

    return verify


VERBS: dict[str, Verb] = {"unmount": _unmount, "ballast": _ballast}
BY_HAND: dict[str, ByHand] = {
    "unmount": lambda arguments: f"umount -l {shlex.quote(arguments['path'])}",
    "ballast": lambda arguments: f"truncate -s 0 /proc/{arguments['pid']}/fd/{arguments['descriptor']}",
}
