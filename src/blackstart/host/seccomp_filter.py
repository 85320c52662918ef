"""Seccomp filters that hand system calls to a supervisor: built, installed, answered."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING

from blackstart.host import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterable

PR_SET_NO_NEW_PRIVS = 38
SET_MODE_FILTER = 1
FLAG_TSYNC, FLAG_NEW_LISTENER, FLAG_TSYNC_ESRCH, FLAG_WAIT_KILLABLE = 1, 8, 16, 32
EVERY_THREAD = FLAG_NEW_LISTENER | FLAG_TSYNC | FLAG_TSYNC_ESRCH
"""All threads of the process, and the answer is the listener's descriptor."""

RET_ALLOW, RET_USER_NOTIF = 0x7FFF_0000, 0x7FC0_0000
CONTINUE = 1

_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NR, _ARCH = 0, 4

NOTIFICATION = struct.Struct("<QIIiIQ6Q")
"""`struct seccomp_notif`: id, pid, flags, call, machine, instruction pointer, six arguments."""
RESPONSE = struct.Struct("<QqiI")
"""`struct seccomp_notif_resp`: id, value, error, flags."""

RECV, SEND, ID_VALID, SET_FLAGS = 0xC050_2100, 0xC018_2101, 0x4008_2102, 0x4008_2104
SYNC_WAKE_UP = 1
_SECCOMP = {"x86_64": 317, "aarch64": 277}

libc = ctypes.CDLL(None, use_errno=True)
libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def build(calls: Iterable[str]) -> bytes:
    """Return the filter as the kernel reads it: these calls are notified, all others pass.

    Calls that this machine has not are left out. Raises KeyError for an unknown name.
    """
    numbers = sorted({found for name in calls if (found := syscalls.number(name)) is not None})
    count = len(numbers)
    code = [(_LOAD, 0, 0, _ARCH), (_JUMP_EQUAL, 0, count + 1, syscalls.AUDIT_ARCH[syscalls.MACHINE])]
    code.append((_LOAD, 0, 0, _NR))
    code += [(_JUMP_EQUAL, count - k, 0, number) for k, number in enumerate(numbers)]
    code += [(_RETURN, 0, 0, RET_ALLOW), (_RETURN, 0, 0, RET_USER_NOTIF)]
    return b"".join(struct.pack("<HBBI", *line) for line in code)


def install(calls: Iterable[str]) -> int:
    """Filter the calling process from now on; returns the listener's descriptor. It can never be removed.

    Asks for `no_new_privs` only where the kernel demands it. Raises OSError.
    """
    code = build(calls)
    memory = ctypes.create_string_buffer(code, len(code))
    program = Program(len(code) // 8, ctypes.addressof(memory))
    for flags in (EVERY_THREAD | FLAG_WAIT_KILLABLE, EVERY_THREAD):
        listener = _filter(flags, program)
        if listener == -errno.EACCES:
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            listener = _filter(flags, program)
        if listener != -errno.EINVAL:
            break
    if listener < 0:
        raise OSError(-listener, f"seccomp filter: {os.strerror(-listener)}")
    return listener


def _filter(flags: int, program: Program) -> int:
    number = _SECCOMP[syscalls.MACHINE]
    found = int(libc.syscall(number, SET_MODE_FILTER, flags, ctypes.byref(program)))
    return found if found >= 0 else -ctypes.get_errno()


def wake_together(listener: int) -> None:
    """Have the kernel switch straight between both sides (`SYNC_WAKE_UP`, Linux 6.6): 8 µs, not 60."""
    libc.ioctl(listener, SET_FLAGS, ctypes.c_void_p(SYNC_WAKE_UP))


def answer(listener: int, number: int, *, value: int = 0, error: int = 0, flags: int = 0) -> bool:
    """Answer one call; False when its caller is gone or somebody answered before."""
    packed = RESPONSE.pack(number, value, -error, flags)
    return int(libc.ioctl(listener, SEND, packed)) == 0


def valid(listener: int, number: int) -> bool:
    """Say whether that call still waits: only then was what we read of its process the truth."""
    return int(libc.ioctl(listener, ID_VALID, struct.pack("<Q", number))) == 0
