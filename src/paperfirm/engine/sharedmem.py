"""Positions and open orders in checksummed shared memory (`paperfirm.sharedtable`)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from paperfirm.sharedtable import Damage, Table, sealed

if TYPE_CHECKING:
    from pathlib import Path

    from paperfirm.engine.state import State

POSITION_ROW = struct.Struct(">16sqqqI")
ORDER_ROW = struct.Struct(">64s16s8s20sqqqI")


def position_row(state: State, symbol: str) -> bytes:
    """Return the row that must stand for a symbol."""
    position = state.positions[symbol]
    return sealed(POSITION_ROW, symbol.encode()[:16], position.quantity, position.cash, position.cost)


def order_row(state: State, cl_ord_id: str) -> bytes:
    """Return the row that must stand for an open order."""
    order = state.orders[cl_ord_id]
    names = (cl_ord_id.encode()[:64], order.symbol.encode()[:16], order.side.encode(), order.status.encode())
    return sealed(ORDER_ROW, *names, order.price or 0, order.quantity, order.cum_quantity)


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
