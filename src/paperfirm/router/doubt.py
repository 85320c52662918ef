"""What of an execution report cannot be true. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixsession.clock import parse_utc
from paperfirm.wire import TICK

if TYPE_CHECKING:
    from fixsession.message import Message
    from paperfirm.wire import Report

DAY_NS = 86_400 * 1_000_000_000
MOST_QUANTITY = 1_000_000_000
HIGHEST_PRICE = 100_000_000 * TICK
TRANSACT_TIME = 60
FILLS = frozenset({"F", "1", "2", "G"})
WORKING = frozenset({"0", "1"})


def of_time(message: Message, now_ns: int) -> str | None:
    """Say what is wrong with TransactTime (60): unreadable, or more than a day from our clock (Unix ns)."""
    text = message.get(TRANSACT_TIME)
    if text is None:
        return None
    stamp = parse_utc(text)
    if stamp is None:
        return f"TransactTime (60) {text!r} is no time"
    return None if abs(stamp - now_ns) <= DAY_NS else f"TransactTime (60) {text} is more than a day away"


def of_numbers(report: Report, symbols: frozenset[str]) -> str | None:
    """Say what is wrong with quantities, prices and symbol of an execution report, or None."""
    if report.kind != "execution":
        return None
    for name in ("order_quantity", "last_quantity", "cum_quantity", "leaves_quantity"):
        if not 0 <= getattr(report, name) <= MOST_QUANTITY:
            return f"{name} {getattr(report, name)} is impossible"
    if not (0 <= report.price <= HIGHEST_PRICE and 0 <= report.last_price <= HIGHEST_PRICE):
        return f"price {report.price} or {report.last_price} (ticks) is impossible"
    return _of_fill(report, symbols) if report.exec_type in FILLS else None


def _of_fill(report: Report, symbols: frozenset[str]) -> str | None:
    if symbols and report.symbol not in symbols:
        return f"symbol {report.symbol!r} is not traded here"
    if not report.exec_id or report.last_quantity == 0 or report.last_price == 0:
        return "a fill without ExecID, quantity or price"
    if report.last_quantity > report.cum_quantity:
        return f"{report.last_quantity} filled now, {report.cum_quantity} in all"
    whole = report.cum_quantity + report.leaves_quantity
    if report.order_quantity and report.ord_status in WORKING and whole != report.order_quantity:
        return f"filled and open make {whole} of {report.order_quantity}"
    return None
