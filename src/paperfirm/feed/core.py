"""Books from an unreliable stream: duplicates dropped, reordering undone, gaps healed by a snapshot. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from paperfirm.feed.messages import BookSnapshot, Update

HELD_LIMIT = 50_000
"""Messages kept behind a gap.

Beyond that the oldest go, and the snapshot that heals the gap must be newer than they.
"""


class Best(msgspec.Struct, frozen=True, gc=False):
    """Best prices of one symbol; a price of 0 is an empty side."""

    bid: int
    bid_quantity: int
    ask: int
    ask_quantity: int

    @property
    def crossed(self) -> bool:
        """Whether the book cannot be true."""
        return bool(self.bid and self.ask and self.bid >= self.ask)


class Book:
    """Price levels of one symbol; `touched` since somebody last looked."""

    __slots__ = ("asks", "bids", "mono_ns", "touched")

    def __init__(self) -> None:
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.touched = True
        self.mono_ns = 0

    def set_level(self, side: str, price: int, quantity: int) -> None:
        """Set a level's total quantity; 0 removes it."""
        levels = self.bids if side == "buy" else self.asks
        if quantity > 0:
            levels[price] = quantity
        else:
            levels.pop(price, None)
        self.touched = True

    def quantity(self, side: str, price: int) -> int:
        """Return a level's total quantity; 0: there is no such level."""
        return (self.bids if side == "buy" else self.asks).get(price, 0)

    def best(self) -> Best:
        """Return the best prices now."""
        bid = max(self.bids, default=0)
        ask = min(self.asks, default=0)
        return Best(bid, self.bids.get(bid, 0), ask, self.asks.get(ask, 0))


class FeedState:
    """All books and where the sequence stands. Times are `mono_ns` given by the caller."""

    def __init__(self) -> None:
        self.books: dict[str, Book] = {}
        self.next_seq = 0
        """The next sequence number expected; 0 before the first snapshot."""
        self.epoch = 0
        """Grows with each failover of the feed, after which the sequence begins anew."""
        self.gap_since_ns: int | None = None
        """Since when something is missing; None while the books are true."""
        self.heard_ns = 0
        """Newest stamp of the exchange itself: a delayed feed is an old one, however lively it looks."""
        self.gaps = self.duplicates = self.snapshots = 0
        self.changed: set[tuple[str, str, int]] = set()
        """Levels (symbol, side, price) that changed since somebody last took them from here."""
        self.reloaded = True
        """A snapshot replaced everything since somebody last looked."""
        self._held: dict[int, Update] = {}
        self._announced = 0

    @property
    def synchronised(self) -> bool:
        """Whether the books are true as of the last message."""
        return self.next_seq > 0 and self.gap_since_ns is None

    @property
    def held(self) -> int:
        """How many messages wait behind a gap."""
        return len(self._held)

    def receive(self, updates: Iterable[Update], now_ns: int) -> None:
        """Take one datagram."""
        for update in updates:
            if update.epoch < self.epoch:
                continue  # a straggler from before the failover
            self.heard_ns = max(self.heard_ns, min(update.mono_ns or now_ns, now_ns))
            if update.epoch > self.epoch:
                self._begin_epoch(update.epoch)
            if update.heartbeat:
                self._announced = max(self._announced, update.heartbeat)
            elif update.skip_to:
                self._skip(update.skip_to)
            elif update.seq == self.next_seq:
                self._apply(update)
                self.next_seq += 1
            elif update.seq < self.next_seq:
                self.duplicates += 1
            else:
                self._hold(update)
        self._settle(now_ns)

    def load(self, snapshot: BookSnapshot, now_ns: int) -> bool:
        """Take a snapshot; returns whether the books are true afterwards.

        One that is older than what is known, or of an earlier epoch, changes nothing.
        """
        epoch = self.epoch if snapshot.epoch is None else snapshot.epoch
        if epoch < self.epoch or (epoch == self.epoch and snapshot.seq + 1 < self.next_seq):
            return self.synchronised
        if epoch > self.epoch:
            self._begin_epoch(epoch)
        for symbol, levels in snapshot.books.items():
            book = self.books[symbol] = Book()
            book.bids.update(levels.bids)
            book.asks.update(levels.asks)
            book.mono_ns = snapshot.mono_ns or now_ns
        self.changed.clear()
        self.reloaded = True
        self.next_seq = snapshot.seq + 1
        self.snapshots += 1
        self._settle(now_ns)
        return self.synchronised

    def distrust(self, now_ns: int) -> None:
        """Declare the books untrue (they are crossed, or damaged): only a snapshot heals that."""
        self.next_seq = 0
        self._settle(now_ns)

    def _begin_epoch(self, epoch: int) -> None:
        """Begin again: after a failover of the feed numbers mean something else."""
        self.epoch = epoch
        self.next_seq = self._announced = 0
        self._held.clear()

    def _apply(self, update: Update) -> None:
        if update.skip or not update.side:
            return
        book = self.books.get(update.symbol)
        if book is None:
            book = self.books[update.symbol] = Book()
        book.set_level(update.side, update.price, update.quantity)
        self.changed.add((update.symbol, update.side, update.price))
        book.mono_ns = update.mono_ns

    def _skip(self, last_seq: int) -> None:
        """Numbers up to `last_seq` carry nothing for us."""
        if 0 < self.next_seq <= last_seq:
            self.next_seq = last_seq + 1

    def _hold(self, update: Update) -> None:
        if len(self._held) >= HELD_LIMIT:
            del self._held[next(iter(self._held))]
        self._held[update.seq] = update

    def _settle(self, now_ns: int) -> None:
        """Apply what is in order now, forget what is past, and decide whether something is missing."""
        while (update := self._held.pop(self.next_seq, None)) is not None:
            self._apply(update)
            self.next_seq += 1
        if self._held and self.next_seq:
            self._held = {seq: update for seq, update in self._held.items() if seq > self.next_seq}
        if self.next_seq and not self._held and self._announced <= self.next_seq:
            self.gap_since_ns = None
        elif self.gap_since_ns is None:
            self.gap_since_ns = now_ns
            self.gaps += 1
