"""Pure decisions: what a message of the exchange means for the state, as a list of journal events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from paperfirm.engine import events as ev

if TYPE_CHECKING:
    from collections.abc import Iterable

    from paperfirm.engine.state import Order, State
    from paperfirm.wire import Report

ORD_STATUS: dict[str, ev.Status] = {
    "0": "new",
    "1": "partially_filled",
    "2": "filled",
    "3": "canceled",
    "4": "canceled",
    "5": "new",
    "6": "pending_cancel",
    "8": "rejected",
    "A": "pending_new",
    "C": "expired",
    "E": "pending_replace",
}
"""FIX tag 39 to the firm's words; done-for-day orders will not trade any more: canceled."""

FILLS = frozenset({"F", "1", "2"})
RESTING = frozenset({"new", "partially_filled"})


class ExchangeOrder(msgspec.Struct, frozen=True):
    """An order as the exchange's member interface gives it (the fields the firm uses)."""

    order_id: str
    cl_ord_id: str
    symbol: str
    side: ev.Side
    quantity: int
    status: str
    price: int = 0
    type: str = "limit"
    tif: Literal["day", "ioc"] = "day"

    @property
    def settled(self) -> ev.Status:
        """The status without the fills, which come as executions."""
        ended: dict[str, ev.Status] = {"canceled": "canceled", "expired": "expired", "rejected": "rejected"}
        return ended.get(self.status, "new")


class ExchangeExecution(msgspec.Struct, frozen=True):
    """A fill as the exchange's member interface gives it (the fields the firm uses)."""

    exec_id: str
    exec_seq: int
    order_id: str
    cl_ord_id: str
    symbol: str
    side: ev.Side
    quantity: int
    price: int


def origin_of(cl_ord_id: str) -> ev.Origin:
    """`EPOCH-CNNNNNNN-CLIENTID` is a client's order, everything else the strategy's."""
    return "client" if cl_ord_id.partition("-")[2].startswith("C") else "strategy"


def client_id_of(cl_ord_id: str) -> str:
    """Return what the client called its order: the exchange keeps it as the end of our ClOrdID."""
    parts = cl_ord_id.split("-", 2)
    return parts[2] if len(parts) == 3 and parts[1].startswith("C") else ""  # noqa: PLR2004 - EPOCH-C…-ID


def on_report(state: State, router_seq: int, report: Report, *, late: bool) -> list[ev.Event]:
    """Return what a message of the exchange changes; nothing, if it has been taken up before."""
    order = state.orders.get(report.cl_ord_id) or state.orders.get(report.orig_cl_ord_id)
    if report.kind == "reject":
        return _rejected(order, report.text)
    if report.kind == "cancel_reject":
        return _cancel_rejected(order, router_seq, report)
    if report.exec_type == "H":
        return (
            [] if state.knows(report.exec_id) else [ev.Busted(router_seq, report.exec_id, report.exec_ref_id)]
        )
    if report.exec_type == "G":
        return _corrected(state, router_seq, report, late=late)
    if report.exec_type in FILLS and report.last_quantity > 0:
        return _filled(state, order, router_seq, report, late=late)
    return _status(order, router_seq, report)


def _rejected(order: Order | None, text: str) -> list[ev.Event]:
    if order is None or order.status != "pending_new":
        return []
    return [ev.OrderClosed(order.cl_ord_id, "rejected", text or "rejected by the exchange")]


def _cancel_rejected(order: Order | None, router_seq: int, report: Report) -> list[ev.Event]:
    """Let the order live on; if it is finished, other messages say so."""
    if order is None or order.status not in {"pending_cancel", "pending_replace"}:
        return []
    status: ev.Status = "partially_filled" if order.cum_quantity else "new"
    return [ev.OrderUpdated(router_seq, order.cl_ord_id, report.order_id, status, "")]


def _corrected(state: State, router_seq: int, report: Report, *, late: bool) -> list[ev.Event]:
    """Take the old fill back and book the corrected one under the correction's own id."""
    if state.knows(report.exec_id):
        return []
    fill = _fill(router_seq, report.cl_ord_id, report, late=late)
    return [ev.Busted(router_seq, f"{report.exec_id}/bust", report.exec_ref_id), fill]


def _filled(
    state: State, order: Order | None, router_seq: int, report: Report, *, late: bool
) -> list[ev.Event]:
    if state.knows(report.exec_id):
        return []
    events: list[ev.Event] = [] if order is not None else [_adopt(report)]
    return [*events, _fill(router_seq, order.cl_ord_id if order else report.cl_ord_id, report, late=late)]


