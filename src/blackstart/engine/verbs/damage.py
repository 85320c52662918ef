"""Undos of damaged data: put the old bytes back, but never over what the target has written since."""

from __future__ import annotations

import errno
import os
import shlex
from typing import TYPE_CHECKING, Any

from blackstart.host import bits, procs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import ByHand, Verb, Verify


_NOT_THERE = (errno.EIO, errno.EFAULT, errno.ESRCH, errno.ENOENT)
"""How the kernel answers who reads memory that is not mapped, or of a process that has gone."""


def _restore(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Put saved bytes back into a file: `path`, `offset`, `saved`, which must have the digest `saved_sha256`.

    Only while the `length` bytes from `begin` have the digest `sha256`, and the file ends at `size` where
    that is given: then nobody has touched the damage.
    """
    path, offset = str(arguments["path"]), int(arguments["offset"])
    kept = str(arguments["saved"])
    saved = bits.read(kept, 0, os.path.getsize(kept))  # noqa: PTH202 - pathlib is slow to import
    if _digest(saved) != arguments.get("saved_sha256", _digest(saved)):
        return lambda: (False, {"path": path, "error": f"{kept} is not what was there before the damage"})
    there = _there(path, offset, saved)
    if not there and _untouched(path, arguments):
        bits.write(path, offset, saved)
        # Looked at now: an older damage of the same place is taken back next, and changes it once more.
        restored = _there(path, offset, saved)
        return lambda: (restored, {"path": path, "restored_bytes": len(saved)})
    why = "it never was damaged, or is restored" if there else "the target changed it since"
    return lambda: (True, {"path": path, "left": why})


def _there(path: str, offset: int, saved: bytes) -> bool:
    try:
        return bits.read(path, offset, len(saved)) == saved
    except FileNotFoundError:
        return False


def _untouched(path: str, arguments: Mapping[str, Any]) -> bool:
    size = arguments.get("size")
    try:
        if size is not None and os.path.getsize(path) != size:  # noqa: PTH202 - see above
            return False
        found = bits.read(path, int(arguments["begin"]), int(arguments["length"]))
    except FileNotFoundError:
        return False
    return _digest(found) == str(arguments["sha256"])


def _digest(data: bytes) -> str:
    import hashlib  # noqa: PLC0415 - the guardian starts quicker without

    return hashlib.sha256(data).hexdigest()


def _restore_memory(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Put bytes back into a process: `pid`, `start_ticks`, `address`, `before` and `after` (hexadecimal)."""
    from blackstart.host import memory  # noqa: PLC0415 - the guardian starts quicker without

    pid, address = int(arguments["pid"]), int(arguments["address"])
    before, after = bytes.fromhex(arguments["before"]), bytes.fromhex(arguments["after"])
    if not procs.is_alive(pid, int(arguments["start_ticks"])):
        return lambda: (True, {"gone": True})
    try:
        now = memory.read(pid, address, len(after))
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        unmapped = {"left": f"no longer mapped: {error.strerror}"}
        return lambda: (True, unmapped)
    if now != after:
        return lambda: (True, {"left": "the process changed it since"})
    memory.write(pid, address, before)
    return lambda: (memory.read(pid, address, len(before)) == before, {"restored_bytes": len(before)})


BY_HAND: dict[str, ByHand] = {
    "restore": lambda arguments: (
        f"dd if={shlex.quote(arguments['saved'])} of={shlex.quote(arguments['path'])}"
        f" bs=1 seek={arguments['offset']} conv=notrunc"
    )
}
NEEDS = ("hashlib", "blackstart.host.memory")
VERBS: dict[str, Verb] = {"restore": _restore, "restore_memory": _restore_memory}
