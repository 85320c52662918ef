"""Between the firm's frames and FIX 4.4 messages. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixsession.clock import format_utc
from fixsession.message import Message
from paperfirm.wire import TICK, Report

if TYPE_CHECKING:
    from paperfirm.wire import Cancel, Send, Side, StatusRequest

SIDES: dict[str, Side] = {"1": "buy", "2": "sell"}
CODES = {"buy": "1", "sell": "2"}
TIMES_IN_FORCE = {"day": "0", "ioc": "3"}
DECIMALS = 4


class TranslationError(ValueError):
    """A message of the exchange cannot be understood; says which field."""


def ticks(text: str | None) -> int:
    """Return a FIX price in ticks of 0.0001, exactly; 0 where there is none."""
    if not text:
        return 0
    sign = -1 if text[0] == "-" else 1
    whole, _, fraction = text.lstrip("+-").partition(".")
    extra = fraction[DECIMALS:].rstrip("0")
    if extra or not (whole + fraction).isdecimal():
        raise TranslationError(f"{text!r} is no price in steps of 0.0001")
    return sign * (int(whole or "0") * TICK + int(fraction[:DECIMALS].ljust(DECIMALS, "0")))


def decimal(price: int) -> str:
    """Return ticks of 0.0001 as a FIX price without needless zeros."""
    sign = "-" if price < 0 else ""
    whole, rest = divmod(abs(price), TICK)
    return f"{sign}{whole}.{rest:04d}".rstrip("0").rstrip(".")


def new_order(order: Send, account: str, wall_ns: int) -> Message:
    """Return the NewOrderSingle (D) of an order."""
    return Message.of(
        "D",
        {
            11: order.cl_ord_id,
            1: account,
            55: order.symbol,
            54: CODES[order.side],
            60: format_utc(wall_ns),
            38: order.quantity,
            40: "1" if order.price is None else "2",
            44: None if order.price is None else decimal(order.price),
            59: TIMES_IN_FORCE[order.tif],
        },
    )


def cancel_request(cancel: Cancel, account: str, wall_ns: int) -> Message:
    """Return the OrderCancelRequest (F) of a cancel."""
    return Message.of(
        "F",
        {
            41: cancel.orig_cl_ord_id,
            11: cancel.cl_ord_id,
            1: account,
            55: cancel.symbol,
            54: CODES[cancel.side],
            60: format_utc(wall_ns),
            38: cancel.quantity,
        },
    )


def status_request(request: StatusRequest, account: str) -> Message:
    """Return the OrderStatusRequest (H)."""
    return Message.of("H", {11: request.cl_ord_id, 1: account, 55: request.symbol, 54: CODES[request.side]})


def report(message: Message) -> Report | None:
    """Translate what the exchange delivered; None for message types that are no business of the engine.

    Raises TranslationError where a number cannot be read.
    """
    kinds = {"8": _execution, "9": _cancel_reject, "j": _business_reject}
    translate = kinds.get(message.msg_type)
    return translate(message) if translate else None


def session_reject(refused: Message | None, text: str) -> Report:
    """Report a session-level Reject of what we had sent."""
    return _reject(_text(refused, 11) if refused else "", text)


def _execution(message: Message) -> Report:
    return Report(
        "execution",
        _text(message, 150),
        _text(message, 39),
        _text(message, 11),
        _text(message, 41),
        _text(message, 37),
        _text(message, 17),
        _text(message, 19),
        _text(message, 55),
        SIDES.get(_text(message, 54), "buy"),
        _quantity(message, 38),
        ticks(message.get(44)),
        _quantity(message, 32),
        ticks(message.get(31)),
        _quantity(message, 14),
        _quantity(message, 151),
        _text(message, 58),
    )


def _cancel_reject(message: Message) -> Report:
    text = _text(message, 58) or f"cancel refused, reason {_text(message, 102) or 'not given'}"
    cl_ord_id, original = _text(message, 11), _text(message, 41)
    return Report(
        "cancel_reject",
        "",
        _text(message, 39),
        cl_ord_id,
        original,
        _text(message, 37),
        "",
        "",
        "",
        "buy",
        0,
        0,
        0,
        0,
        0,
        0,
        text,
    )


def _business_reject(message: Message) -> Report:
    return _reject(
        _text(message, 379), _text(message, 58) or f"business reject, reason {_text(message, 380)}"
    )


def _reject(cl_ord_id: str, text: str) -> Report:
    return Report("reject", "", "8", cl_ord_id, "", "", "", "", "", "buy", 0, 0, 0, 0, 0, 0, text)


def _text(message: Message, tag: int) -> str:
    return message.get(tag) or ""


def _quantity(message: Message, tag: int) -> int:
    """FIX quantities may carry a fraction; ours are whole."""
    text = message.get(tag)
    if not text:
        return 0
    whole, _, fraction = text.partition(".")
    if not whole.isdecimal() or fraction.strip("0"):
        raise TranslationError(f"field {tag}: {text!r} is no whole quantity")
    return int(whole)
