"""The documents served under `/state/…`, built from the state on request.

Prices and money in ticks of 0.0001.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from paperfirm.engine.links import FeedPeer
    from paperfirm.engine.state import Execution, Indicator, Order, State

MAX_PAGE = 100_000


def positions(state: State, mono_ns: int) -> dict[str, Any]:
    """`/state/positions`."""
    rows = [
        {
            "symbol": one.symbol,
            "quantity": one.quantity,
            "average_price": one.average_price,
            "cash": one.cash,
            "realised_pnl": one.realised,
        }
        for one in state.positions.values()
    ]
    return {"mono_ns": mono_ns, "seq": state.seq, "epoch": state.epoch, "positions": rows}


def orders(
    state: State, mono_ns: int, *, everything: bool, since: int = 0, limit: int | None = None
) -> dict[str, Any]:
    """`/state/orders`: the open ones, or all; with a `limit` that many of all, after the first `since`."""
    chosen: Iterable[Order] = state.orders.values() if everything else state.open_orders.values()
    found = {"mono_ns": mono_ns, "seq": state.seq}
    if limit is None or not everything:
        return {**found, "orders": [_order(one) for one in chosen]}
    since, limit = max(since, 0), max(1, min(limit, MAX_PAGE))
    page = [_order(one) for one in islice(chosen, since, since + limit)]
    return {**found, "orders": page, "next": since + len(page)}


def _order(one: Order) -> dict[str, Any]:
    return {
        "cl_ord_id": one.cl_ord_id,
        "client_order_id": one.client_order_id,
        "order_id": one.order_id,
        "origin": one.origin,
        "symbol": one.symbol,
        "side": one.side,
        "type": "market" if one.price is None else "limit",
        "tif": one.tif,
        "price": one.price,
        "quantity": one.quantity,
        "cum_quantity": one.cum_quantity,
        "leaves_quantity": one.leaves_quantity,
        "status": one.status,
        "accepted": one.accepted,
        "late": one.late,
        "reason": one.reason,
    }


def executions(state: State, *, since: int, limit: int) -> dict[str, Any]:
    """`/state/executions`: those that stand, with a booking number above `since`."""
    limit = max(1, min(limit, MAX_PAGE))
    page = state.executions[max(since, 0) : max(since, 0) + limit]
    return {
        "executions": [_execution(one) for one in page if not one.busted],
        "next": page[-1].seq if page else max(since, 0),
        "last": len(state.executions),
    }


def _execution(one: Execution) -> dict[str, Any]:
    return {
        "seq": one.seq,
        "exec_id": one.exec_id,
        "cl_ord_id": one.cl_ord_id,
        "symbol": one.symbol,
        "side": one.side,
        "quantity": one.quantity,
        "price": one.price,
        "late": one.late,
        "booked_mono_ns": one.booked_mono_ns,
    }


def profit(state: State, reference: dict[str, int]) -> dict[str, Any]:
    """`/state/pnl`: realised by average cost, unrealised at the mark (mid, else average price)."""
    by_symbol = {}
    for one in state.positions.values():
        mark = reference.get(one.symbol) or one.average_price
        by_symbol[one.symbol] = {
            "realised": one.realised,
            "unrealised": one.unrealised(mark) if one.quantity else 0,
            "mark": mark,
            "quantity": one.quantity,
            "cash": one.cash,
        }
    realised = sum(row["realised"] for row in by_symbol.values())
    unrealised = sum(row["unrealised"] for row in by_symbol.values())
    return {
        "realised": realised,
        "unrealised": unrealised,
        "total": realised + unrealised,
        "by_symbol": by_symbol,
    }


def market_data(feed: FeedPeer, symbols: list[str], *, mono_ns: int, stale_ms: int) -> dict[str, Any]:
    """`/state/market_data`: a live feed's heartbeat counts as freshness."""
    rows = []
    for symbol in symbols:
        top = feed.tops.get(symbol)
        heard = feed.last_heard(symbol)
        rows.append(
            {
                "symbol": symbol,
                "last_update_mono_ns": heard,
                "seq": max(top.seq, feed.status.seq) if top else 0,
                "bid": top.bid if top else 0,
                "ask": top.ask if top else 0,
                "stale": not feed.up or mono_ns - heard > stale_ms * 1_000_000,
            }
        )
    return {"symbols": rows, "feed_mono_ns": feed.status.mono_ns}


def strategy(
    indicators: dict[str, Indicator], symbols: list[str], *, initialised: bool, quoting: bool
) -> dict[str, Any]:
    """`/state/strategy`."""
    rows: list[dict[str, Any]] = []
    for symbol in symbols:
        one = indicators.get(symbol)
        for name in ("ema_mid", "volatility", "imbalance"):
            value = getattr(one, name) if one is not None else None
            rows.append(
                {"symbol": symbol, "name": name, "value": value, "samples": one.samples if one else 0}
            )
    return {"initialised": initialised, "quoting": quoting, "indicators": rows}


def last_written(folder: Path, mono: Callable[[], int], wall: Callable[[], int]) -> int | None:
    """Return when any component last wrote to its event log (monotonic ns), by the files; None: never."""
    newest = max((path.stat().st_mtime_ns for path in folder.glob("*.jsonl")), default=None)
    return None if newest is None else mono() - max(wall() - newest, 0)


def link(name: str, kind: str, *, connected: bool, since_mono_ns: int) -> dict[str, Any]:
    """One row of `/state/connectivity`."""
    return {"name": name, "kind": kind, "connected": connected, "since_mono_ns": since_mono_ns}


def whole_number(text: str | None, default: int) -> int:
    """Read an integer query parameter, absent: its default; raises ValueError when it is no number."""
    return default if text is None else int(text)
