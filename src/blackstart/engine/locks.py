"""The locks of a run folder: who lives holds them, and nobody has to ask him.

`owner.lock` and `guardian.lock` are held (flock) by the two processes for as long as they live, with their
pids inside. Standard library only, and little of it: the kill switch waits for these imports.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

OWNER_LOCK = "owner.lock"
GUARDIAN_LOCK = "guardian.lock"


def hold(run: str, name: str) -> int | None:
    """Take a lock for as long as the returned descriptor stays open, or None when somebody else has it.

    Raises OSError when it can neither be made nor be read.
    """
    handle = _lock_file(os.path.join(run, name))  # noqa: PTH118 - start time
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    try:
        os.ftruncate(handle, 0)
        os.write(handle, b"%d" % os.getpid())
    except OSError:  # a full disk, or not ours: the lock itself needs no room
        pass
    return handle


def _lock_file(path: str) -> int:
    """Open it; one that is another user's can be read and held, but not be written."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def wait_for(run: str, name: str, limit_s: float) -> int | None:
    """Take a lock as soon as its holder lets go; None when it does not within `limit_s`."""
    end = time.monotonic() + limit_s
    while (lock := hold(run, name)) is None and time.monotonic() < end:
        time.sleep(0.005)
    return lock


def holder(run: str, name: str) -> int | None:
    """Return the pid that the last holder of a lock wrote into it."""
    try:
        with open(os.path.join(run, name), "rb") as file:  # noqa: PTH118,PTH123 - start time
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return None


def release(lock: int) -> None:
    """Give a lock back."""
    os.close(lock)
