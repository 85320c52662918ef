"""Who listens on a port of this host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blackstart.host import procs

if TYPE_CHECKING:
    from collections.abc import Iterator


def listeners(port: int) -> Iterator[str]:
    """Yield who listens on a TCP port of this host, as `pid PID (name)`, as far as we may see."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for found in procs.everybody() if inodes else ():
        if inodes & set(_descriptors(found.pid)):
            yield f"pid {found.pid} ({Path(f'/proc/{found.pid}/comm').read_text(encoding='utf-8').strip()})"


def _listening_inodes(port: int) -> Iterator[str]:
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(path).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _descriptors(pid: int) -> Iterator[str]:
    folder = Path(f"/proc/{pid}/fd")
    try:
        for path in folder.iterdir():
            yield str(path.readlink())
    except OSError:
        return
