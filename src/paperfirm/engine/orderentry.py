"""Order entry for the firm's clients: TCP, JSON lines, answered only when durable and acknowledged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from paperfirm.engine.desk import CLIENT_ID, Desk, NewOrder, Outcome
from paperfirm.frames import listen, no_delay

if TYPE_CHECKING:
    from collections.abc import Callable

    from paperfirm.engine.state import Order

MAX_LINE = 64 << 10
BAD_ID = "client_order_id: write 1 to 40 characters out of A-Z a-z 0-9 _ . : -"


class ClientOrder(msgspec.Struct, frozen=True):
    """The value of `new`; prices in ticks, null for a market order."""

    client_order_id: str
    symbol: str
    side: Literal["buy", "sell"]
    quantity: int
    price: int | None = None
    tif: Literal["day", "ioc"] = "day"


class Line(msgspec.Struct, frozen=True):
    """A request: exactly one of the two."""

    new: ClientOrder | None = None
    cancel: str | None = None


class Accepted(msgspec.Struct, frozen=True):
    """The order is journalled and replicated, and the exchange has acknowledged it."""

    accepted: str
    cl_ord_id: str
    mono_ns: int


class Refused(msgspec.Struct, frozen=True):
    """The order was not taken; for good."""

    rejected: str
    reason: str


class Update(msgspec.Struct, frozen=True):
    """Something happened to an accepted order."""

    update: str
    status: str
    cum_quantity: int


class CancelRefused(msgspec.Struct, frozen=True):
    """The cancel was not passed on."""

    cancel_rejected: str
    reason: str


_line = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


class Client(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, entry: OrderEntry) -> None:
        self._entry = entry
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Welcome on the primary, good-bye on the standby (called by asyncio)."""
        no_delay(transport.get_extra_info("socket"))
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from asyncio's
        self._entry.clients.add(self)
        if self._entry.desk is None:
            self.write({"error": "standby"})
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client; its orders live on (called by asyncio)."""
        del exc
        self._transport = None
        self._entry.clients.discard(self)

    def data_received(self, data: bytes) -> None:
        """Take whole lines (called by asyncio)."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                self._request(line)
        if len(self._rest) > MAX_LINE:
            self.write({"error": f"line longer than {MAX_LINE} bytes"})
            self.close()

    def _request(self, data: bytes) -> None:
        try:
            line = _line(data)
        except msgspec.DecodeError as error:
            self.write({"error": str(error)})
            return
        if line.new is not None:
            self._entry.place(self, line.new)
        elif line.cancel is not None:
            self._entry.cancel(self, line.cancel)
        else:
            self.write({"error": "neither `new` nor `cancel`"})

    def write(self, value: object) -> None:
        """Send one line."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_encode(value) + b"\n")

    def close(self) -> None:
        """Flush and close."""
        if self._transport is not None:
            self._transport.close()


class OrderEntry:
    """All clients. `desk` is None on a standby."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.desk: Desk | None = None
        self.clients: set[Client] = set()
        self._mono = clock
        self._watchers: dict[str, Client] = {}
        self._server: asyncio.Server | None = None

    async def open(self, port: int) -> None:
        """Listen."""
        self._server = await listen(port, lambda: Client(self))

    def close(self) -> None:
        """Close listener and clients."""
        if self._server is not None:
            self._server.close()
        for client in list(self.clients):
            client.close()

    def place(self, client: Client, order: ClientOrder) -> None:
        """Take a new order; updates go to whoever named it last."""
        if self.desk is None:
            client.write({"error": "standby"})
            return
        if not CLIENT_ID.fullmatch(order.client_order_id):
            client.write(Refused(order.client_order_id, BAD_ID))
            return
        self._watchers[order.client_order_id] = client
        self.desk.place(
            NewOrder(order.symbol, order.side, order.quantity, order.price, order.client_order_id, order.tif),
            reply=lambda outcome: self._reply(client, outcome),
        )

    def _reply(self, client: Client, outcome: Outcome) -> None:
        if outcome.reason:
            self._watchers.pop(outcome.client_order_id, None)
            client.write(Refused(outcome.client_order_id, outcome.reason))
            return
        client.write(Accepted(outcome.client_order_id, outcome.cl_ord_id, self._mono()))

    def cancel(self, client: Client, client_order_id: str) -> None:
        """Pass a cancel on."""
        if self.desk is None:
            client.write({"error": "standby"})
            return
        cl_ord_id = self.desk.state.by_client.get(client_order_id, "")
        reason = self.desk.cancel(cl_ord_id)
        if reason is not None:
            client.write(CancelRefused(client_order_id, reason))

    def changed(self, order: Order) -> None:
        """Tell the client of an order; called when the change is durable."""
        client = self._watchers.get(order.client_order_id)
        if client is None:
            return
        client.write(Update(order.client_order_id, order.status, order.cum_quantity))
        if not order.open:
            self._watchers.pop(order.client_order_id, None)
