"""Following files as they grow, rotate and appear: woken by the kernel (inotify).

Oor every 2 ms where it will not.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE = 0x2, 0x80, 0x100
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_POLL_S = 0.0015
_LOOK_AGAIN_S = 0.25  # a lost notice (a full queue, a network file system) costs this much, never more
_GATHER_S = (
    0.002  # after a batch, lines of a busy file are gathered for so long: waking for each costs too much
)
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


async def follow(pattern: str, *, from_start: bool = False) -> AsyncIterator[list[tuple[Path, bytes]]]:
    """Yield the new lines of all files that match a glob (in its last part), a batch for each waking.

    Uuntil cancelled.

    Files that are there already are followed from their end (or `from_start`); files that appear later from
    their start.
    """
    folder, name = Path(pattern).parent, Path(pattern).name
    files: dict[Path, Growing] = {}
    notices = Notices(folder)
    fresh = from_start
    try:
        while True:
            if notices.take_names_changed():
                for path in sorted(folder.glob(name)):
                    if path not in files:
                        files[path] = Growing(path, from_start=fresh)
                fresh = True
            batch = [(path, line) for path, file in files.items() for line in file.read()]
            if batch:
                yield batch
                await asyncio.sleep(_GATHER_S)
            else:
                await notices.wait()
    finally:
        notices.close()
        for file in files.values():
            file.close()


class Notices:
    """The kernel's word that something changed in a folder.

    Where it cannot be had (no inotify, no folder yet), a short wait.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None
        self._changed = asyncio.Event()
        self._names_changed = True
        self._watch()

    async def wait(self) -> None:
        """Wait for a change, or a while."""
        if self._descriptor is None:
            await asyncio.sleep(_POLL_S)
            self._names_changed = True
            self._watch()
            return
        try:
            async with asyncio.timeout(_LOOK_AGAIN_S):
                await self._changed.wait()
        except TimeoutError:
            self._names_changed = True
        self._changed.clear()

    def take_names_changed(self) -> bool:
        """Say whether files may have appeared since the last time this was asked."""
        changed, self._names_changed = self._names_changed, False
        return changed

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _watch(self) -> None:
        if not self._folder.is_dir():
            return
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if descriptor < 0:
            return
        mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE
        if libc.inotify_add_watch(descriptor, os.fsencode(self._folder), mask) < 0:
            os.close(descriptor)
            return
        self._descriptor = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._drain)
        self._changed.set()  # look once more: something may have come before the watch

    def _drain(self) -> None:
        assert self._descriptor is not None
        with contextlib.suppress(BlockingIOError):
            self._names_changed |= _any_new(os.read(self._descriptor, 1 << 16))
        self._changed.set()


def _any_new(data: bytes) -> bool:
    """Say whether any of the notices tells of a file that appeared, or of notices that were lost."""
    offset = 0
    while offset < len(data):
        _, mask, _, length = _NOTICE.unpack_from(data, offset)
        if mask & ~_IN_MODIFY:
            return True
        offset += _NOTICE.size + length
    return False
