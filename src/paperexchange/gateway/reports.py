"""Ledger entries as FIX 4.4 messages: execution reports, cancel rejects, status answers.

A report is built the moment its entry is recorded, so that CumQty, LeavesQty and AvgPx are those of that
moment and not of the end of the command.
"""

from collections.abc import Callable
from typing import Any, Final

from fixsession.clock import format_utc
from fixsession.message import Message
from paperexchange import facts as f
from paperexchange.model import Order, format_average, format_price
from paperexchange.state import State

SIDES: Final = {"buy": "1", "sell": "2"}
TYPES: Final = {"market": "1", "limit": "2"}
TIFS: Final = {"day": "0", "ioc": "3"}
STATUSES: Final = {
    "new": "0",
    "partially_filled": "1",
    "filled": "2",
    "canceled": "4",
    "pending_cancel": "6",
    "rejected": "8",
    "expired": "C",
    "pending_replace": "E",
}
Pairs = list[tuple[int, str]]


def _status(order: Order) -> str:
    return STATUSES[order.status]


def _working(order: Order) -> str:
    """Status apart from a pending request."""
    return "2" if not order.leaves_quantity else "1" if order.cum_quantity else "0"


def _report(order: Order, exec_id: str, kind: tuple[str, str], wall_ns: int, extra: Pairs) -> Message:
    """Give the report of an order; `kind` is ExecType (150) and OrdStatus (39)."""
    pairs: Pairs = [
        (35, "8"),
        (37, order.order_id),
        (11, order.cl_ord_id),
        (17, exec_id),
        (150, kind[0]),
        (39, kind[1]),
        (1, order.account),
        (55, order.symbol),
        (54, SIDES[order.side]),
        (38, str(order.quantity)),
        (40, TYPES[order.type]),
        (59, TIFS[order.tif]),
        (14, str(order.cum_quantity)),
        (151, str(order.leaves_quantity)),
        (6, format_average(order.notional, order.cum_quantity)),
        (60, format_utc(wall_ns)),
    ]
    if order.type == "limit":
        pairs.append((44, format_price(order.price)))
    pairs.extend(extra)
    return Message(pairs)


def with_ids(message: Message, cl_ord_id: str, orig_cl_ord_id: str) -> Message:
    """Answer a cancel or replace: 11 is the request's, 41 the order's."""
    pairs = [(tag, cl_ord_id if tag == 11 and cl_ord_id else value) for tag, value in message.pairs]  # noqa: PLR2004
    if cl_ord_id:
        pairs.insert(3, (41, orig_cl_ord_id))
    return Message(pairs)


def _accepted(fact: f.OrderAccepted, order: Order) -> Message:
    return _report(order, fact.exec_id, ("0", "0"), fact.wall_ns, [])


def _fill(fact: f.Fill, order: Order) -> Message:
    extra = [(32, str(fact.quantity)), (31, format_price(fact.price))]
    return _report(order, fact.exec_id, ("F", _status(order)), fact.wall_ns, extra)


def _canceled(fact: f.OrderCanceled, order: Order) -> Message:
    kind = "C" if fact.status == "expired" else "4"
    text = [] if fact.cl_ord_id else [(58, fact.reason)]
    message = _report(order, fact.exec_id, (kind, kind), fact.wall_ns, text)
    return with_ids(message, fact.cl_ord_id, fact.orig_cl_ord_id)


def _pending_cancel(fact: f.CancelReceived, order: Order) -> Message:
    message = _report(order, fact.exec_id, ("6", "6"), fact.wall_ns, [])
    return with_ids(message, fact.cl_ord_id, fact.orig_cl_ord_id)


def _pending_replace(fact: f.ReplaceReceived, order: Order) -> Message:
    message = _report(order, fact.exec_id, ("E", "E"), fact.wall_ns, [])
    return with_ids(message, fact.cl_ord_id, fact.orig_cl_ord_id)


def _replaced(fact: f.OrderReplaced, order: Order) -> Message:
    message = _report(order, fact.exec_id, ("5", _working(order)), fact.wall_ns, [])
    return with_ids(message, fact.cl_ord_id, fact.orig_cl_ord_id)


