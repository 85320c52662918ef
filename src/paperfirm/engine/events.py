"""Journal events: everything that ever changes the engine's state, and nothing else.

Each event is decided once, on the primary, and then only applied: on the primary itself, on the standby, and
at replay. Prices and cash in ticks of 0.0001.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Origin = Literal["client", "strategy"]
Side = Literal["buy", "sell"]
Status = Literal[
    "pending_new",
    "new",
    "partially_filled",
    "filled",
    "canceled",
    "expired",
    "rejected",
    "pending_cancel",
    "pending_replace",
]
TERMINAL = frozenset({"filled", "canceled", "expired", "rejected"})


class _Event(msgspec.Struct, tag=True, array_like=True, frozen=True, gc=False):
    """Common options of the tagged events."""


class EpochStarted(_Event, frozen=True):
    """An engine became primary; ClOrdIDs of the epoch begin with its number."""

    epoch: int
    engine: str


class OrderEntered(_Event, frozen=True):
    """An order was taken in; from here on it is never forgotten. `price` None is a market order."""

    cl_ord_id: str
    client_order_id: str
    origin: Origin
    symbol: str
    side: Side
    tif: Literal["day", "ioc"]
    price: int | None
    quantity: int


class OrderAdopted(_Event, frozen=True):
    """An order learned from the exchange or the database, because this engine's journal does not have it."""

    cl_ord_id: str
    client_order_id: str
    origin: Origin
    symbol: str
    side: Side
    tif: Literal["day", "ioc"]
    price: int | None
    quantity: int
    order_id: str
    status: Status
    reason: str


class ClientRefused(_Event, frozen=True):
    """The first outcome of a client's order was a refusal."""

    client_order_id: str
    reason: str


class OrderUpdated(_Event, frozen=True):
    """The exchange reported a status without a fill. `router_seq` 0: not from the router."""

    router_seq: int
    cl_ord_id: str
    order_id: str
    status: Status
    reason: str


class CancelRequested(_Event, frozen=True):
    """A cancel is on its way to the exchange."""

    cl_ord_id: str


class OrderClosed(_Event, frozen=True):
    """The engine itself gives an order its terminal status (never sent, unknown at the exchange)."""

    cl_ord_id: str
    status: Status
    reason: str


class Executed(_Event, frozen=True):
    """A fill is booked. `late`: it came by resend, replay or reconciliation."""

    router_seq: int
    exec_id: str
    cl_ord_id: str
    order_id: str
    symbol: str
    side: Side
    quantity: int
    price: int
    late: bool


class Busted(_Event, frozen=True):
    """The exchange took a fill back (ExecType H); `exec_id` names the bust, `exec_ref_id` the fill."""

    router_seq: int
    exec_id: str
    exec_ref_id: str


class IndicatorsMoved(_Event, frozen=True):
    """What the strategy knows of a symbol, so that it survives (at most 2/s a symbol)."""

    symbol: str
    ema_mid: float
    volatility: float
    imbalance: float
    samples: int
    mono_ns: int


class RouterLogNamed(_Event, frozen=True):
    """The router's inbound log has this identity; a new one starts the inbound cursor at 0."""

    log_id: str


class InboundTaken(_Event, frozen=True):
    """Everything up to `router_seq` has been taken up; keeps replays short when messages had no effect."""

    router_seq: int


class Reconciled(_Event, frozen=True):
    """All executions of the exchange up to `exec_seq` are booked here."""

    exec_seq: int


class Published(_Event, frozen=True):
    """The stream has stored the outbox up to entry `upto`."""

    upto: int


class DaySettled(_Event, frozen=True):
    """A day is closed: profit realised since the last close and quantity carried over, by symbol."""

    day: int
    realised: dict[str, int]
    positions: dict[str, int]


Event = (
    EpochStarted
    | OrderEntered
    | OrderAdopted
    | ClientRefused
    | OrderUpdated
    | CancelRequested
    | OrderClosed
    | Executed
    | Busted
    | IndicatorsMoved
    | RouterLogNamed
    | InboundTaken
    | Reconciled
    | Published
    | DaySettled
)


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One journal record: sequence number without gaps from 1, when it was decided, and the event."""

    seq: int
    mono_ns: int
    wall_ns: int
    event: Event
