import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paperexchange.testing import Running


class Follower:
    """Keeps a book from datagrams, as a feed handler would."""

    def __init__(self, exchange: Running, symbols: Any = "*") -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.settimeout(10)
        address = exchange.endpoints["market_data"]
        self.sock.sendto(json.dumps({"subscribe": symbols}).encode(), (address["host"], address["port"]))
        self.messages = self._messages()

    def _messages(self) -> Iterator[dict[str, Any]]:
        while True:
            yield from json.loads(self.sock.recv(65536))

    def until(self, fits: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Messages up to and including the first that fits."""
        taken = []
        for message in self.messages:
            taken.append(message)
            if fits(message):
                break
        return taken


@pytest.fixture
def follower(exchange: Running) -> Iterator[Follower]:
    """Register a subscriber to everything."""
    made = Follower(exchange)
    made.until(lambda m: "heartbeat" in m)
    yield made
    made.sock.close()


def test_increments_rebuild_the_book(start: Callable[..., Running]) -> None:
    """Snapshot plus later increments gives the exchange's book; numbers have no gap."""
    exchange = start("--participants", "200")
    follower = Follower(exchange)
    first = follower.until(lambda m: "seq" in m)[-1]
    snapshot = exchange.until("/market_data/snapshot", lambda s: s["seq"] >= first["seq"])
    books = {
        (symbol, side, price): quantity
        for symbol, book in snapshot["books"].items()
        for side, key in (("buy", "bids"), ("sell", "asks"))
        for price, quantity in book[key]
    }
    numbers, current = [first["seq"]], snapshot["seq"]
    goal = exchange.until("/market_data/snapshot", lambda s: s["seq"] > snapshot["seq"] + 200)
    while numbers[-1] < goal["seq"]:
        for message in follower.until(lambda m: "seq" in m):
            if "seq" not in message:
                continue
            numbers.append(message["seq"])
            if "side" in message and current < message["seq"] <= goal["seq"]:
                books[message["symbol"], message["side"], message["price"]] = message["quantity"]
    follower.sock.close()
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    for symbol, book in goal["books"].items():
        levels = {(price, side): q for (s, side, price), q in books.items() if s == symbol and q}
        assert levels == {
            (p, side): q for side, key in (("buy", "bids"), ("sell", "asks")) for p, q in book[key]
        }


def test_other_symbols_are_skipped_not_lost(exchange: Running) -> None:
    """A subscriber to one symbol sees every number: messages of others as `skip_to`."""
    follower = Follower(exchange, ["BRAVO"])
    follower.until(lambda m: "heartbeat" in m)
    member = exchange.member().connect()
    for symbol in ("ALFA", "ALFA", "BRAVO"):
        member.report(member.order(t55=symbol, price="40.00"), "0")
    seen = follower.until(lambda m: m.get("symbol") == "BRAVO")
    follower.sock.close()
    reached = 0
    for message in seen:
        if "skip_to" in message:
            reached = message["skip_to"]
        elif "seq" in message:
            assert message["seq"] == reached + 1 == 3


def test_trades_are_printed(exchange: Running, follower: Follower) -> None:
    """A trade is published with price and quantity between the levels it changed."""
    member = exchange.member().connect()
    member.order(quantity=10, price="100.00")
    member.order(side="2", quantity=4, price="100.00")
    trade = follower.until(lambda m: "trade" in m)[-1]
    assert (trade["symbol"], trade["trade"]) == ("ALFA", {"price": 1_000_000, "quantity": 4})


def test_gap_on_demand_skips_numbers(exchange: Running, follower: Follower) -> None:
    """After `gap` numbers are missing; the snapshot has what was lost."""
    member = exchange.member().connect()
    exchange.post("/control/market_data", action="gap", n=2)
    for price in ("90.00", "91.00", "92.00"):
        member.report(member.order(price=price), "0")
    numbers = [m["seq"] for m in follower.until(lambda m: "seq" in m) if "seq" in m]
    assert numbers == [3]
    assert exchange.get("/market_data/snapshot?symbol=ALFA")["seq"] == 3


def test_stale_feed_is_silent(exchange: Running, follower: Follower) -> None:
    """For the stated time not even a heartbeat comes; the next one names the number to expect."""
    exchange.post("/control/market_data", action="stale", ms=500)
    member = exchange.member().connect()
    member.report(member.order(), "0")
    follower.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        follower.until(lambda m: m.get("heartbeat") == 99)
    follower.sock.settimeout(10)
    follower.messages = follower._messages()
    assert follower.until(lambda m: "heartbeat" in m)[-1]["heartbeat"] == 2


def test_crossed_book_is_published_but_not_real(exchange: Running, follower: Follower) -> None:
    """The next change is published at a price through the other side; the snapshot is sound."""
    member = exchange.member().connect()
    member.report(member.order(side="2", price="101.00"), "0")
    follower.until(lambda m: "seq" in m)
    exchange.post("/control/market_data", action="crossed", n=500)
    member.report(member.order(price="100.00"), "0")
    assert follower.until(lambda m: "seq" in m)[-1]["price"] == 1_050_000
    assert exchange.get("/market_data/snapshot?symbol=ALFA")["books"]["ALFA"]["bids"] == [[1_000_000, 100]]


def test_feed_failover_begins_a_new_epoch(exchange: Running, follower: Follower) -> None:
    """Numbers begin at 1 with a new epoch, in increments, heartbeats and snapshot alike."""
    member = exchange.member().connect()
    member.report(member.order(), "0")
    follower.until(lambda m: "seq" in m)
    assert exchange.post("/control/market_data", action="failover")["epoch"] == 1
    assert follower.until(lambda m: "epoch" in m)[-1]["heartbeat"] == 1
    member.report(member.order(price="91.00"), "0")
    change = follower.until(lambda m: "seq" in m)[-1]
    assert (change["seq"], change["epoch"]) == (1, 1)
    snapshot = exchange.get("/market_data/snapshot")
    assert (snapshot["seq"], snapshot["epoch"]) == (1, 1)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [("price", None, -10_000), ("quantity", 0, 0), ("mono_ns", -1, -1), ("symbol", None, "\ufffd?")],
)
def test_nonsense_is_published_but_not_real(
    exchange: Running, follower: Follower, field: str, value: int | None, expected: object
) -> None:
    """Two levels carry the nonsense under their own numbers, the third none; the snapshot is sound."""
    member = exchange.member().connect()
    armed = exchange.post("/control/market_data", action="nonsense", n=2, field=field, value=value)
    for price in ("90.00", "91.00", "92.00"):
        member.report(member.order(price=price), "0")
    seen = [follower.until(lambda m: "seq" in m)[-1] for _ in range(3)]
    assert [message["seq"] for message in seen] == [1, 2, 3]
    assert [message[field] == expected for message in seen] == [True, True, False]
    books = exchange.get("/market_data/snapshot?symbol=ALFA")["books"]
    assert books["ALFA"]["bids"] == [[920_000, 100], [910_000, 100], [900_000, 100]]
    (deed,) = exchange.get("/control/market_data")["deeds"]
    assert (deed["id"], len(deed["fired_mono_ns"]), deed["left"]) == (armed["id"], 2, 0)


def test_disarming_makes_market_data_sound_again(exchange: Running, follower: Follower) -> None:
    """What was still due does not happen after DELETE."""
    exchange.post("/control/market_data", action="nonsense", n=100)
    exchange.post("/control/market_data", action="gap", n=100)
    assert exchange.request("DELETE", "/control/misbehave")[0] == 200
    member = exchange.member().connect()
    member.report(member.order(price="90.00"), "0")
    assert follower.until(lambda m: "seq" in m)[-1]["price"] == 900_000
