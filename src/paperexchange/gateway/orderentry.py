"""Order entry: FIX requests in, venue commands out. Answers to commands come as reports of ledger entries."""

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from fixsession.clock import Now, format_utc, parse_utc
from fixsession.effects import Deliver
from fixsession.message import Message, number
from paperexchange.gateway.host import SessionHost
from paperexchange.gateway.reports import status_report, unknown_order
from paperexchange.gateway.wire import Arrival
from paperexchange.model import (
    CancelOrder,
    NewOrder,
    OrderType,
    ReplaceOrder,
    Side,
    TimeInForce,
    format_price,
    parse_price,
)
from paperexchange.venue import Venue

T = TypeVar("T")
_SIDES: Final[dict[str, Side]] = {"1": "buy", "2": "sell"}
_TYPES: Final[dict[str, OrderType]] = {"1": "market", "2": "limit"}
_TIFS: Final[dict[str, TimeInForce]] = {"0": "day", "3": "ioc"}
_VALUE_MISSING, _VALUE_WRONG = 1, 5
_UNSUPPORTED, _NOT_AUTHORIZED, _UNAVAILABLE = 3, 6, 4


class FieldError(Exception):
    """A field that cannot be used: `tag`, and `reason` as in SessionRejectReason (373)."""

    def __init__(self, tag: int, reason: int, text: str) -> None:
        """Keep what the Reject needs."""
        super().__init__(text)
        self.tag = tag
        self.reason = reason


class Desk(Protocol):
    """What order entry needs of the exchange."""

    venue: Venue
    echo: bool

    def accepts_orders(self, host: SessionHost) -> bool:
        """Whether this gateway may take application messages now."""

    def submit(self, request: NewOrder, host: SessionHost, now: Now) -> bool:
        """Book or reject an order; False when the connection was cut before booking."""

    def cancel(self, request: CancelOrder, now: Now) -> None:
        """Cancel an order."""

    def replace(self, request: ReplaceOrder, now: Now) -> None:
        """Replace an order."""

    def mass_cancel(self, account: str, symbol: str, now: Now) -> int:
        """Cancel an account's open orders."""


