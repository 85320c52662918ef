"""One file as it grows, and the kernel's word (inotify) that something changed in a folder.

Standard library only, Python 3.9: the helper on another host (`host.ssh_helper`) imports this.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE = 0x2, 0x80, 0x100
_READ = 1 << 18
_NOTICE = struct.Struct("iIII")  # inotify_event: wd, mask, cookie, length of the name that follows


class Growing:
    """One file: hands out whole lines as they come.

    A file that was replaced is read to its end, then the new one from its start.
    """

    def __init__(self, path: Path, *, from_start: bool) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._rest = b""
        self._open(from_start=from_start)

    def read(self) -> list[bytes]:
        """Return the whole lines that are new."""
        lines = self._read_open()
        while self._replaced():
            self.close()
            self._open(from_start=True)
            more = self._read_open()
            lines += more
            if self._descriptor is None:
                break
        return lines

    def close(self) -> None:
        """Forget the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None
        self._rest = b""

    def _open(self, *, from_start: bool) -> None:
        with contextlib.suppress(OSError):
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            if not from_start:
                os.lseek(self._descriptor, 0, os.SEEK_END)

    def _read_open(self) -> list[bytes]:
        if self._descriptor is None:
            return []
        lines: list[bytes] = []
        while data := os.read(self._descriptor, _READ):
            *whole, self._rest = (self._rest + data).split(b"\n")
            lines += whole
        if os.fstat(self._descriptor).st_size < os.lseek(self._descriptor, 0, os.SEEK_CUR):
            os.lseek(self._descriptor, 0, os.SEEK_SET)  # truncated in place
            self._rest = b""
            return lines + self._read_open()
        return lines

    def _replaced(self) -> bool:
        try:
            there = self.path.stat()
        except OSError:
            return False
        if self._descriptor is None:
            return True
        here = os.fstat(self._descriptor)
        return (here.st_ino, here.st_dev) != (there.st_ino, there.st_dev)


def notices(folder: str) -> int | None:
    """Return a descriptor that becomes readable when something changes in the folder.

    None where that cannot be had: no inotify, no such folder yet.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 - the helper does without pathlib's start time
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        return None
    mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE
    if libc.inotify_add_watch(descriptor, os.fsencode(folder), mask) < 0:
        os.close(descriptor)
        return None
    return descriptor


def any_new(data: bytes) -> bool:
    """Say whether any of the notices tells of a file that appeared, or of notices that were lost."""
    offset = 0
    while offset < len(data):
        _, mask, _, length = _NOTICE.unpack_from(data, offset)
        if mask & ~_IN_MODIFY:
            return True
        offset += _NOTICE.size + length
    return False
