"""System calls by name: their numbers on this machine, and which argument names the file."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

MACHINE = platform.machine()
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""How the kernel names each machine in `seccomp_data.arch` (linux/audit.h)."""

FD, PATH, AT, AT_AT, PATHS = "fd", "path", "at", "at at", "paths"


class Call(NamedTuple):
    """One system call: its number by machine (-1: not there), how it names files, which argument is its size.

    `names`: `fd` (argument 0), `path` (argument 0), `at` (folder 0, path 1), `paths` (0 and 1), `at at`.
    """

    x86_64: int
    aarch64: int
    names: str
    size: int = -1


CALLS: dict[str, Call] = {
    "read": Call(0, 63, FD),
    "pread64": Call(17, 67, FD),
    "write": Call(1, 64, FD, 2),
    "pwrite64": Call(18, 68, FD, 2),
    "writev": Call(20, 66, FD),
    "pwritev": Call(296, 70, FD),
    "pwritev2": Call(328, 287, FD),
    "fsync": Call(74, 82, FD),
    "fdatasync": Call(75, 83, FD),
    "sync_file_range": Call(277, 84, FD),
    "ftruncate": Call(77, 46, FD),
    "truncate": Call(76, 45, PATH),
    "fallocate": Call(285, 47, FD),
    "open": Call(2, -1, PATH),
    "creat": Call(85, -1, PATH),
    "openat": Call(257, 56, AT),
    "openat2": Call(437, 437, AT),
    "mkdir": Call(83, -1, PATH),
    "mkdirat": Call(258, 34, AT),
    "unlink": Call(87, -1, PATH),
    "unlinkat": Call(263, 35, AT),
    "rename": Call(82, -1, PATHS),
    "renameat": Call(264, 38, AT_AT),
    "renameat2": Call(316, 276, AT_AT),
    "link": Call(86, -1, PATHS),
    "linkat": Call(265, 37, AT_AT),
}
VECTORS = frozenset({"writev", "pwritev", "pwritev2"})
"""These write what `iovec`s point at: argument 1, as many as argument 2 says."""

WRITES = frozenset({"write", "pwrite64", "writev", "pwritev", "pwritev2"})
SYNCS = frozenset({"fsync", "fdatasync", "sync_file_range"})
RENAMES = frozenset({"rename", "renameat", "renameat2"})
OPENS = frozenset({"open", "openat", "openat2", "creat"})
UNLINKS = frozenset({"unlink", "unlinkat"})
SIZES = frozenset({"truncate", "ftruncate", "fallocate"})
FAMILIES = {
    "writes": WRITES,
    "syncs": SYNCS,
    "renames": RENAMES,
    "opens": OPENS,
    "unlinks": UNLINKS,
    "sizes": SIZES,
}


def named(what: str | Iterable[str]) -> frozenset[str]:
    """Resolve a name, or several: of system calls or of whole families. Unknown ones stay as they are."""
    names = [what] if isinstance(what, str) else what
    return frozenset().union(*(FAMILIES.get(name, {name}) for name in names))


def number(name: str) -> int | None:
    """Return the call's number on this machine.

    None where the machine has no such call. Raises KeyError for an unknown name.
    """
    call = CALLS[name]
    found = {"x86_64": call.x86_64, "aarch64": call.aarch64}.get(MACHINE, -1)
    return None if found < 0 else found


def by_number() -> dict[int, str]:
    """Return the names of all known calls of this machine."""
    return {found: name for name in CALLS if (found := number(name)) is not None}
