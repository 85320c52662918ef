"""Market data over UDP: incremental messages with one sequence, heartbeats, and its own misbehaviours.

Only durable entries are published. A subscriber registers by datagram and repeats it; a gap is healed with
the HTTP snapshot.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from paperexchange import facts as f
from paperexchange.errors import ExchangeError
from paperexchange.model import Side

Address = tuple[str | Any, int]
_LEASE_NS: Final = 5_000_000_000
_HEARTBEAT_NS: Final = 100_000_000
_PER_DATAGRAM: Final = 100
_encode = msgspec.json.Encoder().encode


class Subscription(msgspec.Struct):
    """What one address wants; None is everything."""

    symbols: frozenset[str] | None
    until_ns: int


class Deed(msgspec.Struct):
    """A misbehaviour of the feed: how many messages are still due for it, and when it happened."""

    id: str
    action: str
    left: int = 1
    field: str = "price"
    value: Any = None
    fired_mono_ns: list[int] = msgspec.field(default_factory=list)


_NONSENSE: Final[dict[str, Any]] = {
    "price": -10_000,
    "quantity": 10**15,
    "mono_ns": 2**62,
    "symbol": "\ufffd?",
}
"""Which fields of a level can be nonsense, and what stands there unless told otherwise."""


class Feed(asyncio.DatagramProtocol):
    """Publishes book changes and trades."""

    def __init__(
        self,
        sequence: Callable[[], int],
        on_deed: Callable[[Deed], None],
        opposite: Callable[[str, Side], int | None],
    ) -> None:
        """`sequence` gives the newest market-data number of the venue, `opposite` a side's best counterpart.

        `on_deed` is told whenever a misbehaviour took effect.
        """
        self._opposite = opposite
        self.epoch = 0
        self.base = 0
        self.subscriptions: dict[Address, Subscription] = {}
        self._sequence = sequence
        self._transport: asyncio.DatagramTransport | None = None
        self.deeds: dict[str, Deed] = {}
        self._on_deed = on_deed
        self._nonsense: dict[int, Deed] = {}
        self._cross = 0
        self._stale_until_ns = 0
        self._last_sent_ns = 0
        self._published = sequence()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast("asyncio.DatagramTransport", transport)  # uvloop's has no common ancestor

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Take a registration; anything else is ignored, as on any UDP port."""
        try:
            wanted = msgspec.json.decode(data)["subscribe"]
            symbols = None if wanted == "*" else frozenset(map(str, wanted))
        except (msgspec.DecodeError, KeyError, TypeError):
            return
        self.subscriptions[addr] = Subscription(symbols, time.monotonic_ns() + _LEASE_NS)

    def error_received(self, exc: Exception) -> None:
        """Do nothing: a subscriber's port is closed, its lease will lapse."""

    def number(self, md_seq: int) -> int:
        """Give the published number of a venue number in this epoch."""
        return md_seq - self.base

    def publish(self, changes: list[f.BookChange | f.BookTrade]) -> None:
        """Send durable changes to every subscriber."""
        changes = [change for change in changes if change.md_seq > self._published]
        if not changes:
            return
        self._published = changes[-1].md_seq
        changes = self._lose(changes)
        if not self.subscriptions or self._stale_until_ns > time.monotonic_ns():
            return
        spoilt = self._spoil(changes)
        for address, subscription in list(self.subscriptions.items()):
            self._send_changes(address, subscription, changes)
        for deed in spoilt:
            self._did(deed)
        self._nonsense.clear()
        self._cross = 0

    def _lose(self, changes: list[f.BookChange | f.BookTrade]) -> list[f.BookChange | f.BookTrade]:
        """Leave out what `gap` asked for."""
        for deed in self._due("gap"):
            lost, deed.left = min(deed.left, len(changes)), max(0, deed.left - len(changes))
            changes = changes[lost:]
            self._did(deed)
        return changes

    def _spoil(self, changes: list[f.BookChange | f.BookTrade]) -> list[Deed]:
        """Choose the levels that will carry nonsense; one deed a level."""
        spoilt = []
        for change in changes:
            deed = next(iter(self._due("nonsense")), None)
            if deed is not None and isinstance(change, f.BookChange):
                deed.left -= 1
                self._nonsense[change.md_seq] = deed
                spoilt.append(deed)
        if self._cross and any(isinstance(change, f.BookChange) for change in changes):
            spoilt += self._due("crossed")
            for deed in self._due("crossed"):
                deed.left = 0
        return spoilt

    def _due(self, action: str) -> list[Deed]:
        return [deed for deed in self.deeds.values() if deed.action == action and deed.left > 0]

    def _did(self, deed: Deed) -> None:
        deed.fired_mono_ns.append(time.monotonic_ns())
        self._on_deed(deed)

    def _send_changes(
        self, address: Address, subscription: Subscription, changes: list[f.BookChange | f.BookTrade]
    ) -> None:
        messages: list[dict[str, Any]] = []
        for change in changes:
            if subscription.symbols is None or change.symbol in subscription.symbols:
                messages.append(self._message(change))
            elif messages and "skip_to" in messages[-1]:
                messages[-1]["skip_to"] = self.number(change.md_seq)
            else:
                messages.append({"skip_to": self.number(change.md_seq)})
        for start in range(0, len(messages), _PER_DATAGRAM):
            self._send(address, messages[start : start + _PER_DATAGRAM])

    def _message(self, change: f.BookChange | f.BookTrade) -> dict[str, Any]:
        message: dict[str, Any] = {"seq": self.number(change.md_seq), "symbol": change.symbol}
        if isinstance(change, f.BookTrade):
            message["trade"] = {"price": change.price, "quantity": change.quantity}
        else:
            price, quantity = change.price, change.quantity
            if self._cross:
                price, quantity = self._crossing(change), quantity or 1
            message |= {"side": change.side, "price": price, "quantity": quantity}
        message["mono_ns"] = change.mono_ns
        deed = self._nonsense.get(change.md_seq)
        if deed is not None:
            message[deed.field] = deed.value
        if self.epoch:
            message["epoch"] = self.epoch
        return message

    def _crossing(self, change: f.BookChange) -> int:
        """Move a price by what was asked, and where that is not through the other side, from there."""
        away = self._cross if change.side == "buy" else -self._cross
        price, other = change.price + away, self._opposite(change.symbol, change.side)
        if other is None or (price > other if change.side == "buy" else price < other):
            return price
        return other + away

    def _send(self, address: Address, messages: Any) -> None:
        if self._transport is not None:
            self._transport.sendto(_encode(messages), address)
            self._last_sent_ns = time.monotonic_ns()

    def tick(self, now_ns: int) -> None:
        """Drop lapsed subscribers; a heartbeat when idle."""
        for address in [a for a, s in self.subscriptions.items() if s.until_ns < now_ns]:
            del self.subscriptions[address]
        if now_ns - self._last_sent_ns < _HEARTBEAT_NS or self._stale_until_ns > now_ns:
            return
        heartbeat: dict[str, Any] = {"heartbeat": self.number(self._published) + 1, "mono_ns": now_ns}
        if self.epoch:
            heartbeat["epoch"] = self.epoch
        for address in self.subscriptions:
            self._send(address, [heartbeat])

    def misbehave(
        self, action: str, *, n: int = 10, ms: float = 1000.0, field: str = "price", value: Any = None
    ) -> Deed:
        """Behave badly.

        `gap`: lose the next `n` messages. `stale`: silence for `ms`. `crossed`: the next change
        crosses the book by `n` ticks of 0.01. `failover`: a new epoch whose sequence begins at 1.
        `nonsense`: the next `n` levels carry `value` in `field` (price, quantity, mono_ns or symbol).
        """
        if field not in _NONSENSE:
            raise ExchangeError(
                f"{field!r} cannot be nonsense", where="field", hint="one of " + " ".join(_NONSENSE)
            )
        deed = Deed(f"D{len(self.deeds) + 1}", action, field=field)
        if action == "gap":
            deed.left = n
        elif action == "nonsense":
            deed.left, deed.value = n, _NONSENSE[field] if value is None else value
        elif action == "stale":
            self._stale_until_ns = time.monotonic_ns() + int(ms * 1e6)
        elif action == "crossed":
            self._cross = n * 100
        elif action == "failover":
            self.epoch += 1
            self.base = self._published
        else:
            raise ExchangeError(
                f"unknown market-data action {action!r}",
                where="action",
                hint="gap, stale, crossed, failover or nonsense",
            )
        self.deeds[deed.id] = deed
        if action in ("stale", "failover"):
            deed.left = 0
            self._did(deed)
        return deed

    def behave(self) -> None:
        """Lift everything that is still due, and silence."""
        for deed in self.deeds.values():
            deed.left = 0
        self._stale_until_ns = self._cross = 0
