"""Namespaces of its own for a trial: a loopback network and mounts that nobody else on the host sees.

As root they are simply made. An ordinary user makes a user namespace first, in which the process keeps its
uid and holds all capabilities: over these namespaces and nothing else. What lives in them (packet filter
rules, mounts) ends with their last process: the kernel takes back what nobody else could.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

NETWORK, FILES = "network", "files"
_FLAGS = {NETWORK: 0x4000_0000, FILES: 0x0002_0000}
_LINKS = {NETWORK: "net", FILES: "mnt"}
_NEW_USER = 0x1000_0000
_PRIVATE, _RECURSIVE = 1 << 18, 1 << 14
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _UP = 0x8913, 0x8914, 1
_PR_SET_DUMPABLE = 4
_PR_CAP_AMBIENT, _RAISE = 47, 2
_CAPABILITY_VERSION = 0x2008_0522
_KEPT = (1, 2, 12, 13, 19, 21)  # DAC_OVERRIDE, DAC_READ_SEARCH, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_ADMIN


def enter(wanted: Iterable[str]) -> frozenset[str]:
    """Put this process, and all that it starts, into namespaces of its own. Raises OSError when it may not.

    To be called by a process with a single thread, before it opens sockets. Clears the parent-death signal.
    """
    chosen = frozenset(wanted)
    if not chosen:
        return chosen
    flags = functools.reduce(lambda a, b: a | b, (_FLAGS[one] for one in chosen))
    uid, gid = os.geteuid(), os.getegid()  # after unshare they would read as nobody's
    if uid == 0 and _unshare(flags) is None:
        _furnish(chosen)
        return chosen
    error = _unshare(_NEW_USER | flags)
    if error is not None:
        raise OSError(error, f"no namespaces of its own for a trial: {os.strerror(error)}")
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # else the maps below belong to root
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _furnish(chosen)
    _hand_down()
    return chosen


@functools.cache
def unavailable(kind: str) -> str | None:
    """Try it in a child: why a trial cannot have this for itself here, or None when it can."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enter([kind])
            os.write(writing, b"ok")
        except OSError as error:
            os.write(writing, str(error.strerror or error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read().decode()
    os.waitpid(child, 0)
    return None if said == "ok" else said


def identity(kind: str, pid: int | str = "self") -> int:
    """Return the number of the namespace that a process is in. Raises OSError when it is gone."""
    return Path(f"/proc/{pid}/ns/{_LINKS[kind]}").stat().st_ino


def member(kind: str, number: int) -> int | None:
    """Find a process that lives in that namespace; without any, None, it is gone with all in it."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if identity(kind, entry.name) == number:
                    return int(entry.name)
    return None


def _unshare(flags: int) -> int | None:
    """Return the error number, or None."""
    libc = ctypes.CDLL(None, use_errno=True)
    return None if libc.unshare(flags) == 0 else ctypes.get_errno()


def _furnish(chosen: frozenset[str]) -> None:
    if FILES in chosen:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"none", b"/", None, _PRIVATE | _RECURSIVE, None) != 0:
            raise OSError(ctypes.get_errno(), "mounts cannot be made private")
    if NETWORK in chosen:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            name = b"lo".ljust(16, b"\0")
            found = fcntl.ioctl(link, _SIOCGIFFLAGS, name + bytes(16))
            flags = struct.unpack_from("h", found, 16)[0] | _UP
            fcntl.ioctl(link, _SIOCSIFFLAGS, name + struct.pack("h", flags) + bytes(14))


def _hand_down() -> None:
    """Let programs that this process starts keep what they need to undo faults (an exec would clear it)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    data = ctypes.create_string_buffer(24)
    _check(libc.capget(header, data), "capget")
    effective, permitted, inheritable, *high = struct.unpack("6I", data.raw)
    for number in _KEPT:
        inheritable |= 1 << number
    _check(libc.capset(header, struct.pack("6I", effective, permitted, inheritable, *high)), "capset")
    for number in _KEPT:
        _check(libc.prctl(_PR_CAP_AMBIENT, _RAISE, number, 0, 0), "prctl(PR_CAP_AMBIENT_RAISE)")


def _check(status: int, what: str) -> None:
    if status != 0:
        raise OSError(ctypes.get_errno(), what)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