def _fill(router_seq: int, cl_ord_id: str, report: Report, *, late: bool) -> ev.Executed:
    return ev.Executed(
        router_seq,
        report.exec_id,
        cl_ord_id,
        report.order_id,
        report.symbol,
        report.side,
        report.last_quantity,
        report.last_price,
        late,
    )


def _adopt(report: Report) -> ev.OrderAdopted:
    """Take up an order this journal does not have; its fills follow as events of their own."""
    return ev.OrderAdopted(
        report.cl_ord_id,
        client_id_of(report.cl_ord_id),
        origin_of(report.cl_ord_id),
        report.symbol,
        report.side,
        "day",
        report.price or None,
        report.order_quantity or report.last_quantity,
        report.order_id,
        "new",
        "",
    )


def _status(order: Order | None, router_seq: int, report: Report) -> list[ev.Event]:
    status = ORD_STATUS.get(report.ord_status)
    if status is None or order is None:
        return _adopt_open(order, status, report)
    if report.exec_type == "I":
        return _answered(order, status, router_seq, report)
    if not _moves(order, status):
        return []
    return [ev.OrderUpdated(router_seq, order.cl_ord_id, report.order_id, status, report.text)]


def _adopt_open(order: Order | None, status: ev.Status | None, report: Report) -> list[ev.Event]:
    """Take up an open order of ours that we do not know; finished ones without fills are of no account."""
    if order is None and status in RESTING and report.symbol and report.order_quantity:
        return [_adopt(report)]
    return []


def _moves(order: Order, status: ev.Status) -> bool:
    """Whether a report moves an order forward: replayed old news must not move it back."""
    if not order.open or status == "filled":
        return False  # `filled` is the sum of the fills, never a word
    if status in {"canceled", "expired", "rejected"}:
        return True
    if order.status == "pending_new":
        return status in {"new", "pending_cancel", "pending_replace"}
    return status in {"pending_cancel", "pending_replace"} and order.status != status


def _answered(order: Order, status: ev.Status, router_seq: int, report: Report) -> list[ev.Event]:
    """Settle by the answer to our status request what we did not know."""
    if not order.open:
        return []
    if status == "rejected":
        reason = f"unknown at the exchange: {report.text}" if not order.order_id else report.text
        return [ev.OrderUpdated(router_seq, order.cl_ord_id, "", "rejected", reason)]
    if status in {"canceled", "expired"}:
        return [ev.OrderUpdated(router_seq, order.cl_ord_id, report.order_id, status, report.text)]
    if status in RESTING and order.status in {"pending_new", "pending_cancel", "pending_replace"}:
        status = "partially_filled" if order.cum_quantity else "new"
        return [ev.OrderUpdated(router_seq, order.cl_ord_id, report.order_id, status, "")]
    return []


def missing_executions(state: State, executions: Iterable[ExchangeExecution]) -> list[ev.Event]:
    """Return the events that book what the exchange has and we have not."""
    events: list[ev.Event] = []
    adopted: set[str] = set()
    for one in executions:
        if state.knows(one.exec_id):
            continue
        if one.cl_ord_id not in state.orders and one.cl_ord_id not in adopted:
            adopted.add(one.cl_ord_id)
            shell = ExchangeOrder(
                one.order_id, one.cl_ord_id, one.symbol, one.side, one.quantity, "new", one.price
            )
            events.append(_adopted(shell))
        events.append(
            ev.Executed(
                0,
                one.exec_id,
                one.cl_ord_id,
                one.order_id,
                one.symbol,
                one.side,
                one.quantity,
                one.price,
                True,
            )
        )
    return events


def _adopted(order: ExchangeOrder) -> ev.OrderAdopted:
    return ev.OrderAdopted(
        order.cl_ord_id,
        client_id_of(order.cl_ord_id),
        origin_of(order.cl_ord_id),
        order.symbol,
        order.side,
        order.tif,
        None if order.type == "market" else order.price,
        order.quantity,
        order.order_id,
        order.settled,
        "",
    )


def missing_orders(state: State, orders: Iterable[ExchangeOrder]) -> list[ev.Event]:
    """Return the events that take up unknown orders and finish those that the exchange has finished.

    Fills are not derived from totals: they come as executions.
    """
    events: list[ev.Event] = []
    for one in orders:
        known = state.orders.get(one.cl_ord_id)
        if known is None:
            events.append(_adopted(one))
        elif known.open and one.settled in ev.TERMINAL:
            events.append(ev.OrderUpdated(0, one.cl_ord_id, one.order_id, one.settled, ""))
        elif known.status == "pending_new":
            events.append(ev.OrderUpdated(0, one.cl_ord_id, one.order_id, "new", ""))
    return events