class OrderEntry:
    """Answers every application message of an order-entry session."""

    def __init__(
        self,
        desk: Desk,
        *,
        on_logon: Callable[[SessionHost, Now], None],
        on_gone: Callable[[SessionHost, str, Now], None],
    ) -> None:
        """`on_logon` and `on_gone` are the exchange's own follow-ups (cancel on disconnect, republishing)."""
        self._desk = desk
        self._on_logon = on_logon
        self._on_gone = on_gone
        self._echoed: set[tuple[str, str]] = set()
        self._handlers: dict[str, Callable[[SessionHost, Deliver, Arrival, Now], bool]] = {
            "D": self._new_order,
            "F": self._cancel,
            "G": self._replace,
            "H": self._status,
            "AF": self._mass_status,
            "q": self._mass_cancel,
            "AN": self._positions,
        }

    def logged_on(self, host: SessionHost, now: Now) -> None:
        """Take note that the session is up."""
        self._on_logon(host, now)

    def gone(self, host: SessionHost, reason: str, now: Now) -> None:
        """Take note that the connection is closed."""
        self._on_gone(host, reason, now)

    def deliver(self, host: SessionHost, effect: Deliver, arrival: Arrival, now: Now) -> bool:
        """Deal with one message; False when it was cut off before booking."""
        message = effect.message
        if not self._desk.accepts_orders(host):
            refuse(host, message, _UNAVAILABLE, "this gateway is not promoted; use the other one", now)
            return True
        handler = self._handlers.get(message.msg_type)
        if handler is None:
            refuse(host, message, _UNSUPPORTED, f"message type {message.msg_type} is not supported", now)
            return True
        try:
            return handler(host, effect, arrival, now)
        except FieldError as error:
            effects = host.session.reject(message, now, text=str(error), reason=error.reason, tag=error.tag)
            host.carry_out(effects, now)
            return True

    def _new_order(self, host: SessionHost, effect: Deliver, arrival: Arrival, now: Now) -> bool:
        message = effect.message
        if self._desk.echo:
            self._echo(host, effect, now)
            return True
        request = _new_order_of(message, host, arrival)
        if (effect.poss_resend or effect.poss_dup) and request.cl_ord_id:
            known = self._desk.venue.find(host.account, request.cl_ord_id)
            if known is not None:
                host.send(status_report(known, now.wall_ns, []), now)
                return True
        return self._desk.submit(request, host, now)

    def _echo(self, host: SessionHost, effect: Deliver, now: Now) -> None:
        """Give the order back as it was received; a PossResend of one that is known is ignored."""
        order = (host.name, effect.message.get(11) or "")
        if not (effect.poss_resend and order in self._echoed):
            self._echoed.add(order)
            host.send(Message(list(effect.message.pairs)), now)

    def _cancel(self, host: SessionHost, effect: Deliver, _: Arrival, now: Now) -> bool:
        message = effect.message
        request = CancelOrder(
            account=host.account,
            cl_ord_id=_text(message, 11),
            orig_cl_ord_id=message.get(41) or "",
            order_id=message.get(37) or "",
        )
        self._desk.cancel(request, now)
        return True

    def _replace(self, host: SessionHost, effect: Deliver, _: Arrival, now: Now) -> bool:
        message = effect.message
        request = ReplaceOrder(
            account=host.account,
            cl_ord_id=_text(message, 11),
            orig_cl_ord_id=message.get(41) or "",
            order_id=message.get(37) or "",
            quantity=_whole(message, 38),
            price=_price(message),
        )
        self._desk.replace(request, now)
        return True

    def _status(self, host: SessionHost, effect: Deliver, _: Arrival, now: Now) -> bool:
        """OrderStatusRequest: 150=I, or 39=8 for an order nobody knows."""
        message = effect.message
        order = self._desk.venue.find(host.account, message.get(11) or "", message.get(37) or "")
        extra = [(790, request_id)] if (request_id := message.get(790)) else []
        if order is None:
            host.send(unknown_order(message, host.account, now.wall_ns, extra), now)
        else:
            host.send(status_report(order, now.wall_ns, extra), now)
        return True

    def _mass_status(self, host: SessionHost, effect: Deliver, _: Arrival, now: Now) -> bool:
        """One report for each open order with 911/912; one that says so when there is none."""
        message = effect.message
        request_id = _text(message, 584)
        wanted = message.get(55) or ""
        orders = self._desk.venue.open_orders(host.account, wanted)
        for index, order in enumerate(orders, 1):
            last = "Y" if index == len(orders) else "N"
            extra = [(584, request_id), (911, str(len(orders))), (912, last)]
            host.send(status_report(order, now.wall_ns, extra), now)
        if not orders:
            extra = [(584, request_id), (911, "0"), (912, "Y")]
            host.send(unknown_order(message, host.account, now.wall_ns, extra), now)
        return True

    def _mass_cancel(self, host: SessionHost, effect: Deliver, _: Arrival, now: Now) -> bool:
        """530=1 by symbol, 7 all; the report comes first, the cancels follow."""
        message = effect.message
        kind = _text(message, 530)
        symbol = (message.get(55) or "") if kind == "1" else ""
        bad = kind not in ("1", "7") or (kind == "1" and symbol not in self._desk.venue.instruments)
        orders = [] if bad else self._desk.venue.open_orders(host.account, symbol)
        pairs = [
            (35, "r"),
            (11, _text(message, 11)),
            (37, f"Q{now.mono_ns}"),
            (530, kind),
            (531, "0" if bad else kind),
            (533, str(len(orders))),
            (60, format_utc(now.wall_ns)),
        ]
        if bad:
            pairs[5:6] = [(532, "1" if kind == "1" else "0")]
        host.send(Message(pairs), now)
        if not bad:
            self._desk.mass_cancel(host.account, symbol, now)
        return True

    def _positions(self, host: SessionHost, effect: Deliver, _: Arrival, now: Now) -> bool:
        """RequestForPositions: one PositionReport a symbol (728=0), or one with 728=2 when there is none."""
        message = effect.message
        request_id = _text(message, 710)
        account = self._desk.venue.state.account(host.account)
        held = sorted(account.positions.items())
        head = [(710, request_id), (727, str(len(held)))]
        party = [(581, "1"), (715, format_utc(now.wall_ns)[:8]), *_party(host.account)]
        for index, (symbol, position) in enumerate(held, 1):
            report = [(35, "AP"), (721, f"P{now.mono_ns}-{index}"), *head, (728, "0"), *party, (55, symbol)]
            prices = self._settlement(symbol)
            host.send(Message([*report, *prices, *_amounts(position.quantity, position.cash)]), now)
        if not held:
            report = [(35, "AP"), (721, f"P{now.mono_ns}"), *head, (728, "2"), *party]
            host.send(Message([*report, *self._settlement(""), *_amounts(0, 0)]), now)
        return True

    def _settlement(self, symbol: str) -> list[tuple[int, str]]:
        """Give the theoretical price now and the day's first mid; zero where there is no instrument."""
        instrument = self._desk.venue.instruments.get(symbol)
        if instrument is None:
            return [(730, "0"), (731, "2"), (734, "0")]
        price = format_price(self._desk.venue.reference_price(symbol))
        return [(730, price), (731, "2"), (734, format_price(instrument.mid))]


