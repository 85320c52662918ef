"""What the oracle knows, computed afresh from its own executions: positions, cash, average-cost profit."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import msgspec

from blackstart.check.rpo import locate
from blackstart.check.validators.documents import UnreadError, raw, shaped
from blackstart.check.validators.shapes import OraclePosition, Order

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts

FIELDS = ("symbol", "side", "quantity", "price")


class Fill(msgspec.Struct, frozen=True):
    """An execution: signed quantity (bought is positive), price in ticks, and when the oracle told of it."""

    key: str
    symbol: str
    quantity: int
    price: int
    mono_ns: int | None = None


class Holding(msgspec.Struct):
    """A position, its cash (ticks, sells minus buys) and what closing trades earned at average cost."""

    quantity: int = 0
    cash: int = 0
    average: float = 0.0
    realised: float = 0.0

    def book(self, quantity: int, price: int) -> None:
        """Take in a fill."""
        self.cash -= quantity * price
        closing = min(abs(quantity), abs(self.quantity)) if self.quantity * quantity < 0 else 0
        sign = 1 if self.quantity > 0 else -1
        self.realised += sign * closing * (price - self.average)
        after = self.quantity + quantity
        opened = abs(quantity) - closing
        if opened:
            kept = abs(self.quantity) - closing
            self.average = (self.average * kept + price * opened) / (kept + opened)
        elif after == 0:
            self.average = 0.0
        self.quantity = after


class _Line(msgspec.Struct):
    key: str | int
    seq: int | None = None
    mono_ns: int | None = None
    content: str | None = None
    outcome: str | None = None


def fills(facts: Facts) -> list[Fill] | None:
    """Return the oracle's executions in the order in which the target booked them (else as acknowledged).

    None when no stream of executions states symbol, side, quantity and price as its content.
    """
    for name, stream in facts.manifest.streams.items():
        if stream.acknowledged == "oracle:executions" and set(FIELDS) <= set(stream.content):
            return _in_order(facts, name, stream.content)
    return None


def _in_order(facts: Facts, stream: str, fields: tuple[str, ...]) -> list[Fill]:
    booked = {str(row.key): row.seq for row in _rows(facts, stream, "recovered") if row.seq is not None}
    rows = [row for row in _rows(facts, stream, "acknowledged") if row.outcome in (None, "ok")]
    rows.sort(key=lambda row: booked.get(str(row.key), row.seq or 0))
    return [_fill(row, fields) for row in rows]


def _fill(row: _Line, fields: tuple[str, ...]) -> Fill:
    values = dict(zip(fields, msgspec.json.decode(row.content or "[]", type=list[str]), strict=True))
    sign = {"buy": 1, "sell": -1}[values["side"]]
    quantity, price = sign * int(values["quantity"]), int(values["price"])
    return Fill(str(row.key), values["symbol"], quantity, price, row.mono_ns)


def _rows(facts: Facts, stream: str, side: str) -> Iterable[_Line]:
    file = facts.ledger(stream, side)
    if file is None or file.error is not None:
        raise UnreadError("not-read", f"the {side} side of stream '{stream}' was not written")
    decoder = msgspec.json.Decoder(_Line)
    path = locate(facts.folder, file.path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return [decoder.decode(line) for line in data.splitlines() if line.strip()]
    except (OSError, msgspec.DecodeError) as error:
        raise UnreadError("not-read", f"{path.name} cannot be read: {error}") from error


def holdings(executions: Iterable[Fill]) -> dict[str, Holding]:
    """Book executions from nothing."""
    held: dict[str, Holding] = {}
    for fill in executions:
        held.setdefault(fill.symbol, Holding()).book(fill.quantity, fill.price)
    return held


def positions(facts: Facts) -> dict[str, OraclePosition]:
    """Return positions as the oracle itself states them. Raises UnreadError."""
    found, _ = raw(facts, "positions", side="oracle")
    if isinstance(found, dict) and isinstance(found.get("positions"), dict):
        found = found["positions"]
    return shaped(found, dict[str, OraclePosition], "oracle document 'positions'")


def traded(facts: Facts) -> set[str]:
    """Return the symbols that the oracle states a position of, were it flat; none where it states nothing."""
    try:
        return set(positions(facts))
    except UnreadError:
        return set()


def open_orders(facts: Facts) -> dict[str, Order]:
    """Return the orders that rest at the oracle. Raises UnreadError."""
    found, _ = raw(facts, "orders", side="oracle")
    if isinstance(found, dict) and isinstance(found.get("orders"), list):
        found = found["orders"]
    return {order.cl_ord_id: order for order in shaped(found, list[Order], "oracle document 'orders'")}
