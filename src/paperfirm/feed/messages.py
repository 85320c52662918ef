"""What the exchange's market-data port sends (docs/reference/exchange-interface.md, "Market data")."""

from __future__ import annotations

import msgspec


class Trade(msgspec.Struct, frozen=True, gc=False):
    """A trade print."""

    price: int
    quantity: int


class Update(msgspec.Struct, frozen=True, gc=False):
    """One message of a datagram.

    A level (`side`), a trade, a skip or a heartbeat, by which fields are there.
    """

    seq: int = 0
    symbol: str = ""
    side: str = ""
    price: int = 0
    quantity: int = 0
    trade: Trade | None = None
    skip: bool = False
    skip_to: int = 0
    heartbeat: int = 0
    mono_ns: int = 0
    epoch: int = 0


class Levels(msgspec.Struct, frozen=True, gc=False):
    """Both sides of a book as `[price, quantity]` pairs."""

    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]


class BookSnapshot(msgspec.Struct, frozen=True):
    """Answer of `GET /market_data/snapshot`: the books after message `seq`."""

    seq: int
    books: dict[str, Levels]
    mono_ns: int = 0
    epoch: int | None = None
    """None: the exchange does not say; it answers for the epoch it is in."""


decode_datagram = msgspec.json.Decoder(list[Update]).decode
decode_snapshot = msgspec.json.Decoder(BookSnapshot).decode
