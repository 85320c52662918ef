"""Open orders: on both sides, in the same state, with the same quantities (R54, source document 7.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.check.validators import truth
from blackstart.check.validators.documents import document, fail, remark, twice, validator
from blackstart.check.validators.shapes import Order, Orders

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts
    from blackstart.model.verdict import Finding

CLOSED = frozenset({"filled", "canceled", "rejected", "expired", "done_for_day"})
COMPARED = ("symbol", "side", "price", "quantity", "cum_quantity", "leaves_quantity")


@validator("orders")
def check(facts: Facts) -> Iterable[Finding]:
    """Compare open orders in both directions."""
    every = document(facts, "orders", Orders).orders
    yield from twice((order.cl_ord_id for order in every), "order")
    ours = {order.cl_ord_id: order for order in every if order.status not in CLOSED}
    theirs = truth.open_orders(facts)
    if not ours and not theirs:
        yield remark("no-open-orders", "no order was open on either side")
    for key in sorted(ours.keys() - theirs.keys()):
        text = f"order {key} ({ours[key].status}) is open internally but not at the exchange"
        yield fail("order-not-at-exchange", text, cl_ord_id=key)
    for key in sorted(theirs.keys() - ours.keys()):
        text = f"order {key} ({theirs[key].status}) rests at the exchange but is not open internally"
        yield fail("order-not-internal", text, cl_ord_id=key)
    for key in sorted(ours.keys() & theirs.keys()):
        yield from _compare(key, ours[key], theirs[key])


def _compare(key: str, ours: Order, theirs: Order) -> Iterable[Finding]:
    if ours.status != theirs.status:
        text = f"order {key}: internal {ours.status}, exchange {theirs.status}"
        yield fail("order-state-mismatch", text, cl_ord_id=key)
    for field in COMPARED:
        internal, exchange = getattr(ours, field), getattr(theirs, field)
        if internal is not None and exchange is not None and internal != exchange:
            text = f"order {key}: {field} internal {internal}, exchange {exchange}"
            yield fail("order-mismatch", text, cl_ord_id=key, field=field)
