"""Entries of the truth ledger. What is not one of these did not happen.

The same JSON object is the ledger line's body and the event on `GET /events`; `kind` is the tag.
Fields that stand at their default are left out, except those without a default.
"""

from typing import Literal

import msgspec

from paperexchange.model import OrderType, Phase, Side, TimeInForce

Stamp = Literal["kernel", "user"]


class Fact(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False, tag_field="kind"):
    """Common part: `seq` is given by the ledger, from 1 without gaps."""

    seq: int = 0
    mono_ns: int
    wall_ns: int
    account: str = ""


class Started(Fact, tag="started"):
    """The exchange opened this ledger (`run` counts from 1; more than 1 after a recovery)."""

    run: int
    seed: int
    symbols: dict[str, int]
    pid: int


class Stopped(Fact, tag="stopped"):
    """The exchange ended in order; a ledger whose last entry is another was cut off or killed."""


class BytesReceived(Fact, tag="bytes_received"):
    """One read of one connection; `data` is base64 in JSON."""

    conn: int
    data: bytes
    received_mono_ns: int
    received_stamp: Stamp


class OrderReceived(Fact, tag="order_received"):
    """A NewOrderSingle was read and understood; nothing is decided yet."""

    cl_ord_id: str
    symbol: str
    side: Side
    quantity: int
    price: int
    conn: int
    received_mono_ns: int
    received_stamp: Stamp


class OrderAccepted(Fact, tag="order_accepted"):
    """The order is booked; `priority` decides its place in time."""

    order_id: str
    exec_id: str
    cl_ord_id: str
    symbol: str
    side: Side
    type: OrderType
    tif: TimeInForce
    quantity: int
    price: int
    conn: int
    received_mono_ns: int
    received_stamp: Stamp
    scripted: bool = False


class OrderRejected(Fact, tag="order_rejected"):
    """The order is refused; `reason` is OrdRejReason (103)."""

    exec_id: str
    cl_ord_id: str
    symbol: str
    side: Side
    quantity: int
    price: int
    conn: int
    reason: int
    text: str
    received_mono_ns: int
    received_stamp: Stamp


class Fill(Fact, tag="fill"):
    """One side of a trade; `exec_seq` counts the account's fills from 1."""

    exec_id: str
    exec_seq: int
    order_id: str
    cl_ord_id: str
    symbol: str
    side: Side
    quantity: int
    price: int
    cum_quantity: int
    leaves_quantity: int
    notional: int
    match_id: int
    contra: str = ""


class CancelReceived(Fact, tag="cancel_received"):
    """A cancel request was read; the order is pending cancel."""

    exec_id: str
    order_id: str
    cl_ord_id: str
    orig_cl_ord_id: str


class OrderCanceled(Fact, tag="order_canceled"):
    """The remainder of an order left the book; `cl_ord_id` is the request's, empty if unsolicited."""

    exec_id: str
    order_id: str
    cl_ord_id: str
    orig_cl_ord_id: str
    quantity: int
    reason: str
    status: Literal["canceled", "expired"] = "canceled"


class ReplaceReceived(Fact, tag="replace_received"):
    """A replace request was read; the order is pending replace."""

    exec_id: str
    order_id: str
    cl_ord_id: str
    orig_cl_ord_id: str


class OrderReplaced(Fact, tag="order_replaced"):
    """Price or quantity changed; `keeps_priority` only for a smaller quantity at the same price."""

    exec_id: str
    order_id: str
    cl_ord_id: str
    orig_cl_ord_id: str
    symbol: str
    side: Side
    quantity: int
    price: int
    keeps_priority: bool


class CancelRejected(Fact, tag="cancel_rejected"):
    """A cancel or replace was refused; `reason` is CxlRejReason (102), `response_to` is 434."""

    cl_ord_id: str
    orig_cl_ord_id: str
    order_id: str
    reason: int
    text: str
    response_to: Literal[1, 2]


class OrderRestated(Fact, tag="order_restated"):
    """The exchange changed an order's quantity on its own (150=D); `reason` is 378."""

    exec_id: str
    order_id: str
    cl_ord_id: str
    quantity: int
    reason: int
    text: str


class TradeBusted(Fact, tag="trade_busted"):
    """A fill is taken back (150=H)."""

    exec_id: str
    ref_exec_id: str
    order_id: str
    cl_ord_id: str
    symbol: str
    side: Side
    quantity: int
    price: int


class TradeCorrected(Fact, tag="trade_corrected"):
    """A fill's price is changed (150=G); `price` is the right one, `was_price` the wrong one."""

    exec_id: str
    ref_exec_id: str
    order_id: str
    cl_ord_id: str
    symbol: str
    side: Side
    quantity: int
    price: int
    was_price: int


