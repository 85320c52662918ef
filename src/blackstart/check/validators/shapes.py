"""The state documents as the validators take them (docs/reference/state-documents.md).

Fields that are not named here are ignored.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Number = int | float


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol as the target holds it; `cash` in ticks."""

    symbol: str
    quantity: int
    cash: int | None = None


class Positions(msgspec.Struct, frozen=True, kw_only=True):
    """The target's document `positions`."""

    positions: list[Position]


class OraclePosition(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol as the exchange has it."""

    quantity: int
    cash: int | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order of either side. `created_mono_ns` is when its owner made it, where the target says so."""

    cl_ord_id: str
    status: str
    symbol: str | None = None
    side: str | None = None
    quantity: int | None = None
    cum_quantity: int | None = None
    leaves_quantity: int | None = None
    price: int | None = None
    created_mono_ns: int | None = None


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """The document `orders`."""

    orders: list[Order]


class RiskFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Limits, or what is used of them. `position` by symbol, `*` for all others.

    `exposure` is what `position` of a usage counts; the limit `concentration_pct` is in force above a gross
    notional of `concentration_from`, always where that is not stated.
    """

    position: dict[str, int] = {}
    gross_notional: Number | None = None
    concentration_pct: Number | None = None
    concentration_from: Number | None = None
    exposure: Literal["position", "worst"] | None = None


class Risk(msgspec.Struct, frozen=True, kw_only=True):
    """The document `risk`."""

    limits: RiskFigures
    usage: RiskFigures | None = None
    breaches: list[str] = []


class SymbolPnl(msgspec.Struct, frozen=True, kw_only=True):
    """Profit and loss of one symbol, in ticks; `mark` is the price that unrealised profit is taken at."""

    realised: Number
    unrealised: Number
    mark: Number | None = None
    quantity: int | None = None


class Pnl(msgspec.Struct, frozen=True, kw_only=True):
    """The document `pnl`, in ticks."""

    realised: Number
    unrealised: Number
    total: Number
    by_symbol: dict[str, SymbolPnl] = {}


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A connection of the target."""

    name: str
    kind: str
    connected: bool


class Connectivity(msgspec.Struct, frozen=True, kw_only=True):
    """The document `connectivity`."""

    links: list[Link]


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """How fresh the market data of one symbol is, and the best prices; None or 0 where a side is empty."""

    symbol: str
    bid: Number | None = None
    ask: Number | None = None
    last_update_mono_ns: int | None = None
    stale: bool = False


class OracleQuote(msgspec.Struct, frozen=True, kw_only=True):
    """The best prices of one symbol at the exchange and the price of its last trade; None: there is none."""

    bid: Number | None = None
    ask: Number | None = None
    last: Number | None = None


class MarketData(msgspec.Struct, frozen=True, kw_only=True):
    """The document `market_data`."""

    symbols: list[Quote]


class Indicator(msgspec.Struct, frozen=True, kw_only=True):
    """One indicator of a strategy and how many samples it has seen."""

    symbol: str
    name: str
    value: Number | None = None
    samples: int = 0


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """The document `strategy`."""

    initialised: bool
    indicators: list[Indicator] = []


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Which configuration the target runs on."""

    loaded: bool
    sha256: str | None = None


class Timer(msgspec.Struct, frozen=True, kw_only=True):
    """Something that must happen again and again."""

    name: str
    period_ms: Number
    last_fired_mono_ns: int | None = None


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    """Something that must show signs of life."""

    name: str
    component: str = ""
    heartbeat_mono_ns: int | None = None


class Logging(msgspec.Struct, frozen=True, kw_only=True):
    """When the target last wrote to its log."""

    last_written_mono_ns: int | None = None


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """How often the metrics of the process that answers were fetched, and when last."""

    scraped: int | None = None
    last_scraped_mono_ns: int | None = None


class Infrastructure(msgspec.Struct, frozen=True, kw_only=True):
    """The document `infrastructure`; every part may be missing."""

    configuration: Configuration | None = None
    timers: list[Timer] | None = None
    threads: list[Thread] | None = None
    logging: Logging | None = None
    metrics: Metrics | None = None
