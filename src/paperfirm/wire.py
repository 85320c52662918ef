"""Every message between the firm's processes: tagged msgspec structs, one union, one decoder.

Frames carry `u32 length (big endian) + msgpack` of one of these structs (see frames.py). Prices and cash are
integers in ticks of 0.0001, quantities integers, sides `"buy"`/`"sell"`, times as in
docs/reference/firm-interface.md.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Side = Literal["buy", "sell"]
OrderType = Literal["limit", "market"]
TimeInForce = Literal["day", "ioc"]
EngineName = str

TICK = 10_000
"""Ticks in one unit of price: 100.05 is 1000500."""

STREAM = "FIRM"
SUBJECT_EXECUTIONS = "firm.executions"
SUBJECT_ORDERS = "firm.orders"
"""JetStream stream and subjects of the outbox; payloads are msgpack of `ExecutionRow` and `OrderRow`.

The engine (publisher) and the recorder (durable consumer) both create the stream if it is missing: file
storage, subjects `firm.>`.
"""


class Frame(msgspec.Struct, tag=True, array_like=True, frozen=True, gc=False):
    """Base of the tagged frames: the class name is the tag, fields are in the order written."""


# --- engine <-> engine (replication port of the primary) ------------------------------------------


class Hello(Frame, frozen=True):
    """Standby to primary: who I am and where my journal ends.

    `last_crc` is the CRC of my last record (0: none).
    """

    engine: EngineName
    last_seq: int
    epoch: int
    last_crc: int = 0


class Image(Frame, frozen=True):
    """Primary to standby: the whole state as a checkpoint payload, valid after journal record `seq`.

    An empty image means: what you have is a prefix of mine, keep it; the tail follows as `Append`.
    """

    seq: int
    epoch: int
    payload: bytes


class Append(Frame, frozen=True):
    """Primary to standby: framed journal records `first`..`last`, byte for byte as in its segment."""

    first: int
    last: int
    records: bytes


class Synced(Frame, frozen=True):
    """Primary to standby: you have everything up to `seq` and are counted as in step from now on."""

    seq: int


class Appended(Frame, frozen=True):
    """Standby to primary: written and applied up to `seq`."""

    seq: int


class Beat(Frame, frozen=True):
    """Sign of life: an engine's to risk, router and feed is sent back; a primary's to its standby is not."""

    mono_ns: int


# --- engine <-> risk ------------------------------------------------------------------------------


class OpenOrder(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An order that still counts against limits.

    `price` is its limit or, for market orders, the reference price.
    """

    id: str
    symbol: str
    side: Side
    leaves_quantity: int
    price: int