def _party(account: str) -> list[tuple[int, str]]:
    return [(453, "1"), (448, account), (447, "D"), (452, "1"), (1, account)]


def _amounts(quantity: int, cash: int) -> list[tuple[int, str]]:
    """Give long (704) or short (705) quantity, and the cash it came from."""
    held = (704, str(quantity)) if quantity >= 0 else (705, str(-quantity))
    return [(702, "1"), (703, "TOT"), held, (753, "1"), (707, "CASH"), (708, format_price(cash))]


def refuse(host: SessionHost, message: Message, reason: int, text: str, now: Now) -> None:
    """BusinessMessageReject (35=j)."""
    pairs = [(35, "j"), (45, str(message.seq_num or 0)), (372, message.msg_type)]
    if business_id := message.get(11):
        pairs.append((379, business_id))
    host.send(Message([*pairs, (380, str(reason)), (58, text)]), now)


def _new_order_of(message: Message, host: SessionHost, arrival: Arrival) -> NewOrder:
    order_type = _choice(message, 40, _TYPES)
    _transact_time(message)
    return NewOrder(
        account=host.account,
        cl_ord_id=_text(message, 11),
        symbol=_text(message, 55),
        side=_choice(message, 54, _SIDES),
        quantity=_whole(message, 38),
        price=_price(message) if order_type == "limit" else 0,
        type=order_type,
        tif=_choice(message, 59, _TIFS, default="0"),
        conn=host.conn.number if host.conn else 0,
        received_mono_ns=arrival.mono_ns,
        received_stamp=arrival.stamp,
    )


def _text(message: Message, tag: int) -> str:
    value = message.get(tag)
    if not value:
        raise FieldError(tag, _VALUE_MISSING, f"field {tag} is required in message type {message.msg_type}")
    return value


def _choice(message: Message, tag: int, table: dict[str, T], default: str = "") -> T:
    value = message.get(tag) or default or _text(message, tag)
    found = table.get(value)
    if found is None:
        raise FieldError(tag, _VALUE_WRONG, f"field {tag} must be one of {' '.join(table)}")
    return found


def _whole(message: Message, tag: int) -> int:
    text = _text(message, tag)
    value = number(text.removesuffix(".0") if text.endswith(".0") else text, minimum=0)
    if value is None:
        raise FieldError(tag, _VALUE_WRONG, f"field {tag} must be a whole number")
    return value


def _price(message: Message) -> int:
    try:
        return parse_price(_text(message, 44))
    except ValueError as error:
        raise FieldError(44, _VALUE_WRONG, str(error)) from error


def _transact_time(message: Message) -> None:
    text = message.get(60)
    if text is not None and parse_utc(text) is None:
        raise FieldError(60, _VALUE_WRONG, "field 60 must be a UTCTimestamp")