class BookChange(Fact, tag="book_change"):
    """A price level's new total quantity; `md_seq` is the market-data sequence."""

    md_seq: int
    symbol: str
    side: Side
    price: int
    quantity: int


class BookTrade(Fact, tag="book_trade"):
    """A public trade print."""

    md_seq: int
    symbol: str
    price: int
    quantity: int


class PhaseChanged(Fact, tag="phase"):
    """The session calendar moved on; `day` counts trading days from 1."""

    phase: Phase
    day: int


class Scripted(Fact, tag="fills_scripted"):
    """A fill script was armed (`id`), or bound to an order (`order_id` is set)."""

    id: str
    symbol: str
    min_quantity: int
    slices: list[int]
    interval_ms: float
    when: Literal["interval", "before_ack", "on_cancel"]
    order_id: str = ""


class SessionConnected(Fact, tag="session_connected"):
    """A TCP connection showed whose it is."""

    session: str
    gateway: str
    conn: int


class SessionDisconnected(Fact, tag="session_disconnected"):
    """The TCP connection of a session is closed; `mono_ns` is when the socket was closed."""

    session: str
    gateway: str
    conn: int
    reason: str


class ConnectionRefused(Fact, tag="connection_refused"):
    """A connection was dropped before or instead of a logon."""

    gateway: str
    conn: int
    reason: str


class LoggedOn(Fact, tag="logon"):
    """The FIX session is up; `reset` when sequence numbers went back to 1."""

    session: str
    gateway: str
    conn: int
    reset: bool


class LoggedOut(Fact, tag="logout"):
    """The FIX session ended in order."""

    session: str
    gateway: str
    conn: int
    text: str


class SessionWarning(Fact, tag="session_warning"):
    """Something on a session that an operator should know."""

    session: str
    gateway: str
    text: str


class NextIncoming(Fact, tag="next_in"):
    """Messages below `next_in` of a session are processed."""

    session: str
    gateway: str
    next_in: int


class NextOutgoing(Fact, tag="next_out"):
    """The next number a session will send (after session-level messages and controls)."""

    session: str
    gateway: str
    next_out: int


class SessionReset(Fact, tag="session_reset"):
    """Both numbers of a session are 1 again and its messages are forgotten."""

    session: str
    gateway: str


class ReportSent(Fact, tag="report_sent"):
    """An outbound application message has its number; it can be resent from here (`data`)."""

    session: str
    gateway: str
    seq_num: int
    msg_type: str
    data: bytes
    exec_id: str = ""
    cl_ord_id: str = ""
    exec_type: str = ""


class Delivery(Fact, tag="delivery"):
    """An attempt to put messages `first`..`last` of a session on the wire."""

    session: str
    gateway: str
    conn: int
    first: int
    last: int
    outcome: Literal["written", "not_connected", "dropped", "held", "corrupted", "duplicated", "cut"]


class MisbehaviourArmed(Fact, tag="misbehaviour_armed"):
    """A misbehaviour waits for its event."""

    id: str
    action: str
    session: str


class MisbehaviourFired(Fact, tag="misbehaviour"):
    """A misbehaviour took place."""

    id: str
    action: str
    session: str
    on_seq: int = 0


class GatewayPromoted(Fact, tag="gateway_promoted"):
    """The backup gateway came into force, or the primary again."""

    promoted: bool


class ControlDone(Fact, tag="control"):
    """A request on the control interface that has no entry of its own."""

    action: str
    detail: str


AnyFact = (
    Started
    | Stopped
    | BytesReceived
    | OrderReceived
    | OrderAccepted
    | OrderRejected
    | Fill
    | CancelReceived
    | OrderCanceled
    | ReplaceReceived
    | OrderReplaced
    | CancelRejected
    | OrderRestated
    | TradeBusted
    | TradeCorrected
    | BookChange
    | BookTrade
    | PhaseChanged
    | Scripted
    | SessionConnected
    | SessionDisconnected
    | ConnectionRefused
    | LoggedOn
    | LoggedOut
    | SessionWarning
    | NextIncoming
    | NextOutgoing
    | SessionReset
    | ReportSent
    | Delivery
    | MisbehaviourArmed
    | MisbehaviourFired
    | GatewayPromoted
    | ControlDone
)

KINDS: dict[type[Fact], str] = {kind: str(kind.__struct_config__.tag) for kind in AnyFact.__args__}
"""The `kind` of each entry type."""

encoder = msgspec.json.Encoder()
decoder: msgspec.json.Decoder[AnyFact] = msgspec.json.Decoder(AnyFact)