class Holding(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A position as the engine has booked it; `price` is the mark used for notional (0: unknown)."""

    symbol: str
    quantity: int
    cash: int
    price: int


class Snapshot(Frame, frozen=True):
    """Engine to risk, first message of a connection: replaces everything risk knew. Risk answers `Usage`.

    Risk serves the connection with the highest epoch and closes the others. Limits are in firm.json for both.
    """

    engine: EngineName
    epoch: int
    holdings: list[Holding]
    orders: list[OpenOrder]


class Check(Frame, frozen=True):
    """Engine to risk: ask whether this order may go out.

    Approval reserves it until `Closed` or fully `Booked`. `id` = ClOrdID.
    """

    id: str
    symbol: str
    side: Side
    quantity: int
    price: int


class Approve(Frame, frozen=True):
    """Risk to engine: within limits, reserved."""

    id: str


class Refuse(Frame, frozen=True):
    """Risk to engine: outside limits, with the reason in words."""

    id: str
    reason: str


class Booked(Frame, frozen=True):
    """Engine to risk: a fill was booked. A negative quantity takes a busted fill back."""

    id: str
    symbol: str
    side: Side
    quantity: int
    price: int


class Adopted(Frame, frozen=True):
    """Engine to risk: this order is at the exchange, allowed or not; reserve it. Known ids are ignored."""

    id: str
    symbol: str
    side: Side
    quantity: int
    price: int


class Closed(Frame, frozen=True):
    """Engine to risk: what is left of this order no longer counts. Unknown ids are ignored."""

    id: str


class Mark(Frame, frozen=True):
    """Engine to risk: the price at which positions of `symbol` count as notional (at most 2/s a symbol)."""

    symbol: str
    price: int


class AskUsage(Frame, frozen=True):
    """Engine to risk: what is used of the limits now? The answer is a `Usage` with this `request`, from 1."""

    request: int


class Usage(Frame, frozen=True):
    """Risk to engine: after `Snapshot`, and at each `AskUsage`, with what risk knows at `mono_ns`.

    `position` holds |position incl. open orders|.
    """

    position: dict[str, int]
    gross_notional: int
    concentration_pct: float
    breaches: list[str]
    mono_ns: int
    request: int = 0


# --- engine <-> router ----------------------------------------------------------------------------


class Bind(Frame, frozen=True):
    """Engine to router, first message: I am the primary of `epoch`; replay inbound messages after `since`.

    `log_id` names the inbound log that `since` refers to; if it is not the router's, the router replays from
    0. `ask` are ClOrdIDs whose fate the engine does not know; `BindDone.known` tells which reached the FIX
    store.
    """

    engine: EngineName
    epoch: int
    since: int
    log_id: str = ""
    ask: list[str] = []


class BindRefused(Frame, frozen=True):
    """Router to engine, then close: a higher epoch (`epoch`) has been bound before."""

    epoch: int
    reason: str


class Report(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An application message of the exchange, FIX values as strings.

    (FIX 4.4 tags 150, 39, 17, 19, 11, 41, 37 …).

    `kind`: `execution` (8), `cancel_reject` (9), `reject` (j or 3, `cl_ord_id` of what was refused where
    known).
    """

    kind: Literal["execution", "cancel_reject", "reject"]
    exec_type: str
    ord_status: str
    cl_ord_id: str
    orig_cl_ord_id: str
    order_id: str
    exec_id: str
    exec_ref_id: str
    symbol: str
    side: Side
    order_quantity: int
    price: int
    last_quantity: int
    last_price: int
    cum_quantity: int
    leaves_quantity: int
    text: str


class Inbound(Frame, frozen=True):
    """Router to engine: one durable inbound message.

    `late`: PossDup, PossResend or read back from the log.
    """

    router_seq: int
    late: bool
    report: Report


class BindDone(Frame, frozen=True):
    """Router to engine: the replay is complete up to `last_inbound`; live traffic follows."""

    last_inbound: int
    log_id: str
    known: list[str]
    session_up: bool


class Send(Frame, frozen=True):
    """Engine to router: NewOrderSingle. `price` None is a market order."""

    cl_ord_id: str
    symbol: str
    side: Side
    quantity: int
    price: int | None
    tif: TimeInForce


class Cancel(Frame, frozen=True):
    """Engine to router: OrderCancelRequest.

    `cl_ord_id` is the request's own id, `orig_cl_ord_id` the order's.
    """

    cl_ord_id: str
    orig_cl_ord_id: str
    symbol: str
    side: Side
    quantity: int


class StatusRequest(Frame, frozen=True):
    """Engine to router: OrderStatusRequest (H); the answer comes as `Inbound` with exec_type `I`."""

    cl_ord_id: str
    symbol: str
    side: Side


class Unsent(Frame, frozen=True):
    """Router to engine: this `Send`, `Cancel` or `StatusRequest` did not and will not reach the FIX store.

    (session down).
    """

    cl_ord_id: str
    reason: str


class Known(Frame, frozen=True):
    """Engine to router: ask which of these ClOrdIDs ever reached the FIX store."""

    request: int
    cl_ord_ids: list[str]


class KnownAnswer(Frame, frozen=True):
    """Router to engine: the subset that did."""

    request: int
    cl_ord_ids: list[str]


class SessionUp(Frame, frozen=True):
    """Router to engine: logged on and, as far as the exchange's messages go, without gaps."""

    mono_ns: int


class SessionDown(Frame, frozen=True):
    """Router to engine: the FIX session is gone; orders are refused with `Unsent` until `SessionUp`."""

    mono_ns: int
    reason: str


# --- feed -> engine -------------------------------------------------------------------------------


class Subscribe(Frame, frozen=True):
    """Engine to feed, first message: send me all symbols.

    Feed answers with a `FeedStatus` and a `Top` for each symbol.
    """

    engine: EngineName


class Top(Frame, frozen=True):
    """Feed to engine: best prices of one symbol (0 price: that side is empty), at most 20/s a symbol."""

    symbol: str
    bid: int
    bid_quantity: int
    ask: int
    ask_quantity: int
    seq: int
    mono_ns: int


class FeedStatus(Frame, frozen=True):
    """Feed to engine: at each change and every 100 ms.

    `mono_ns` is when the exchange was last heard (data or heartbeat).
    """

    up: bool
    seq: int
    mono_ns: int
    reason: str = ""


Message = (
    Hello
    | Image
    | Append
    | Synced
    | Appended
    | Beat
    | Snapshot
    | Check
    | Approve
    | Refuse
    | Booked
    | Adopted
    | Closed
    | Mark
    | AskUsage
    | Usage
    | Bind
    | BindRefused
    | Inbound
    | BindDone
    | Send
    | Cancel
    | StatusRequest
    | Unsent
    | Known
    | KnownAnswer
    | SessionUp
    | SessionDown
    | Subscribe
    | Top
    | FeedStatus
)

# --- outbox (NATS payloads) -----------------------------------------------------------------------


class ExecutionRow(msgspec.Struct, frozen=True):
    """A booked execution on its way to the table `executions`.

    Nats-Msg-Id is `exec_id` (`bust-…` when `quantity` < 0). `epoch` and `seq` are its booking number.
    """

    exec_id: str
    cl_ord_id: str
    symbol: str
    side: Side
    quantity: int
    price: int
    booked_wall_ns: int
    late: bool
    epoch: int | None = None
    seq: int | None = None


class OrderRow(msgspec.Struct, frozen=True):
    """A finished order on its way to the table `orders`; Nats-Msg-Id is `cl_ord_id`."""

    cl_ord_id: str
    client_order_id: str
    order_id: str
    origin: Literal["client", "strategy"]
    symbol: str
    side: Side
    type: OrderType
    tif: TimeInForce
    price: int | None
    quantity: int
    cum_quantity: int
    status: str
    reason: str
    finished_wall_ns: int


# --- engine -> supervisor (HTTP bodies) -----------------------------------------------------------


class Promote(msgspec.Struct, frozen=True):
    """`POST /promote`: make me primary, if the epoch still is `epoch`; granted epoch is `epoch` + 1.

    Granted at once to the persisted primary itself (it restarted) and, when there has never been one, to
    anybody. Granted to the other engine only if the persisted primary is dead by pidfd (the supervisor may
    wait some milliseconds for that) and it was last registered as `in_sync` (see `Replication`).
    `silent`: the primary is connected and says nothing; if it does not answer the supervisor either, it
    counts as dead: whatever it does when it wakes carries an epoch that router, risk and standby refuse.
    Persisted (fsync) before the answer.
    """

    engine: EngineName
    epoch: int
    silent: bool = False


class Promoted(msgspec.Struct, frozen=True):
    """Answer: 200 granted, 409 refused; `primary` and `epoch` are what holds now."""

    granted: bool
    epoch: int
    primary: str | None
    reason: str = ""


class Replication(msgspec.Struct, frozen=True):
    """`POST /replication`, by the primary of `epoch` only (409 otherwise): whether the standby is in step.

    False is registered (fsync) before the primary releases anything without its standby, so that a standby
    which missed something can never be promoted; True after it has caught up. A new epoch starts with False.
    """

    engine: EngineName
    epoch: int
    in_sync: bool


class Restart(msgspec.Struct, frozen=True):
    """`POST /restart`: an engine asks for another life of a server that answers and does not work."""

    component: str
    by: EngineName
    reason: str
