"""How far the journal was durable, remembered beside it: what a truncation took away can be named (R41).

In mapped memory: costs no system call, outlives the process, not the machine. An older mark does no harm.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BODY = struct.Struct(">QI")  # the newest durable record, CRC-32 of its eight bytes


class Mark:
    """One number in a mapped file."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # Written into a hole, a mapped page of a full disk would end the process with SIGBUS.
            os.posix_fallocate(fd, 0, BODY.size)
            self._map = mmap.mmap(fd, BODY.size)
        finally:
            os.close(fd)

    def get(self) -> int:
        """Return the number; 0 when there is none, or none to be believed."""
        seq, crc = BODY.unpack(self._map[: BODY.size])
        return int(seq) if crc == _crc(seq) else 0

    def set(self, seq: int) -> None:
        """Remember a number."""
        self._map[: BODY.size] = BODY.pack(seq, _crc(seq))

    def close(self) -> None:
        """Unmap."""
        self._map.close()


def _crc(seq: int) -> int:
    return zlib.crc32(seq.to_bytes(8, "big"))
