from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperfirm.feed.core import FeedState
from paperfirm.feed.messages import BookSnapshot, Levels, Update, decode_datagram

SYMBOLS = ("ALFA", "BRAVO")


class Exchange:
    """The true books and every message about them."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.epoch = 0
        self.seq = 0
        self.books = {symbol: {"buy": {}, "sell": {}} for symbol in SYMBOLS}

    def step(self) -> Update:
        """Change one level and return the message about it."""
        self.seq += 1
        symbol, side = self._rng.choice(SYMBOLS), self._rng.choice(["buy", "sell"])
        price = self._rng.randint(1, 9) + (10 if side == "sell" else 0)
        quantity = self._rng.choice([0, 5, 7])
        if quantity:
            self.books[symbol][side][price] = quantity
        else:
            self.books[symbol][side].pop(price, None)
        return Update(
            seq=self.seq,
            symbol=symbol,
            side=side,
            price=price,
            quantity=quantity,
            mono_ns=self.seq,
            epoch=self.epoch,
        )

    def failover(self) -> None:
        """Begin a new numbering; the books stay."""
        self.epoch += 1
        self.seq = 0

    def snapshot(self) -> BookSnapshot:
        """Return the books as they are now."""
        levels = {
            symbol: Levels(list(sides["buy"].items()), list(sides["sell"].items()))
            for symbol, sides in self.books.items()
        }
        return BookSnapshot(self.seq, levels, 0, self.epoch)


def held(state: FeedState) -> dict[str, tuple[dict[int, int], dict[int, int]]]:
    """Return the books that the feed holds."""
    return {symbol: (book.bids, book.asks) for symbol, book in state.books.items()}


def true(exchange: Exchange) -> dict[str, tuple[dict[int, int], dict[int, int]]]:
    """Return the books as they are in truth."""
    return {symbol: (sides["buy"], sides["sell"]) for symbol, sides in exchange.books.items()}


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), loss=st.sampled_from([0.0, 0.05, 0.4]), failovers=st.booleans())
def test_lost_doubled_and_reordered_messages_end_in_the_true_book(
    seed: int, loss: float, *, failovers: bool
) -> None:
    """Whatever the network does, books called true equal the exchange's, and they become true in the end."""
    rng = random.Random(seed)
    exchange, state = Exchange(rng), FeedState()
    underway: list[Update] = []
    for now in range(1, 300):
        if failovers and rng.random() < 0.01:
            exchange.failover()
        message = exchange.step()
        if rng.random() >= loss:
            underway.append(message)
        if rng.random() < 0.1:
            underway.append(message)  # a duplicate
        rng.shuffle(underway)
        while underway and rng.random() < 0.6:
            state.receive([underway.pop()], now)
        if not state.synchronised and rng.random() < 0.2:
            state.load(exchange.snapshot(), now)
        if state.synchronised and state.next_seq == exchange.seq + 1 and state.epoch == exchange.epoch:
            assert held(state) == true(exchange)
    state.receive([Update(heartbeat=exchange.seq + 1, mono_ns=300, epoch=exchange.epoch)], 300)
    if not state.synchronised:
        assert state.load(exchange.snapshot(), 301)
    assert held(state) == true(exchange)


def test_a_lost_tail_is_noticed_by_the_heartbeat() -> None:
    """When the last message before a silence is lost, the next heartbeat shows it."""
    exchange, state = Exchange(random.Random(1)), FeedState()
    state.load(exchange.snapshot(), 1)
    exchange.step()
    assert state.synchronised
    state.receive([Update(heartbeat=2, mono_ns=5)], 5)
    assert not state.synchronised
    assert state.gaps == 1
    assert state.load(exchange.snapshot(), 6)


def test_an_old_snapshot_changes_nothing() -> None:
    """A snapshot that arrives late never takes the books back."""
    exchange, state = Exchange(random.Random(2)), FeedState()
    old = exchange.snapshot()
    state.load(old, 1)
    for now in range(2, 20):
        state.receive([exchange.step()], now)
    state.load(old, 20)
    assert held(state) == true(exchange)
    assert state.next_seq == 19


def test_a_straggler_of_the_old_epoch_is_ignored() -> None:
    """After a failover of the feed, what was sent before it cannot disturb the new numbering."""
    exchange, state = Exchange(random.Random(3)), FeedState()
    state.load(exchange.snapshot(), 1)
    straggler = exchange.step()
    exchange.failover()
    state.receive([Update(heartbeat=1, epoch=1, mono_ns=2)], 2)
    assert not state.synchronised
    assert state.load(exchange.snapshot(), 3)
    state.receive([straggler], 4)
    assert (state.epoch, state.next_seq) == (1, 1)
    assert held(state) == true(exchange)


def test_stamps_of_the_exchange_decide_what_is_fresh() -> None:
    """Briskly delivered old messages are an old feed; one from the future is no fresher than now."""
    state = FeedState()
    state.receive([Update(heartbeat=1, mono_ns=500)], 9_000)
    assert state.heard_ns == 500
    state.receive([Update(heartbeat=1, mono_ns=99_000)], 9_500)
    assert state.heard_ns == 9_500


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            b'[{"seq":4,"symbol":"ALFA","side":"buy","price":5,"quantity":6,"mono_ns":7}]',
            Update(4, "ALFA", "buy", 5, 6, mono_ns=7),
        ),
        (b'[{"heartbeat":9,"mono_ns":7}]', Update(heartbeat=9, mono_ns=7)),
        (b'[{"skip_to":9}]', Update(skip_to=9)),
    ],
)
def test_datagrams_of_the_interface_are_understood(text: bytes, expected: Update) -> None:
    """The forms in the exchange's reference decode to what they say."""
    assert decode_datagram(text) == [expected]
    with pytest.raises(msgspec.DecodeError):
        decode_datagram(text[:-1])
