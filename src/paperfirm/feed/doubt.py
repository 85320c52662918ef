"""What of the exchange's market data cannot be true. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paperfirm.wire import TICK

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from paperfirm.feed.messages import BookSnapshot, Update

HIGHEST_PRICE = 100_000_000 * TICK
MOST_QUANTITY = 10**12
AHEAD_NS = 1_000_000_000
BEHIND_NS = 3_600 * 1_000_000_000
SIDES = frozenset({"buy", "sell"})


def of_update(update: Update, symbols: AbstractSet[str], now_ns: int) -> str | None:
    """Say what is wrong with a message, or None. `now_ns` is the clock that its stamps are of."""
    oldest = max(0, now_ns - BEHIND_NS)  # the clock may have begun less than an hour ago
    if update.mono_ns and not oldest <= update.mono_ns <= now_ns + AHEAD_NS:
        return f"stamp {update.mono_ns} is not of this hour"
    if update.seq < 0 or update.epoch < 0:
        return f"number {update.seq} or epoch {update.epoch} is negative"
    if update.skip or update.skip_to or update.heartbeat or update.trade is not None or not update.side:
        return None
    if update.side not in SIDES:
        return f"side {update.side!r} is none"
    if update.symbol not in symbols:
        return f"symbol {update.symbol!r} is not traded here"
    return _of_level(update.price, update.quantity)


def _of_level(price: int, quantity: int) -> str | None:
    if not 0 < price <= HIGHEST_PRICE:
        return f"price {price} (ticks) is impossible"
    return None if 0 <= quantity <= MOST_QUANTITY else f"quantity {quantity} is impossible"


def of_snapshot(snapshot: BookSnapshot) -> str | None:
    """Say what is wrong with a snapshot, or None."""
    for symbol, levels in snapshot.books.items():
        wrong = _first(_of_level(price, quantity) for price, quantity in [*levels.bids, *levels.asks])
        if wrong is not None:
            return f"{symbol}: {wrong}"
    return None


def _first(findings: Iterable[str | None]) -> str | None:
    return next((one for one in findings if one is not None), None)
