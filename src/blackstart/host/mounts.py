"""Small file systems in memory, put over folders of a private mount namespace; standard library only."""

from __future__ import annotations

import ctypes
import errno
import os

_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def tmpfs(path: str, size_bytes: int) -> None:
    """Put an empty file system of that size over a folder, which keeps its owner and mode. Raises OSError."""
    now = os.stat(path)  # noqa: PTH116 - the guardian imports this, and pathlib would double its start time
    options = f"size={size_bytes},mode={now.st_mode & 0o7777:o},uid={now.st_uid},gid={now.st_gid}"
    if _libc.mount(b"blackstart", os.fsencode(path), b"tmpfs", 0, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount of a file system in memory: {os.strerror(number)}", path)


def mounted(path: str) -> bool:
    """Whether something of ours lies over that folder, as this process sees it."""
    with open("/proc/self/mountinfo", "rb") as table:  # noqa: PTH123 - see above
        return any(_ours(line, os.path.realpath(path)) for line in table)


def unmount(path: str) -> None:
    """Take away what lies over the folder; whoever uses it still keeps it alone. Idempotent."""
    real = os.path.realpath(path)
    while mounted(real):
        if _libc.umount2(os.fsencode(real), _DETACH) != 0 and ctypes.get_errno() != errno.EINVAL:
            number = ctypes.get_errno()
            raise OSError(number, f"umount: {os.strerror(number)}", real)


def free_bytes(where: str | int) -> int:
    """How much more an ordinary program can write there: a path, or a descriptor."""
    room = os.statvfs(where)
    return room.f_bavail * room.f_frsize


def _ours(line: bytes, path: str) -> bool:
    fields, _, rest = line.partition(b" - ")
    place = fields.split()[4].decode("unicode_escape").encode("latin-1")
    return os.fsdecode(place) == path and rest.split()[:2] == [b"tmpfs", b"blackstart"]


class Ballast:
    """A file without a name that takes all room of its file system.

    The kernel gives the room back when its holder ends, however that comes; others may empty it through
    `/proc/PID/fd`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        self.inode = os.fstat(self.descriptor).st_ino

    def fill(self, leave: int = 0) -> int:
        """Take what room there is, but for `leave` bytes; returns how many bytes that were."""
        taken = 0
        # By the descriptor: once the file system is unmounted, the folder's name leads to the host's disk.
        wanted = free_bytes(self.descriptor) - leave
        while wanted > 0:
            try:
                os.posix_fallocate(self.descriptor, os.fstat(self.descriptor).st_size, wanted)
                taken += wanted
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            # Somebody else may have taken it meanwhile.
            wanted = min(wanted - 4096, free_bytes(self.descriptor) - leave)
        return taken

    def close(self) -> None:
        """Give the room back; idempotent."""
        if self.descriptor >= 0:
            os.ftruncate(self.descriptor, 0)
            os.close(self.descriptor)
            self.descriptor = -1


def refused(folder: str) -> bool:
    """Whether a write of our own gets ENOSPC there, on a file without a name."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        try:
            os.write(descriptor, b"x")
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return True
        raise
    return False


def empty(pid: int, descriptor: int, inode: int) -> bool:
    """Take the ballast out of a process's hands; says whether it is out, or was never there."""
    try:
        handle = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_WRONLY)
    except (FileNotFoundError, ProcessLookupError, IsADirectoryError):
        return True
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket: the number has another use by now
            return True
        raise
    try:
        if os.fstat(handle).st_ino != inode:
            return True
        os.ftruncate(handle, 0)
        return os.fstat(handle).st_blocks == 0
    finally:
        os.close(handle)
