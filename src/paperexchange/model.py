"""Values of the exchange: orders, trades' two sides, prices.

Prices and money are integers in ticks of 0.0001; only the FIX surface knows decimals.
"""

from typing import Final, Literal

import msgspec

from fixsession.clock import Now

At = Now
"""A moment on both clocks: `mono_ns` is CLOCK_MONOTONIC, `wall_ns` Unix time."""

PRICE_SCALE: Final = 10_000
"""Ticks to one unit of currency."""
_PRICE_PLACES: Final = 4

Side = Literal["buy", "sell"]
OrderType = Literal["limit", "market"]
TimeInForce = Literal["day", "ioc"]
Status = Literal[
    "new",
    "partially_filled",
    "filled",
    "canceled",
    "rejected",
    "expired",
    "pending_cancel",
    "pending_replace",
]
Phase = Literal["pre_open", "open", "continuous", "close", "settlement"]
PHASES: Final[tuple[Phase, ...]] = ("pre_open", "open", "continuous", "close", "settlement")

HOUSE: Final = "HOUSE"
"""The market maker's account; also the counterparty of scripted fills."""
NOISE: Final = "NOISE"
"""The account of the takers who trade at random."""
HOUSE_ACCOUNTS: Final = frozenset((HOUSE, NOISE))


class Order(msgspec.Struct, gc=False):
    """An order as the exchange knows it; `open` while it may still trade."""

    order_id: str
    cl_ord_id: str
    account: str
    symbol: str
    side: Side
    type: OrderType
    tif: TimeInForce
    price: int
    quantity: int
    cum_quantity: int
    leaves_quantity: int
    average_price: int
    status: Status
    accepted_mono_ns: int
    accepted_seq: int
    conn: int
    notional: int = 0
    priority: int = 0
    scripted: bool = False

    @property
    def open(self) -> bool:
        """Whether the order may still trade or be cancelled."""
        return self.leaves_quantity > 0


class Execution(msgspec.Struct, gc=False, frozen=True):
    """One fill of one account; `exec_seq` counts an account's fills from 1 without gaps."""

    exec_id: str
    exec_seq: int
    account: str
    order_id: str
    cl_ord_id: str
    symbol: str
    side: Side
    quantity: int
    price: int
    cum_quantity: int
    leaves_quantity: int
    mono_ns: int
    wall_ns: int


class Position(msgspec.Struct, gc=False):
    """Signed quantity, and cash as the sum of sells minus buys in ticks."""

    quantity: int = 0
    cash: int = 0


class NewOrder(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A request for a new order, as it came in; `received_mono_ns` is when its bytes arrived."""

    account: str
    cl_ord_id: str
    symbol: str
    side: Side
    quantity: int
    price: int = 0
    type: OrderType = "limit"
    tif: TimeInForce = "day"
    conn: int = 0
    received_mono_ns: int = 0
    received_stamp: Literal["kernel", "user"] = "user"


class CancelOrder(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A request to cancel the order known by `orig_cl_ord_id` or, if empty, by `order_id`."""

    account: str
    cl_ord_id: str
    orig_cl_ord_id: str
    order_id: str = ""


class ReplaceOrder(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A request to change price or total quantity; `quantity` includes what was filled already."""

    account: str
    cl_ord_id: str
    orig_cl_ord_id: str
    quantity: int
    price: int
    order_id: str = ""


class Instrument(msgspec.Struct, frozen=True):
    """A tradable symbol: `tick` is the price step, `mid` the day's first mid price, both in 0.0001."""

    symbol: str
    mid: int
    tick: int = 100


def sign(side: Side) -> int:
    """+1 for a buy, -1 for a sell."""
    return 1 if side == "buy" else -1


def format_price(price: int) -> str:
    """Ticks as a decimal: 1000500 is '100.05'."""
    whole, part = divmod(abs(price), PRICE_SCALE)
    text = f"{whole}.{part:04d}".rstrip("0")
    text = text + "00" if text.endswith(".") else text
    return f"-{text}" if price < 0 else text


def parse_price(text: str) -> int:
    """Decimal text as ticks. Raises ValueError when it is no number or finer than 0.0001."""
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    whole, _, part = unsigned.partition(".")
    part = part.rstrip("0") if whole else part.rstrip("0") or part
    digits = whole + part
    if not digits.isascii() or not digits.isdecimal() or len(part) > _PRICE_PLACES:
        raise ValueError(f"{text!r} is not a price in steps of 0.0001")
    value = int(whole or "0") * PRICE_SCALE + int(part.ljust(_PRICE_PLACES, "0"))
    return -value if text.startswith("-") else value


def average(notional: int, quantity: int) -> int:
    """Average price in ticks, rounded to the nearest; 0 when nothing was filled."""
    return (2 * notional + quantity) // (2 * quantity) if quantity else 0


def format_average(notional: int, quantity: int) -> str:
    """Average price as a decimal with eight places, for AvgPx (6)."""
    if not quantity:
        return "0"
    scaled = (2 * notional * PRICE_SCALE + quantity) // (2 * quantity)
    whole, part = divmod(scaled, PRICE_SCALE * PRICE_SCALE)
    text = f"{whole}.{part:08d}".rstrip("0")
    return text + "0" if text.endswith(".") else text
