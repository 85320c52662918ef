"""A memory-mapped table of fixed-size rows, each with its CRC: whoever damages it is found out (R39, R40).

Row: payload, then CRC-32 of the payload (big endian). An all-zero row is free. Other programs may map the
file read-only. Whoever writes into it from elsewhere is found out: `check` compares every row with its
checksum and with what must stand there, and never mends anything on its own: what is right is for the
exchange to say.
"""

from __future__ import annotations

import mmap
import os
import zlib
from typing import TYPE_CHECKING, Literal, NamedTuple

from paperfirm.disk import is_full

if TYPE_CHECKING:
    import struct
    from collections.abc import Callable
    from pathlib import Path

CRC_BYTES = 4
FREE = "(free row)"
LOOK_ROWS = 256
SWEEP = 8
Where = Literal["checksum", "books"]


class Damage(NamedTuple):
    """A row that is not what it must be: its own checksum says so, or the books do."""

    key: str
    where: Where


def sealed(row: struct.Struct, *values: bytes | int) -> bytes:
    """Pack a row, whose last field is its checksum."""
    body = row.pack(*values, 0)[:-CRC_BYTES]
    return body + zlib.crc32(body).to_bytes(CRC_BYTES, "big")


def sound(row: bytes) -> bool:
    """Say whether a row's checksum is right."""
    return zlib.crc32(row[:-CRC_BYTES]).to_bytes(CRC_BYTES, "big") == row[-CRC_BYTES:]


class Table:
    """One mapped file of rows; `want(key)` gives the bytes that belong into the key's row."""

    def __init__(
        self, path: Path, row: struct.Struct, want: Callable[[str], bytes], *, rows: int = 256
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._width = row.size
        self._want = want
        self._overwritten: list[Damage] = []
        self._slots: dict[str, int] = {}
        self._keys: dict[int, str] = {}
        self._free: list[int] = []
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._rows = 0
        self._map: mmap.mmap | None = None
        self._cursor = 0
        self._empty = bytes(self._width)
        self._grow(rows)

    def _grow(self, rows: int) -> None:
        # Room is taken now: a mapped page for which a full disk has none would end the process with SIGBUS.
        os.posix_fallocate(self._fd, 0, rows * self._width)
        if self._map is not None:
            self._map.close()
        self._map = mmap.mmap(self._fd, rows * self._width)
        self._free += range(rows - 1, self._rows - 1, -1)
        self._rows = rows

    def put(self, key: str) -> None:
        """Write the key's row as it must be now; on a full disk a new key may have to go without a row."""
        slot = self._slots.get(key)
        if slot is None:
            if not self._free and not self._doubled():
                return
            slot = self._slots[key] = self._free.pop()
            self._keys[slot] = key
        else:
            self._look(slot, key)
        self._write(slot, self._want(key))

    def _look(self, slot: int, key: str) -> None:
        """Look at a row before it is written over: damage must never be healed unseen."""
        if not sound(self._row(slot)):
            self._overwritten.append(Damage(key, "checksum"))

    def _doubled(self) -> bool:
        try:
            self._grow(self._rows * 2)
        except OSError as error:
            if is_full(error):
                return False
            raise
        return True

    def drop(self, key: str) -> None:
        """Free the key's row, if it has one."""
        slot = self._slots.pop(key, None)
        if slot is not None:
            self._look(slot, key)
            del self._keys[slot]
            self._write(slot, self._empty)
            self._free.append(slot)

    def clear(self) -> None:
        """Free all rows, also those that nobody wrote by right."""
        for key in list(self._slots):
            self.drop(key)
        for slot in range(self._rows):
            if self._row(slot) != self._empty:
                self._write(slot, self._empty)
        self._overwritten.clear()

    def get(self, key: str) -> bytes | None:
        """Return a key's row if its checksum is right."""
        slot = self._slots.get(key)
        row = self._row(slot) if slot is not None else b""
        return row if row and sound(row) else None

    def right(self, key: str) -> bool:
        """Say whether the key's row is as it must be, or there is none (on a full disk)."""
        slot = self._slots.get(key)
        return slot is None or self._row(slot) == self._want(key)

    def __len__(self) -> int:
        """How many rows are used."""
        return len(self._slots)

    def _row(self, slot: int) -> bytes:
        assert self._map is not None
        return self._map[slot * self._width : (slot + 1) * self._width]

    def _write(self, slot: int, row: bytes) -> None:
        assert self._map is not None
        self._map[slot * self._width : (slot + 1) * self._width] = row

    def check(self) -> list[Damage]:
        """Look at the next rows, free ones included, all of them in SWEEP looks.

        Returns what is wrong, and what was wrong when it was written over.
        """
        begin = self._cursor if self._cursor < self._rows else 0
        end = self._cursor = min(begin + max(LOOK_ROWS, self._rows // SWEEP), self._rows)
        found = [self._damage(slot) for slot in range(begin, end)]
        overwritten, self._overwritten = self._overwritten, []
        return overwritten + [one for one in found if one is not None]

    def _damage(self, slot: int) -> Damage | None:
        row, key = self._row(slot), self._keys.get(slot)
        if key is None:
            return None if row == self._empty else Damage(FREE, "checksum")
        if row == self._want(key):
            return None
        return Damage(key, "books" if sound(row) else "checksum")

    def close(self) -> None:
        """Unmap and close; idempotent."""
        if self._map is not None:
            self._map.close()
            self._map = None
            os.close(self._fd)
