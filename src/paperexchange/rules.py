"""Which requests the exchange refuses, and with which reason. Pure; one line a rule."""

from paperexchange.model import CancelOrder, Instrument, NewOrder, Order, ReplaceOrder
from paperexchange.state import State

MAX_CL_ORD_ID = 64
MAX_QUANTITY = 10_000_000

# OrdRejReason (103).
UNKNOWN_SYMBOL, CLOSED, DUPLICATE, BAD_QUANTITY, BAD_VALUE = 1, 2, 6, 13, 99
# CxlRejReason (102).
TOO_LATE, UNKNOWN_ORDER, ALREADY_PENDING, DUPLICATE_CL_ORD_ID, OTHER = 0, 1, 3, 6, 99

Refusal = tuple[int, str]
"""The FIX reason and a text for people."""
Instruments = dict[str, Instrument]


def order_refusal(  # noqa: PLR0911 - one line a rule
    request: NewOrder, state: State, instruments: Instruments
) -> Refusal | None:
    """Say why an order is refused; None when it is good."""
    instrument = instruments.get(request.symbol)
    phase = state.phase
    if instrument is None:
        return UNKNOWN_SYMBOL, f"unknown symbol {request.symbol!r}"
    if phase in ("close", "settlement"):
        return CLOSED, f"no new orders in phase {phase}"
    if phase != "continuous" and (request.type == "market" or request.tif == "ioc"):
        return CLOSED, f"only limit day orders in phase {phase}"
    if not 0 < request.quantity <= MAX_QUANTITY:
        return BAD_QUANTITY, f"quantity must be 1 to {MAX_QUANTITY}"
    if not 0 < len(request.cl_ord_id) <= MAX_CL_ORD_ID:
        return BAD_VALUE, f"ClOrdID must have 1 to {MAX_CL_ORD_ID} characters"
    if request.type == "limit" and (request.price <= 0 or request.price % instrument.tick):
        return BAD_VALUE, f"price must be a positive multiple of {instrument.tick / 10_000:g}"
    account = state.account(request.account)
    if account.member and request.cl_ord_id in account.by_cl_ord_id:
        return DUPLICATE, f"duplicate ClOrdID {request.cl_ord_id}"
    return None


def amend_refusal(request: CancelOrder | ReplaceOrder, order: Order | None, state: State) -> Refusal | None:
    """Say why an order can be neither cancelled nor replaced; None when it can."""
    if order is None:
        return UNKNOWN_ORDER, "unknown order"
    if not order.leaves_quantity:
        return TOO_LATE, f"too late: order is {order.status}"
    if order.status in ("pending_cancel", "pending_replace"):
        return ALREADY_PENDING, f"order is {order.status}"
    if request.cl_ord_id in state.account(request.account).by_cl_ord_id:
        return DUPLICATE_CL_ORD_ID, f"duplicate ClOrdID {request.cl_ord_id}"
    if state.phase == "settlement":
        return OTHER, "nothing can be changed in phase settlement"
    return None


def replace_refusal(
    request: ReplaceOrder, order: Order | None, state: State, instruments: Instruments
) -> Refusal | None:
    """Say why an order cannot get this price and quantity; None when it can."""
    if order is None:
        return UNKNOWN_ORDER, "unknown order"
    tick = instruments[order.symbol].tick
    if order.cum_quantity >= request.quantity or request.quantity > MAX_QUANTITY:
        return OTHER, f"quantity must be above the {order.cum_quantity} already filled"
    if request.price <= 0 or request.price % tick:
        return OTHER, f"price must be a positive multiple of {tick / 10_000:g}"
    if state.phase == "close":
        return OTHER, "orders can only be cancelled in phase close"
    return None
