from collections.abc import Callable

import pytest

from fixsession.clock import Now
from paperexchange import facts as f
from paperexchange.model import Instrument, NewOrder, Order
from paperexchange.state import State
from paperexchange.venue import Venue

AT = Now(1_000, 2_000)


class Floor:
    """A venue in continuous trading whose entries are kept in a list."""

    def __init__(self) -> None:
        self.entries: list[f.Fact] = []
        self.state = State()
        self.venue = Venue(
            [Instrument("ALFA", 1_000_000), Instrument("BRAVO", 500_000)], self.state, self.record
        )
        self.venue.enter("continuous", AT)
        self.count = 0

    def record(self, fact: f.Fact) -> None:
        """Keep and apply an entry under the next number."""
        fact.seq = len(self.entries) + 1
        self.entries.append(fact)
        self.state.apply(fact)

    def order(self, side: str, quantity: int, price: int, **more: object) -> Order | None:
        """Submit an order of account FIRM (price in whole ticks of 0.01) unless told otherwise."""
        self.count += 1
        fields = {"account": "FIRM", "symbol": "ALFA", "cl_ord_id": f"C{self.count}", **more}
        return self.venue.submit(NewOrder(side=side, quantity=quantity, price=price * 100, **fields), AT)  # type: ignore[arg-type]

    def kinds(self) -> list[str]:
        """Give the kinds recorded so far."""
        return [f.KINDS[type(entry)] for entry in self.entries]

    def last(self, kind: type[f.Fact]) -> f.Fact:
        """Give the newest entry of a kind."""
        return next(entry for entry in reversed(self.entries) if isinstance(entry, kind))


@pytest.fixture
def floor() -> Floor:
    """Make a trading floor with two symbols."""
    return Floor()


@pytest.fixture
def make_floor() -> Callable[[], Floor]:
    """Make further floors."""
    return Floor
