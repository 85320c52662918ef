"""The engine's whole state and the one way it changes: `apply(record)`; no clock, no chance."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from paperfirm.engine import events as ev
from paperfirm.engine.books import Position, book
from paperfirm.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Order(msgspec.Struct, array_like=True, gc=False):
    """An order with everything the firm knows about it."""

    cl_ord_id: str
    client_order_id: str
    origin: ev.Origin
    symbol: str
    side: ev.Side
    tif: Literal["day", "ioc"]
    price: int | None
    quantity: int
    order_id: str
    cum_quantity: int
    status: ev.Status
    reason: str
    accepted_mono_ns: int
    finished_wall_ns: int
    accepted: bool = False
    """The exchange has had it, so that its client was told, or may have been; never taken back."""
    late: bool = False
    """Learned from the exchange: it stands here behind orders that were entered after it."""

    @property
    def open(self) -> bool:
        """True until a terminal status."""
        return self.status not in ev.TERMINAL

    @property
    def leaves_quantity(self) -> int:
        """What may still be filled."""
        return self.quantity - self.cum_quantity if self.status not in ev.TERMINAL else 0


class Execution(msgspec.Struct, array_like=True, gc=False):
    """A booked fill; `seq` is the order of booking, from 1. A busted one stays, marked.

    A state rebuilt from nothing numbers anew, but in a later `epoch`: both together never go back.
    """

    seq: int
    exec_id: str
    cl_ord_id: str
    symbol: str
    side: ev.Side
    quantity: int
    price: int
    late: bool
    booked_mono_ns: int
    booked_wall_ns: int
    bust_id: str = ""
    epoch: int = 0

    @property
    def busted(self) -> bool:
        """Whether the exchange took this fill back."""
        return bool(self.bust_id)


class Indicator(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the strategy has learned of a symbol."""

    ema_mid: float
    volatility: float
    imbalance: float
    samples: int
    mono_ns: int


class OutboxEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Something the recorder must get.

    An execution (by booking seq), a bust of one, or a finished order (by ClOrdID).
    """

    number: int
    kind: Literal["execution", "bust", "order"]
    key: str


class DayClose(msgspec.Struct, array_like=True, frozen=True):
    """A settled day; `seq` is the journal record that closed it."""

    day: int
    seq: int
    wall_ns: int
    realised: dict[str, int]
    positions: dict[str, int]


class Image(msgspec.Struct, array_like=True):
    """The state as it stands in a checkpoint."""

    seq: int
    epoch: int
    router_log: str
    router_seq: int
    exec_seq: int
    outbox_number: int
    published: int
    orders: list[Order]
    executions: list[Execution]
    positions: list[Position]
    refusals: dict[str, str]
    indicators: dict[str, Indicator]
    outbox: list[OutboxEntry]
    settlements: list[DayClose] = []


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Image)


class State:
    """Orders, executions, positions, cursors. Read freely; change only through `apply`."""

    def __init__(self) -> None:
        self.seq = 0
        self.epoch = 0
        self.router_log = ""
        self.router_seq = 0
        self.exec_seq = 0
        self.outbox_number = 0
        self.published = 0
        self.orders: dict[str, Order] = {}
        self.open_orders: dict[str, Order] = {}
        self.by_client: dict[str, str] = {}
        self.refusals: dict[str, str] = {}
        self.executions: list[Execution] = []
        self.by_exec: dict[str, Execution] = {}
        self.positions: dict[str, Position] = {}
        self.indicators: dict[str, Indicator] = {}
        self.outbox: deque[OutboxEntry] = deque()
        self.settlements: dict[int, DayClose] = {}
        self._record: ev.Record | None = None

    def apply(self, record: ev.Record) -> None:
        """Apply the next record; raises EngineError when it is not the next."""
        if record.seq != self.seq + 1:
            raise EngineError(
                f"record {record.seq} follows {self.seq}: the journal has a hole; restore it or sync"
            )
        self._record = record
        _APPLY[type(record.event)](self, record.event)
        self.seq = record.seq

    def knows(self, exec_id: str) -> bool:
        """Whether an execution (or a bust, by its own id) has been booked."""
        return exec_id in self.by_exec

    def unresolved(self) -> list[Order]:
        """Orders of which the exchange has not been heard."""
        return [order for order in self.open_orders.values() if order.status == "pending_new"]

    # --- one method an event ---

    def _epoch_started(self, event: ev.EpochStarted) -> None:
        self.epoch = event.epoch

    def _order_entered(self, event: ev.OrderEntered) -> None:
        self._add(self._order(event, "", "pending_new"))

    def _order(self, event: ev.OrderEntered | ev.OrderAdopted, order_id: str, status: ev.Status) -> Order:
        assert self._record is not None
        return Order(
            event.cl_ord_id,
            event.client_order_id,
            event.origin,
            event.symbol,
            event.side,
            event.tif,
            event.price,
            event.quantity,
            order_id,
            0,
            status,
            "",
            self._record.mono_ns,
            0,
        )

    def _order_adopted(self, event: ev.OrderAdopted) -> None:
        known = self.orders.get(event.cl_ord_id)
        if known is not None:
            self._settle(known, event.status, event.reason, event.order_id)
            return
        order = self._order(event, event.order_id, "new")
        order.late = True
        self._add(order)
        self._settle(order, event.status, event.reason, event.order_id)

    def _add(self, order: Order) -> None:
        self.orders[order.cl_ord_id] = order
        self.open_orders[order.cl_ord_id] = order
        if order.client_order_id:
            self.by_client.setdefault(order.client_order_id, order.cl_ord_id)

    def _client_refused(self, event: ev.ClientRefused) -> None:
        self.refusals.setdefault(event.client_order_id, event.reason)

    def _order_updated(self, event: ev.OrderUpdated) -> None:
        self._seen(event.router_seq)
        order = self.orders.get(event.cl_ord_id)
        if order is not None:
            self._settle(order, event.status, event.reason, event.order_id)

    def _cancel_requested(self, event: ev.CancelRequested) -> None:
        order = self.open_orders.get(event.cl_ord_id)
        if order is not None:
            order.status = "pending_cancel"

    def _order_closed(self, event: ev.OrderClosed) -> None:
        order = self.orders.get(event.cl_ord_id)
        if order is not None:
            self._settle(order, event.status, event.reason, "")

    def _settle(self, order: Order, status: ev.Status, reason: str, order_id: str) -> None:
        """Give an order a status; a terminal one is final and puts it into the outbox."""
        if order_id and not order.order_id:
            order.order_id = order_id
        if status not in {"rejected", "pending_new"}:
            order.accepted = True
        if order.status in ev.TERMINAL:
            return
        order.status = status
        if reason:
            order.reason = reason
        if status in ev.TERMINAL:
            assert self._record is not None
            order.finished_wall_ns = self._record.wall_ns
            self.open_orders.pop(order.cl_ord_id, None)
            self._enqueue("order", order.cl_ord_id)

    def _executed(self, event: ev.Executed) -> None:
        self._seen(event.router_seq)
        if event.exec_id in self.by_exec:
            return
        record = self._record
        assert record is not None
        execution = Execution(
            len(self.executions) + 1,
            event.exec_id,
            event.cl_ord_id,
            event.symbol,
            event.side,
            event.quantity,
            event.price,
            event.late,
            record.mono_ns,
            record.wall_ns,
            epoch=self.epoch,
        )
        self.executions.append(execution)
        self.by_exec[event.exec_id] = execution
        book(self._position(event.symbol), event.side, event.quantity, event.price)
        self._enqueue("execution", str(execution.seq))
        self._fill(event)

    def _fill(self, event: ev.Executed) -> None:
        order = self.orders.get(event.cl_ord_id)
        if order is None:
            return
        order.accepted = True
        order.cum_quantity += event.quantity
        if order.cum_quantity >= order.quantity:
            self._settle(order, "filled", "", event.order_id)
            order.status = "filled"  # also if something else was believed before this late fill
        elif order.status in {"pending_new", "new"}:
            self._settle(order, "partially_filled", "", event.order_id)

    def _busted(self, event: ev.Busted) -> None:
        self._seen(event.router_seq)
        execution = self.by_exec.get(event.exec_ref_id)
        if event.exec_id in self.by_exec or execution is None or execution.busted:
            return
        execution.bust_id = event.exec_id
        self.by_exec[event.exec_id] = execution
        order = self.orders.get(execution.cl_ord_id)
        if order is not None:
            order.cum_quantity -= execution.quantity
        self.positions[execution.symbol] = rebuild(execution.symbol, self.executions)
        self._enqueue("bust", str(execution.seq))

    def _position(self, symbol: str) -> Position:
        position = self.positions.get(symbol)
        if position is None:
            position = self.positions[symbol] = Position(symbol)
        return position

    def _enqueue(self, kind: Literal["execution", "bust", "order"], key: str) -> None:
        self.outbox_number += 1
        self.outbox.append(OutboxEntry(self.outbox_number, kind, key))

    def _indicators_moved(self, event: ev.IndicatorsMoved) -> None:
        self.indicators[event.symbol] = Indicator(
            event.ema_mid, event.volatility, event.imbalance, event.samples, event.mono_ns
        )

    def _router_log_named(self, event: ev.RouterLogNamed) -> None:
        if event.log_id != self.router_log:
            self.router_log = event.log_id
            self.router_seq = 0

    def _inbound_taken(self, event: ev.InboundTaken) -> None:
        self._seen(event.router_seq)

    def _seen(self, router_seq: int) -> None:
        self.router_seq = max(self.router_seq, router_seq)

    def _reconciled(self, event: ev.Reconciled) -> None:
        self.exec_seq = max(self.exec_seq, event.exec_seq)

    def _published(self, event: ev.Published) -> None:
        self.published = max(self.published, event.upto)
        while self.outbox and self.outbox[0].number <= event.upto:
            self.outbox.popleft()

    def _day_settled(self, event: ev.DaySettled) -> None:
        assert self._record is not None
        close = DayClose(event.day, self._record.seq, self._record.wall_ns, event.realised, event.positions)
        self.settlements.setdefault(event.day, close)

    # --- image ---

    def dump(self) -> bytes:
        """Encode the whole state; equal states give equal bytes."""
        return _encoder.encode(
            Image(
                self.seq,
                self.epoch,
                self.router_log,
                self.router_seq,
                self.exec_seq,
                self.outbox_number,
                self.published,
                list(self.orders.values()),
                self.executions,
                list(self.positions.values()),
                self.refusals,
                self.indicators,
                list(self.outbox),
                list(self.settlements.values()),
            )
        )


_HANDLERS = {
    ev.EpochStarted: "_epoch_started",
    ev.OrderEntered: "_order_entered",
    ev.OrderAdopted: "_order_adopted",
    ev.ClientRefused: "_client_refused",
    ev.OrderUpdated: "_order_updated",
    ev.CancelRequested: "_cancel_requested",
    ev.OrderClosed: "_order_closed",
    ev.Executed: "_executed",
    ev.Busted: "_busted",
    ev.IndicatorsMoved: "_indicators_moved",
    ev.RouterLogNamed: "_router_log_named",
    ev.InboundTaken: "_inbound_taken",
    ev.Reconciled: "_reconciled",
    ev.Published: "_published",
    ev.DaySettled: "_day_settled",
}
_APPLY: dict[type, Callable[[State, Any], None]] = {
    kind: getattr(State, name) for kind, name in _HANDLERS.items()
}


def rebuild(symbol: str, executions: Iterable[Execution]) -> Position:
    """Book all executions of a symbol that stand, from nothing."""
    position = Position(symbol)
    for execution in executions:
        if execution.symbol == symbol and not execution.busted:
            book(position, execution.side, execution.quantity, execution.price)
    return position


def load(data: bytes) -> State:
    """Decode an image; raises EngineError when it is none."""
    try:
        image = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise EngineError(f"not a state image ({len(data)} bytes): {error}") from error
    state = State()
    state.seq, state.epoch = image.seq, image.epoch
    state.router_log, state.router_seq, state.exec_seq = image.router_log, image.router_seq, image.exec_seq
    state.outbox_number, state.published = image.outbox_number, image.published
    state.orders = {order.cl_ord_id: order for order in image.orders}
    state.open_orders = {order.cl_ord_id: order for order in image.orders if order.open}
    for order in image.orders:
        if order.client_order_id:
            state.by_client.setdefault(order.client_order_id, order.cl_ord_id)
    state.executions = image.executions
    state.by_exec = {execution.exec_id: execution for execution in image.executions}
    state.by_exec.update({one.bust_id: one for one in image.executions if one.bust_id})
    state.positions = {position.symbol: position for position in image.positions}
    state.refusals, state.indicators = image.refusals, image.indicators
    state.outbox = deque(image.outbox)
    state.settlements = {close.day: close for close in image.settlements}
    return state
