"""The venue against a naive model: a list of orders that is sorted anew for every trade."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fixsession.clock import Now
from paperexchange import facts as f
from paperexchange.model import CancelOrder, Instrument, NewOrder, ReplaceOrder
from paperexchange.state import State
from paperexchange.venue import Venue

AT = Now(1, 1)
ACCOUNTS = ("FIRM", "OTHER", "HOUSE")
TICK = 100

submits = st.tuples(
    st.just("new"),
    st.sampled_from(ACCOUNTS),
    st.sampled_from(["buy", "sell"]),
    st.integers(1, 30),
    st.integers(95, 105),
    st.sampled_from(["day", "day", "ioc", "market"]),
)
cancels = st.tuples(st.just("cancel"), st.integers(0, 40))
replaces = st.tuples(st.just("replace"), st.integers(0, 40), st.integers(1, 40), st.integers(95, 105))
flows = st.lists(st.one_of(submits, submits, submits, cancels, replaces), max_size=60)


class Naive:
    """Orders as plain dictionaries in one list; the best counterparty is searched for every single lot."""

    def __init__(self) -> None:
        self.orders: list[dict[str, Any]] = []
        self.trades: list[tuple[str, str, int, int]] = []
        self.clock = 0

    def new(self, key: str, account: str, side: str, quantity: int, price: int, kind: str) -> None:  # noqa: PLR0917
        """Add an order and match it."""
        order = {"key": key, "account": account, "side": side, "left": quantity, "done": 0, "price": price}
        self.clock += 1
        order |= {"time": self.clock, "kind": kind, "resting": False}
        self.orders.append(order)
        self.match(order)

    def match(self, order: dict[str, Any]) -> None:
        """Trade lot by lot with the best of all resting orders."""
        buys = order["side"] == "buy"
        while order["left"]:
            others = [o for o in self.orders if o["resting"] and o["left"] and o["side"] != order["side"]]
            if order["kind"] != "market":
                others = [
                    o
                    for o in others
                    if (o["price"] <= order["price"]) == buys or o["price"] == order["price"]
                ]
            if not others:
                break
            best = min(others, key=lambda o: (o["price"] if buys else -o["price"], o["time"]))
            quantity = min(best["left"], order["left"])
            for side in (best, order):
                side["left"] -= quantity
                side["done"] += quantity
            self.trades.append((best["key"], order["key"], quantity, best["price"]))
        if order["kind"] == "day":
            order["resting"] = True
        else:
            order["left"] = 0

    def find(self, key: str) -> dict[str, Any] | None:
        """Find an open order."""
        return next((o for o in self.orders if o["key"] == key and o["left"]), None)

    def replace(self, key: str, quantity: int, price: int) -> None:
        """Change an open order; it goes to the end of the queue unless it only shrinks."""
        order = self.find(key)
        if order is None or quantity <= order["done"]:
            return
        total = order["done"] + order["left"]
        order["left"] = quantity - order["done"]
        if price != order["price"] or quantity > total:
            self.clock += 1
            order |= {"price": price, "time": self.clock, "resting": False}
            self.match(order)


class Real:
    """The venue, driven by the same flow."""

    def __init__(self) -> None:
        self.entries: list[f.Fact] = []
        self.state = State()
        self.venue = Venue([Instrument("ALFA", 100 * TICK)], self.state, self.record)
        self.venue.enter("continuous", AT)
        self.names: dict[str, str] = {}
        self.keys: dict[str, str] = {}

    def record(self, fact: f.Fact) -> None:
        """Keep and apply an entry under the next number."""
        fact.seq = len(self.entries) + 1
        self.entries.append(fact)
        self.state.apply(fact)

    def new(self, key: str, account: str, side: Any, quantity: int, price: int, kind: str) -> None:  # noqa: PLR0917
        """Submit an order."""
        order = self.venue.submit(
            NewOrder(
                account=account,
                cl_ord_id=key,
                symbol="ALFA",
                side=side,
                quantity=quantity,
                price=0 if kind == "market" else price * TICK,
                type="market" if kind == "market" else "limit",
                tif="ioc" if kind == "ioc" else "day",
            ),
            AT,
        )
        assert order is not None
        self.names[order.order_id] = key
        self.keys[key] = order.order_id

    def trades(self) -> list[tuple[str, str, int, int]]:
        """Give the trades in the naive model's form."""
        fills = [e for e in self.entries if isinstance(e, f.Fill)]
        pairs = zip(fills[::2], fills[1::2], strict=True)
        return [
            (self.names[a.order_id], self.names[b.order_id], a.quantity, a.price // TICK) for a, b in pairs
        ]


def play(flow: list[Any]) -> tuple[Naive, Real]:
    """Play a flow on both."""
    naive, real = Naive(), Real()
    keys: list[tuple[str, str]] = []
    for index, step in enumerate(flow):
        if step[0] == "new":
            key = f"N{index}"
            keys.append((key, step[1]))
            naive.new(key, *step[1:])
            real.new(key, *step[1:])
            continue
        chosen = keys[step[1] % len(keys)] if keys else None
        if chosen is None or chosen[1] == "HOUSE":
            continue
        key, account = chosen
        if step[0] == "cancel":
            real.venue.cancel(
                CancelOrder(
                    account=account, cl_ord_id=f"K{index}", orig_cl_ord_id="", order_id=real.keys[key]
                ),
                AT,
            )
            if order := naive.find(key):
                order["left"] = 0
        else:
            request = ReplaceOrder(
                account=account,
                cl_ord_id=f"R{index}",
                orig_cl_ord_id="",
                order_id=real.keys[key],
                quantity=step[2],
                price=step[3] * TICK,
            )
            real.venue.replace(request, AT)
            naive.replace(key, step[2], step[3])
    return naive, real


@settings(max_examples=300, deadline=None)
@given(flows)
def test_venue_trades_like_the_naive_model(flow: list[Any]) -> None:
    """Who trades with whom, how much, at which price and in which order is the same as in the naive model."""
    naive, real = play(flow)
    assert real.trades() == naive.trades


@settings(max_examples=200, deadline=None)
@given(flows)
def test_nothing_is_created_or_lost(flow: list[Any]) -> None:
    """Positions and cash of all accounts add up to zero; the book is never crossed and holds what is open."""
    naive, real = play(flow)
    positions = [p for account in real.state.accounts.values() for p in account.positions.values()]
    assert sum(p.quantity for p in positions) == 0
    assert sum(p.cash for p in positions) == 0
    book = real.venue.books["ALFA"]
    assert not book.crossed()
    resting = {
        real.names[o.order_id]: o.leaves_quantity for half in (book.bids, book.offers) for o in half.queue()
    }
    assert resting == {o["key"]: o["left"] for o in naive.orders if o["left"]}


@settings(max_examples=200, deadline=None)
@given(flows)
def test_published_levels_are_the_book(flow: list[Any]) -> None:
    """Whoever follows the book changes has the book: every level, nothing else, no gap in the numbers."""
    _, real = play(flow)
    levels: dict[tuple[str, int], int] = {}
    numbers = []
    for entry in real.entries:
        if isinstance(entry, f.BookChange | f.BookTrade):
            numbers.append(entry.md_seq)
        if isinstance(entry, f.BookChange):
            levels[entry.side, entry.price] = entry.quantity
    book = real.venue.books["ALFA"]
    expected = {("buy", p): q for p, q in book.bids.depth(99)} | {
        ("sell", p): q for p, q in book.offers.depth(99)
    }
    assert {key: total for key, total in levels.items() if total} == expected
    assert numbers == list(range(1, len(numbers) + 1))


@settings(max_examples=150, deadline=None)
@given(flows, st.data())
def test_state_recovers_from_any_prefix_of_the_entries(flow: list[Any], data: st.DataObject) -> None:
    """Replaying entries gives the live state and the live queues; from a cut prefix matching is finished."""
    _, real = play(flow)
    bodies = [f.encoder.encode(entry) for entry in real.entries]
    again = rebuilt(bodies)
    assert again.state.orders == real.state.orders
    assert positions_of(again.state) == positions_of(real.state)
    assert queues(again.venue) == queues(real.venue)
    part = rebuilt(bodies[: data.draw(st.integers(0, len(bodies)))], whole_trades=True)
    assert not part.venue.books["ALFA"].crossed()
    assert sum(p.quantity for a in part.state.accounts.values() for p in a.positions.values()) == 0


def rebuilt(bodies: list[bytes], *, whole_trades: bool = False) -> Real:
    """Recover a venue from encoded entries."""
    entries = [f.decoder.decode(body) for body in bodies]
    if whole_trades and entries and isinstance(entries[-1], f.Fill):
        matches = [e.match_id for e in entries if isinstance(e, f.Fill)]
        if matches.count(matches[-1]) == 1:
            entries.pop()
    again = Real()
    again.state = State()
    again.entries = list(entries)
    again.state.apply_all(entries)
    again.venue = Venue([Instrument("ALFA", 100 * TICK)], again.state, again.record)
    again.venue.resume(AT)
    return again


def positions_of(state: State) -> dict[str, Any]:
    """Give every account's positions."""
    return {name: account.positions for name, account in state.accounts.items()}


def queues(venue: Venue) -> list[str]:
    """Give the resting orders in the order in which they would trade."""
    book = venue.books["ALFA"]
    return [order.order_id for half in (book.bids, book.offers) for order in half.queue()]
