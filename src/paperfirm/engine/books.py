"""Pure book-keeping of one symbol: quantity, cash, cost, and profit by average cost.

`cash` is sells minus buys. `cost` is the signed cost of the open quantity (positive long, negative short).
Both are exact integers, so `realised = cash + cost` and `realised + unrealised = cash + quantity * mark` hold
to the tick, always.
"""

from __future__ import annotations

import msgspec


class Position(msgspec.Struct, array_like=True, gc=False):
    """A position in one symbol (ticks and pieces)."""

    symbol: str
    quantity: int = 0
    cash: int = 0
    cost: int = 0

    @property
    def realised(self) -> int:
        """Realised profit by average cost."""
        return self.cash + self.cost

    @property
    def average_price(self) -> int:
        """Average entry price of what is open, rounded to a tick; 0 when flat."""
        return round(self.cost / self.quantity) if self.quantity else 0

    def unrealised(self, mark: int) -> int:
        """Profit of the open quantity if closed at `mark`."""
        return self.quantity * mark - self.cost


def book(position: Position, side: str, quantity: int, price: int) -> None:
    """Book one fill in place."""
    signed = quantity if side == "buy" else -quantity
    held = position.quantity
    position.cash -= signed * price
    position.quantity = held + signed
    if held == 0 or (held > 0) == (signed > 0):
        position.cost += signed * price
    elif abs(signed) < abs(held):
        position.cost -= _share(position.cost, quantity, abs(held))
    else:
        position.cost = (held + signed) * price


def _share(cost: int, part: int, whole: int) -> int:
    """Return cost * part / whole, rounded half away from zero, in integers."""
    size = (2 * abs(cost) * part + whole) // (2 * whole)
    return size if cost >= 0 else -size
