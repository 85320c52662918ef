"""Disks that take no more: a full one from a failing one, waiting for room, and what a failed sync leaves.

When fsync fails, the kernel marks the pages as clean: a second fsync succeeds, a read gives the new bytes,
and the disk has the old ones. So nothing is synced a second time; the process ends, and its next life writes
what it can read into new files before it believes it.
"""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from paperfirm.config import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from paperfirm.alerts import Alerts

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
PROBE_BYTES = 1 << 20
LOOK_S = 0.1
WATCH_S = 0.2
SUSPECT = "suspect"
"""A file of this name in a folder: a sync failed, what can be read there may not be on the disk."""


class SyncFailedError(OSError):
    """What was written to `path` may not be on the disk."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(error.errno, f"sync failed: {error.strerror}; mend the disk", str(path))
        self.path = path


def force(sync: Callable[[], object], path: Path, folder: Path) -> None:
    """Sync; a failure marks `folder` as suspect and raises SyncFailedError."""
    try:
        sync()
    except OSError as error:
        with suppress(OSError):
            (folder / SUSPECT).touch()
        raise SyncFailedError(path, error) from error


def write_anew(folder: Path, files: Iterable[Path]) -> int:
    """If `folder` is suspect: write its files anew and sync them; returns how many."""
    if not (folder / SUSPECT).exists():
        return 0
    written = 0
    for path in files:
        write_atomically(path, path.read_bytes())
        written += 1
    (folder / SUSPECT).unlink()
    return written


def is_full(error: OSError) -> bool:
    """Whether an error means that there is no room (which may come back) and not that the disk is bad."""
    return error.errno in FULL


def name_of(error: OSError) -> str:
    """Return the symbol of an error's number, as alerts carry it."""
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def sound_full(alerts: Alerts, path: Path, error: OSError) -> None:
    """Tell the operator that there is no room."""
    alerts.sound(
        "disk_full",
        f"{path}: {error.strerror}: make room; nothing acknowledged is lost, and work goes on by itself then",
        path=str(path),
        errno=name_of(error),
    )


def cause_of(error: BaseException | None) -> OSError | None:
    """Return the disk's error behind an error: a failed sync or want of room, or None."""
    while error is not None:
        if isinstance(error, SyncFailedError) or (isinstance(error, OSError) and is_full(error)):
            return error
        error = error.__cause__
    return None


def sound(alerts: Alerts, folder: Path, error: OSError) -> None:
    """Tell the operator what a disk's error means."""
    if isinstance(error, SyncFailedError):
        alerts.sound("fsync_failed", str(error), path=str(error.path), errno=name_of(error))
    else:
        sound_full(alerts, folder, error)


def has_room(folder: Path) -> OSError | None:
    """Write a file of a mebibyte and remove it again; returns what is wrong if there is no room.

    Raises OSError when something else is wrong.
    """
    path = folder / ".room"
    try:
        with path.open("wb") as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        if is_full(error):
            return error
        raise
    finally:
        path.unlink(missing_ok=True)
    return None


async def wait_for_room(folder: Path, alerts: Alerts, stop: asyncio.Event) -> None:
    """Return when `folder` takes data (or `stop` is set); meanwhile the alert `disk_full` stands."""
    while (error := has_room(folder)) is not None and not stop.is_set():
        sound_full(alerts, folder, error)
        try:
            async with asyncio.timeout(LOOK_S):
                await stop.wait()
        except TimeoutError:
            continue
    alerts.clear("disk_full")


def free_bytes(folder: Path) -> int:
    """Return how much room an ordinary user has on the disk of a folder, which need not be there yet."""
    disk = os.statvfs(folder if folder.exists() else folder.parent)
    return disk.f_bavail * disk.f_frsize


class RoomWatch:
    """Calls an operator while there is little room on a disk, whether or not anybody needs it at the moment.

    A journal whose room was made in advance goes on for a while on a full disk, and would be noticed only
    when that is used up. The alert `disk_low` ends when there is half as much again.
    """

    def __init__(
        self, folder: Path, alerts: Alerts, low_bytes: int, *, look: Callable[[Path], int] = free_bytes
    ) -> None:
        self._folder = folder
        self._alerts = alerts
        self._low = low_bytes
        self._look = look

    def look(self) -> None:
        """Look once; a disk that cannot be asked is for others to tell."""
        try:
            free = self._look(self._folder)
        except OSError:
            return
        if free < self._low:
            text = f"{self._folder}: {free / 2**20:,.1f} MiB of room are left: make room before writing stops"
            self._alerts.sound("disk_low", text, path=str(self._folder), free_bytes=free)
        elif free >= self._low * 3 // 2:
            self._alerts.clear("disk_low", free_bytes=free)


async def keep_watching(watch: RoomWatch) -> None:
    """Look at the room five times a second, for ever."""
    while True:
        watch.look()
        await asyncio.sleep(WATCH_S)
