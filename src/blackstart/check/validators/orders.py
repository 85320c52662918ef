"""Open orders: on both sides, in the same state, with the same quantities (R54, source document 7.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from blackstart.check.validators import truth
from blackstart.check.validators.documents import document, fail, remark, twice, unknown, validator
from blackstart.check.validators.shapes import Order, Orders

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blackstart.check.facts import Facts
    from blackstart.model.verdict import Finding

CLOSED = frozenset({"filled", "canceled", "rejected", "expired", "done_for_day"})
COMPARED = ("symbol", "side", "price", "quantity", "cum_quantity", "leaves_quantity")
NAMED = 3


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
    both = sorted(ours.keys() & theirs.keys())
    for key in both:
        yield from _compare(key, _whole(ours[key]), _whole(theirs[key]))
    yield from _not_compared({key: _missing(_whole(ours[key]), _whole(theirs[key])) for key in both})


def _whole(order: Order) -> Order:
    """Add the quantity that follows from the two others."""
    quantity, done, left = order.quantity, order.cum_quantity, order.leaves_quantity
    if quantity is None and done is not None and left is not None:
        return msgspec.structs.replace(order, quantity=done + left)
    if quantity is not None and done is None and left is not None:
        return msgspec.structs.replace(order, cum_quantity=quantity - left)
    if quantity is not None and done is not None and left is None:
        return msgspec.structs.replace(order, leaves_quantity=quantity - done)
    return order


def _compare(key: str, ours: Order, theirs: Order) -> Iterable[Finding]:
    if ours.status != theirs.status:
        text = f"order {key}: internal {ours.status}, exchange {theirs.status}"
        yield fail("order-state-mismatch", text, cl_ord_id=key)
    missing = _missing(ours, theirs)
    for field in COMPARED:
        internal, exchange = getattr(ours, field), getattr(theirs, field)
        if field not in missing and internal != exchange:
            text = f"order {key}: {field} internal {internal}, exchange {exchange}"
            yield fail("order-mismatch", text, cl_ord_id=key, field=field)


def _missing(ours: Order, theirs: Order) -> tuple[str, ...]:
    """Name what either side does not state."""
    return tuple(
        field for field in COMPARED if getattr(ours, field) is None or getattr(theirs, field) is None
    )


def _not_compared(missing: Mapping[str, tuple[str, ...]]) -> Iterable[Finding]:
    """Say what nobody could compare, once for all orders that lack the same."""
    for fields in sorted(set(missing.values()) - {()}):
        keys = [key for key, lacking in missing.items() if lacking == fields]
        named = ", ".join(keys[:NAMED]) + (" …" if len(keys) > NAMED else "")
        text = f"{', '.join(fields)} of {len(keys)} open orders ({named}): not stated on both sides"
        yield unknown("not-compared", text, fields=list(fields), orders=len(keys))
