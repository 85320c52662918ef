"""The order book of one symbol: price-time priority, no I/O, no clock.

A book holds orders that rest. It is told of fills and removals by the venue and never decides
anything but who comes next.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator

from paperexchange.model import Order, Side


class Level:
    """Orders at one price in time order; `total` is the sum of what they still want."""

    __slots__ = ("orders", "price", "total")

    def __init__(self, price: int) -> None:
        """Start empty."""
        self.price = price
        self.total = 0
        self.orders: dict[str, Order] = {}


class HalfBook:
    """One side. `keys` is sorted so that its last element is the best price."""

    __slots__ = ("_flip", "keys", "levels")

    def __init__(self, side: Side) -> None:
        """Bids are best when high, offers when low."""
        self._flip = 1 if side == "buy" else -1
        self.keys: list[int] = []
        self.levels: dict[int, Level] = {}

    def best(self) -> Level | None:
        """Give the level that trades first."""
        return self.levels[self.keys[-1] * self._flip] if self.keys else None

    def add(self, order: Order) -> int:
        """Queue the order last at its price; the level's new total."""
        level = self.levels.get(order.price)
        if level is None:
            level = self.levels[order.price] = Level(order.price)
            insort(self.keys, order.price * self._flip)
        level.orders[order.order_id] = order
        level.total += order.leaves_quantity
        return level.total

    def reduce(self, order: Order, quantity: int) -> int:
        """Take `quantity` off a resting order (all of it removes the order); the level's new total."""
        level = self.levels[order.price]
        level.total -= quantity
        if quantity >= order.leaves_quantity:
            del level.orders[order.order_id]
        if not level.orders:
            self._drop(level)
        return level.total

    def _drop(self, level: Level) -> None:
        del self.levels[level.price]
        del self.keys[bisect_left(self.keys, level.price * self._flip)]

    def depth(self, levels: int) -> list[tuple[int, int]]:
        """Price and total of the best `levels` levels, best first."""
        best = (self.levels[key * self._flip] for key in reversed(self.keys[-levels:]))
        return [(level.price, level.total) for level in best]

    def queue(self) -> Iterator[Order]:
        """Every resting order in the order in which it would trade."""
        for key in reversed(self.keys):
            yield from self.levels[key * self._flip].orders.values()


class Book:
    """Both sides of one symbol."""

    __slots__ = ("bids", "offers", "symbol")

    def __init__(self, symbol: str) -> None:
        """Start empty."""
        self.symbol = symbol
        self.bids = HalfBook("buy")
        self.offers = HalfBook("sell")

    def half(self, side: Side) -> HalfBook:
        """Give the side on which an order of `side` rests."""
        return self.bids if side == "buy" else self.offers

    def opposite(self, side: Side) -> HalfBook:
        """Give the side against which an order of `side` trades."""
        return self.offers if side == "buy" else self.bids

    def next_match(self, side: Side, limit: int | None) -> Order | None:
        """Give the resting order that an incoming order of `side` trades with next; None if none fits."""
        level = self.opposite(side).best()
        if level is None:
            return None
        if limit is not None and (level.price > limit if side == "buy" else level.price < limit):
            return None
        return next(iter(level.orders.values()))

    def mid(self) -> int | None:
        """Half way between the best prices; None when a side is empty."""
        bid, offer = self.bids.best(), self.offers.best()
        return (bid.price + offer.price) // 2 if bid and offer else None

    def crossed(self) -> bool:
        """Whether the best bid reaches the best offer (only possible before the opening auction)."""
        bid, offer = self.bids.best(), self.offers.best()
        return bool(bid and offer and bid.price >= offer.price)


def auction_price(book: Book) -> int | None:
    """Give the single price at which the most would trade; None when nothing would.

    Of several, the one with the least imbalance, then the lowest.
    """
    bids, offers = book.bids.depth(10**6), book.offers.depth(10**6)
    best: tuple[int, int, int] | None = None
    for price in sorted({p for p, _ in bids} | {p for p, _ in offers}):
        demand = sum(quantity for p, quantity in bids if p >= price)
        supply = sum(quantity for p, quantity in offers if p <= price)
        key = (-min(demand, supply), abs(demand - supply), price)
        best = key if best is None or key < best else best
    return best[2] if best and best[0] else None
