from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from paperfirm.config import Limits
from paperfirm.risk.core import RiskBook
from paperfirm.wire import Holding, OpenOrder

SYMBOLS = ("ALFA", "BRAVO")
LIMITS = Limits(position={"*": 50, "BRAVO": 30}, gross_notional=4_000, concentration_pct=80.0)


class Naive:
    """The same rules, recomputed from a list of everything at each question."""

    def __init__(self) -> None:
        self.orders: dict[str, list[Any]] = {}
        self.quantity = dict.fromkeys(SYMBOLS, 0)
        self.price = dict.fromkeys(SYMBOLS, 0)

    def worst(self, symbol: str) -> int:
        """Return the largest |position| that open orders could lead to."""
        buys = sum(o[2] for o in self.orders.values() if o[0] == symbol and o[1] == "buy")
        sells = sum(o[2] for o in self.orders.values() if o[0] == symbol and o[1] == "sell")
        return max(abs(self.quantity[symbol] + buys), abs(self.quantity[symbol] - sells))

    def gross(self) -> int:
        """Return the gross notional."""
        return sum(self.worst(symbol) * self.price[symbol] for symbol in SYMBOLS)

    def check(self, order_id: str, symbol: str, side: str, quantity: int, price: int) -> bool:
        """Take an order or refuse it."""
        if order_id in self.orders:
            return False
        worst, gross, old_price = self.worst(symbol), self.gross(), self.price[symbol]
        self.orders[order_id] = [symbol, side, quantity]
        self.price[symbol] = old_price or price
        larger = self.worst(symbol) > worst or self.gross() > gross
        limit = LIMITS.position.get(symbol, LIMITS.position["*"])
        counts = self.gross() > LIMITS.concentration_from
        share = 100.0 * self.worst(symbol) * self.price[symbol] / self.gross() if self.gross() else 0.0
        over = self.worst(symbol) > limit or self.gross() > LIMITS.gross_notional
        if larger and (over or (counts and share > LIMITS.concentration_pct)):
            del self.orders[order_id]
            self.price[symbol] = old_price
            return False
        return True

    def booked(self, order_id: str, symbol: str, side: str, quantity: int, price: int) -> None:
        """Book a fill."""
        self.quantity[symbol] += quantity if side == "buy" else -quantity
        self.price[symbol] = self.price[symbol] or price
        order = self.orders.get(order_id)
        if order and quantity > 0:
            order[2] -= min(quantity, order[2])
            if order[2] == 0:
                del self.orders[order_id]
        elif order:
            order[2] -= quantity

    def adopt(self, order_id: str, symbol: str, side: str, quantity: int, price: int) -> None:
        """Take an order up without asking."""
        if order_id not in self.orders:
            self.orders[order_id] = [symbol, side, quantity]
            self.price[symbol] = self.price[symbol] or price

    def close(self, order_id: str) -> None:
        """Forget an order."""
        self.orders.pop(order_id, None)


ids = st.integers(0, 6).map(str)
symbols = st.sampled_from(SYMBOLS)
sides = st.sampled_from(["buy", "sell"])
quantities = st.integers(1, 40)
prices = st.integers(0, 60)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("check"), ids, symbols, sides, quantities, prices),
        st.tuples(st.just("booked"), ids, symbols, sides, st.integers(-20, 40).filter(bool), prices),
        st.tuples(st.just("adopt"), ids, symbols, sides, quantities, prices),
        st.tuples(st.just("close"), ids, symbols, sides, quantities, prices),
        st.tuples(st.just("mark"), ids, symbols, sides, quantities, prices),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(steps=steps)
def test_incremental_limits_equal_recomputed_ones(steps: list[tuple[Any, ...]]) -> None:
    """After any history the risk book decides and reports as a model that adds everything up anew."""
    book, naive = RiskBook(LIMITS), Naive()
    for kind, order_id, symbol, side, quantity, price in steps:
        if kind == "check":
            verdict = book.check(order_id, symbol, side, quantity, price)
            assert (verdict is None) == naive.check(order_id, symbol, side, quantity, price), verdict
        elif kind == "booked":
            known = naive.orders.get(order_id)
            symbol_, side_ = (known[0], known[1]) if known else (symbol, side)
            book.booked(order_id, symbol_, side_, quantity, price)
            naive.booked(order_id, symbol_, side_, quantity, price)
        elif kind == "adopt":
            book.adopt(order_id, symbol, side, quantity, price)
            naive.adopt(order_id, symbol, side, quantity, price)
        elif kind == "close":
            book.close(order_id)
            naive.close(order_id)
        else:
            book.mark(symbol, price)
            naive.price[symbol] = price or naive.price[symbol]
        assert book.gross_notional == naive.gross()
        assert {s: n for s, n in book.position_usage().items() if n} == {
            s: naive.worst(s) for s in SYMBOLS if naive.worst(s)
        }


@settings(max_examples=200, deadline=None)
@given(steps=steps)
def test_approved_orders_alone_never_breach_the_position_limit(steps: list[tuple[Any, ...]]) -> None:
    """However approved orders fill, no position gets beyond its limit."""
    book = RiskBook(Limits(position={"*": 50}, gross_notional=10**9))
    orders: dict[str, list[Any]] = {}
    for kind, order_id, symbol, side, quantity, price in steps:
        if kind == "check" and book.check(order_id, symbol, side, quantity, price) is None:
            orders[order_id] = [symbol, side, quantity]
        elif kind == "booked" and order_id in orders:
            known = orders[order_id]
            filled = min(abs(quantity), known[2])
            known[2] -= filled
            book.booked(order_id, known[0], known[1], filled, price)
            if not known[2]:
                del orders[order_id]
        elif kind == "close":
            book.close(order_id)
            orders.pop(order_id, None)
        assert all(used <= 50 for used in book.position_usage().values())
        assert not book.breaches()


def test_a_snapshot_replaces_everything() -> None:
    """What was known before a snapshot has no effect after it, and a loaded breach is named."""
    book = RiskBook(LIMITS)
    assert book.check("1", "ALFA", "buy", 50, 0) is None
    book.load([Holding("BRAVO", 31, 0, 10)], [OpenOrder("9", "ALFA", "sell", 5, 20)])
    assert book.position_usage() == {"BRAVO": 31, "ALFA": 5}
    assert book.gross_notional == 31 * 10 + 5 * 20
    assert book.breaches() == ["position BRAVO: 31 > 30"]
    assert book.check("2", "BRAVO", "sell", 20, 10) is None
    assert book.check("3", "BRAVO", "buy", 1, 10) is not None
