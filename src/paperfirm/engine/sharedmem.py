"""Positions and open orders in memory-mapped tables of fixed-size rows, each with its CRC.

Row: payload, then CRC-32 of the payload (big endian). An all-zero row is free. Other programs may map the
files read-only. Whoever writes into them from elsewhere is found out: `check` compares every row with its
checksum and with the state, and never mends anything on its own: what is right is for the exchange to say.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from typing import TYPE_CHECKING, Literal, NamedTuple

from paperfirm.disk import is_full

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from paperfirm.engine.state import State

POSITION_ROW = struct.Struct(">16sqqqI")
ORDER_ROW = struct.Struct(">64s16s8s20sqqqI")
CRC_BYTES = 4
FREE = "(free row)"
LOOK_ROWS = 256
SWEEP = 8
Where = Literal["checksum", "books"]


class Damage(NamedTuple):
    """A row that is not what it must be: its own checksum says so, or the books do."""

    key: str
    where: Where


def position_row(state: State, symbol: str) -> bytes:
    """Return the row that must stand for a symbol."""
    position = state.positions[symbol]
    return _sealed(POSITION_ROW, symbol.encode()[:16], position.quantity, position.cash, position.cost)


def order_row(state: State, cl_ord_id: str) -> bytes:
    """Return the row that must stand for an open order."""
    order = state.orders[cl_ord_id]
    names = (cl_ord_id.encode()[:64], order.symbol.encode()[:16], order.side.encode(), order.status.encode())
    return _sealed(ORDER_ROW, *names, order.price or 0, order.quantity, order.cum_quantity)


def _sealed(row: struct.Struct, *values: bytes | int) -> bytes:
    body = row.pack(*values, 0)[:-CRC_BYTES]
    return body + zlib.crc32(body).to_bytes(CRC_BYTES, "big")


def _sound(row: bytes) -> bool:
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
        if not _sound(self._row(slot)):
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
        return row if row and _sound(row) else None

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
        return Damage(key, "books" if _sound(row) else "checksum")

    def close(self) -> None:
        """Unmap and close; idempotent."""
        if self._map is not None:
            self._map.close()
            self._map = None
            os.close(self._fd)


class SharedMemory:
    """The two tables of an engine, following its state."""

    def __init__(self, folder: Path, state: State) -> None:
        self._state = state
        self.positions = Table(
            folder / "positions", POSITION_ROW, lambda key: position_row(self._state, key), rows=64
        )
        self.orders = Table(folder / "orders", ORDER_ROW, lambda key: order_row(self._state, key), rows=1024)
        self.load(state)

    def load(self, state: State) -> None:
        """Follow another state (after a sync) or the same one afresh."""
        self._state = state
        self.load_positions()
        self.load_orders()

    def load_positions(self) -> None:
        """Write the table of positions anew."""
        self.positions.clear()
        for symbol in self._state.positions:
            self.positions.put(symbol)

    def load_orders(self) -> None:
        """Write the table of open orders anew."""
        self.orders.clear()
        for cl_ord_id in self._state.open_orders:
            self.orders.put(cl_ord_id)

    def quantity(self, symbol: str) -> int | None:
        """Return the position in a symbol as it stands in memory; None where the checksum is wrong."""
        if symbol not in self._state.positions:
            return 0
        row = self.positions.get(symbol)
        return None if row is None else int(POSITION_ROW.unpack(row)[1])

    def touch(self, symbols: set[str], orders: set[str]) -> None:
        """Bring the rows of these up to date (once per commit)."""
        for symbol in symbols:
            if symbol in self._state.positions:
                self.positions.put(symbol)
        for cl_ord_id in orders:
            if cl_ord_id in self._state.open_orders:
                self.orders.put(cl_ord_id)
            else:
                self.orders.drop(cl_ord_id)

    def check_positions(self) -> list[Damage]:
        """Look for damage among the next positions."""
        return self.positions.check()

    def check_orders(self) -> list[Damage]:
        """Look for damage among the next open orders."""
        return self.orders.check()

    def close(self) -> None:
        """Unmap both tables."""
        self.positions.close()
        self.orders.close()
