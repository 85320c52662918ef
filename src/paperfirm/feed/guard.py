"""The market-data books in checksummed shared memory; damage is told, and a snapshot rebuilds them (R40).

A row that is not what it must be says only that something is wrong somewhere: the row, or the book behind it.
So none of it is believed: the books are declared untrue, the engines pull their quotes, and a snapshot of the
exchange replaces both.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from paperfirm.sharedtable import Damage, Table, sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from paperfirm.alerts import Alerts
    from paperfirm.feed.core import FeedState

LEVEL_ROW = struct.Struct(">16s8sqqI")
"""Symbol, side, price, quantity, CRC."""
NAMED = 10


def name(symbol: str, side: str, price: int) -> str:
    """Return what a level is called."""
    return f"{symbol} {side} {price}"


class BookGuard:
    """Mirrors the books into the table `book` of a folder, and watches over it."""

    def __init__(self, state: FeedState, folder: Path, *, emit: Callable[..., int], alerts: Alerts) -> None:
        self._state = state
        self._emit = emit
        self._alerts = alerts
        self._table = Table(folder / "book", LEVEL_ROW, self._want, rows=1024)
        self._rebuilding = self._replaced = False
        self.damaged = 0

    def _want(self, key: str) -> bytes:
        symbol, side, price = key.rsplit(" ", 2)
        book = self._state.books.get(symbol)
        quantity = book.quantity(side, int(price)) if book is not None else 0
        return sealed(LEVEL_ROW, symbol.encode()[:16], side.encode(), int(price), quantity)

    def right(self, symbol: str) -> bool:
        """Say whether the rows of a symbol's best prices are what they must be: only then are they sent."""
        self.follow()
        best = self._state.books[symbol].best()
        ends = (("buy", best.bid), ("sell", best.ask))
        return all(self._table.right(name(symbol, side, price)) for side, price in ends if price)

    def follow(self) -> None:
        """Bring the rows of what changed up to date."""
        if self._state.reloaded:
            self._table.clear()
            self._state.reloaded, self._replaced = False, True
            for key in self._levels():
                self._table.put(key)
        for symbol, side, price in self._state.changed:
            key = name(symbol, side, price)
            if self._state.books[symbol].quantity(side, price):
                self._table.put(key)
            else:
                self._table.drop(key)
        self._state.changed.clear()

    def _levels(self) -> Iterator[str]:
        for symbol, book in self._state.books.items():
            yield from (name(symbol, "buy", price) for price in book.bids)
            yield from (name(symbol, "sell", price) for price in book.asks)

    def look(self, now_ns: int) -> None:
        """Look at the next rows; all of them in eight looks. Damage makes the books untrue."""
        self.follow()
        damage = self._table.check()
        if damage:
            self._distrust(damage, now_ns)
        elif self._rebuilding and self._replaced:
            self._rebuilding = False
            self._emit("market_data_rebuilt", levels=len(self._table), source="exchange")
            self._alerts.clear("market_data_corrupt")

    def _distrust(self, damage: list[Damage], now_ns: int) -> None:
        if self._rebuilding:
            return
        self._rebuilding, self._replaced = True, False
        self.damaged += len(damage)
        keys = [one.key for one in damage]
        symbols = sorted({key.rsplit(" ", 2)[0] for key in keys} & self._state.books.keys())
        text = f"{len(keys)} level(s) of the books in memory are damaged; rebuilt from a snapshot"
        self._alerts.sound("market_data_corrupt", text, rows=len(keys), first=keys[:NAMED], symbols=symbols)
        self._state.distrust(now_ns)

    def close(self) -> None:
        """Unmap the table."""
        self._table.close()