def _restated(fact: f.OrderRestated, order: Order) -> Message:
    extra = [(378, str(fact.reason)), (58, fact.text)]
    return _report(order, fact.exec_id, ("D", _working(order)), fact.wall_ns, extra)


def _busted(fact: f.TradeBusted, order: Order) -> Message:
    extra = [(19, fact.ref_exec_id), (32, str(fact.quantity)), (31, format_price(fact.price))]
    return _report(order, fact.exec_id, ("H", _status(order)), fact.wall_ns, extra)


def _corrected(fact: f.TradeCorrected, order: Order) -> Message:
    extra = [(19, fact.ref_exec_id), (32, str(fact.quantity)), (31, format_price(fact.price))]
    return _report(order, fact.exec_id, ("G", _status(order)), fact.wall_ns, extra)


def _rejected(fact: f.OrderRejected) -> Message:
    pairs: Pairs = [
        (35, "8"),
        (37, "NONE"),
        (11, fact.cl_ord_id or "NONE"),
        (17, fact.exec_id),
        (150, "8"),
        (39, "8"),
        (103, str(fact.reason)),
        (1, fact.account),
        (55, fact.symbol or "NONE"),
        (54, SIDES[fact.side]),
        (38, str(fact.quantity)),
        (14, "0"),
        (151, "0"),
        (6, "0"),
        (60, format_utc(fact.wall_ns)),
        (58, fact.text),
    ]
    return Message(pairs)


def _cancel_rejected(fact: f.CancelRejected, order: Order | None) -> Message:
    pairs: Pairs = [
        (35, "9"),
        (37, fact.order_id or "NONE"),
        (11, fact.cl_ord_id or "NONE"),
        (41, fact.orig_cl_ord_id or "NONE"),
        (39, _status(order) if order else "8"),
        (1, fact.account),
        (60, format_utc(fact.wall_ns)),
        (434, str(fact.response_to)),
        (102, str(fact.reason)),
        (58, fact.text),
    ]
    return Message(pairs)


_BUILDERS: Final[dict[type[f.Fact], Callable[[Any, Order], Message]]] = {
    f.OrderAccepted: _accepted,
    f.Fill: _fill,
    f.OrderCanceled: _canceled,
    f.CancelReceived: _pending_cancel,
    f.ReplaceReceived: _pending_replace,
    f.OrderReplaced: _replaced,
    f.OrderRestated: _restated,
    f.TradeBusted: _busted,
    f.TradeCorrected: _corrected,
}
FILL_KINDS: Final = (f.Fill, f.TradeBusted, f.TradeCorrected)


def report_for(fact: f.Fact, state: State) -> Message | None:
    """Give the message that tells a member of this entry; None when it is told nothing."""
    builder = _BUILDERS.get(type(fact))
    if builder is not None:
        order = state.order(fact.account, fact.order_id)  # type: ignore[attr-defined]  # each has it
        return builder(fact, order) if order is not None else None
    if isinstance(fact, f.OrderRejected):
        return _rejected(fact)
    if isinstance(fact, f.CancelRejected):
        return _cancel_rejected(fact, state.orders.get(fact.order_id))
    return None


def status_report(order: Order, wall_ns: int, extra: Pairs) -> Message:
    """Give an order's status on request (150=I); ExecID is 0 because nothing happened."""
    return _report(order, "0", ("I", _status(order)), wall_ns, extra)


def unknown_order(request: Message, account: str, wall_ns: int, extra: Pairs) -> Message:
    """Give the status of an order that does not exist (39=8)."""
    pairs: Pairs = [
        (35, "8"),
        (37, request.get(37) or "NONE"),
        (11, request.get(11) or "NONE"),
        (17, "0"),
        (150, "I"),
        (39, "8"),
        (103, "5"),
        (1, account),
        (55, request.get(55) or "NONE"),
        (54, request.get(54) or "1"),
        (38, "0"),
        (14, "0"),
        (151, "0"),
        (6, "0"),
        (60, format_utc(wall_ns)),
        *extra,
        (58, "unknown order"),
    ]
    return Message(pairs)
