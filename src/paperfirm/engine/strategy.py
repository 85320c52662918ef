"""A market maker: quotes around an exponentially weighted mid, wider when volatile.

Leaning with imbalance and position.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from paperfirm.engine import decide
from paperfirm.engine import events as ev
from paperfirm.engine.desk import Desk, NewOrder, Outcome
from paperfirm.engine.state import Indicator, Order

if TYPE_CHECKING:
    from collections.abc import Callable

    from paperfirm.config import StrategySettings
    from paperfirm.engine.links import FeedPeer
    from paperfirm.wire import Top

SECOND_NS = 1_000_000_000


def updated(before: Indicator | None, top: Top, settings: StrategySettings) -> Indicator | None:
    """Return the indicators after a new top; unchanged while a side is missing or time has not moved.

    The weight of the new mid is 1 - 2^(-dt / half-life); volatility is the decayed root mean square return
    per second.
    """
    if top.bid <= 0 or top.ask <= 0:
        return before
    mid = (top.bid + top.ask) / 2
    size = top.bid_quantity + top.ask_quantity
    imbalance = (top.bid_quantity - top.ask_quantity) / size if size else 0.0
    if before is None or before.ema_mid <= 0:
        return Indicator(mid, 0.0, imbalance, 1, top.mono_ns)
    elapsed_s = (top.mono_ns - before.mono_ns) / SECOND_NS
    if elapsed_s <= 0:
        return before
    weight = 1 - 0.5 ** (elapsed_s / settings.ema_half_life_s)
    fading = 0.5 ** (elapsed_s / settings.volatility_half_life_s)
    change = math.log(mid / before.ema_mid)
    variance = fading * before.volatility**2 + (1 - fading) * change * change / elapsed_s
    return Indicator(
        before.ema_mid + weight * (mid - before.ema_mid),
        math.sqrt(variance),
        before.imbalance + weight * (imbalance - before.imbalance),
        before.samples + 1,
        top.mono_ns,
    )


class Quote(msgspec.Struct, frozen=True):
    """Prices to quote, in ticks; None where the position allows no more on that side."""

    buy: int | None
    sell: int | None


def quote(indicator: Indicator, top: Top, position: int, settings: StrategySettings) -> Quote:
    """Return the two prices: never crossing the market, on the price grid."""
    spread = settings.half_spread * (1 + min(indicator.volatility * 100, 4.0))
    lean = indicator.imbalance * settings.half_spread / 2
    centre = (top.bid + top.ask) / 2 + lean - position / settings.quantity * settings.skew_per_lot
    grid = settings.price_step
    buy = min(math.floor((centre - spread) / grid) * grid, top.ask - grid)
    sell = max(math.ceil((centre + spread) / grid) * grid, top.bid + grid)
    return Quote(
        buy if buy > 0 and position < settings.max_position else None,
        sell if position > -settings.max_position else None,
    )


def _uncrossed(top: Top) -> bool:
    return not (top.bid and top.ask) or top.bid < top.ask


class MarketMaker:
    """Re-quotes each symbol in turn while its price is fresh; pulls everything when the feed is lost."""

    def __init__(
        self,
        desk: Desk,
        feed: FeedPeer,
        settings: StrategySettings,
        *,
        symbols: list[str],
        clock: Callable[[], int],
        emit: Callable[..., int],
        held: Callable[[str], int | None] | None = None,
    ) -> None:
        self._desk = desk
        self._feed = feed
        self._settings = settings
        self._symbols = symbols
        self._mono = clock
        self._emit = emit
        self._held = held or self._of_state
        self._mine: dict[str, dict[str, Order]] = {symbol: {} for symbol in symbols}
        self._asked: dict[tuple[str, str], str] = {}
        self._journalled: dict[str, int] = {}
        self._next = 0
        self.quoting = False
        self.closed = False
        """Whether the exchange takes no orders now; quotes are left to its end of the day."""
        self._interrupted = False
        self.indicators: dict[str, Indicator] = dict(desk.state.indicators)

    @property
    def initialised(self) -> bool:
        """Whether every symbol's indicators have a value (they survive recovery)."""
        return all(symbol in self.indicators for symbol in self._symbols)

    def on_top(self, top: Top) -> None:
        """Learn from a new price."""
        indicator = updated(self.indicators.get(top.symbol), top, self._settings)
        if indicator is not None:
            self.indicators[top.symbol] = indicator
        if top.bid > 0 and top.ask > 0:
            self._desk.reference[top.symbol] = (top.bid + top.ask) // 2

    def journal_indicators(self) -> None:
        """Journal what moved since the last call (called at most twice a second)."""
        for symbol, one in self.indicators.items():
            if self._journalled.get(symbol) != one.samples:
                self._journalled[symbol] = one.samples
                self._desk.committer.submit(
                    ev.IndicatorsMoved(
                        symbol, one.ema_mid, one.volatility, one.imbalance, one.samples, one.mono_ns
                    )
                )

    def adopt(self) -> None:
        """Take over the strategy's open orders found in the state (after a recovery)."""
        for orders in self._mine.values():
            orders.clear()
        self._asked.clear()
        for order in self._desk.state.open_orders.values():
            if order.origin == "strategy" and order.symbol in self._mine:
                self._mine[order.symbol][order.cl_ord_id] = order

    def look(self) -> None:
        """Pull or resume by the feed as it is now: a loss that is over by the next step counts, too."""
        fresh = self._fresh()
        if fresh != self.quoting:
            self._switch(fresh=fresh)

    def step(self) -> None:
        """Look after the next symbol; the timer spreads the symbols over `quote_ms`."""
        self.look()
        if not self._symbols or not self._desk.trading or not self.quoting or self.closed:
            return
        symbol = self._symbols[self._next % len(self._symbols)]
        self._next += 1
        self._requote(symbol)

    def _fresh(self) -> bool:
        settings = self._settings
        if not settings.enabled or not self._desk.trading:
            return False
        status = self._feed.status
        return (
            self._feed.up
            and self._mono() - status.mono_ns <= settings.stale_ms * 1_000_000
            and bool(self._feed.tops)
        )

    def _switch(self, *, fresh: bool) -> None:
        """Pull the quotes, or quote again; after a loss of the feed alone only on what is valid again."""
        if not fresh:
            self.quoting = False
            self._interrupted = self._desk.trading
            self._emit("quotes_pulled", pulled=self.pull())
            return
        if self._interrupted and not self.valid:
            return
        self.quoting = True
        if self._interrupted:
            self._emit("state_validated", what="market data", symbols=len(self._symbols))
        self._interrupted = False
        self._emit("quotes_resumed")

    @property
    def valid(self) -> bool:
        """Whether each symbol was heard of on this connection, uncrossed, and its indicators are numbers."""
        return all(
            symbol in self._feed.renewed
            and _uncrossed(self._feed.tops[symbol])
            and (one := self.indicators.get(symbol)) is not None
            and one.ema_mid > 0
            and math.isfinite(one.volatility)
            and abs(one.imbalance) <= 1
            for symbol in self._symbols
        )

    def pull(self) -> int:
        """Cancel all quotes; returns how many cancels went out."""
        return sum(
            self._desk.cancel(cl_ord_id) is None
            for orders in self._mine.values()
            for cl_ord_id in list(orders)
        )

    @property
    def open_quotes(self) -> int:
        """Quotes that may still trade."""
        return sum(order.open for orders in self._mine.values() for order in orders.values())

    def _of_state(self, symbol: str) -> int:
        position = self._desk.state.positions.get(symbol)
        return position.quantity if position else 0

    def _requote(self, symbol: str) -> None:
        top, indicator = self._feed.tops.get(symbol), self.indicators.get(symbol)
        if top is None or indicator is None or top.bid <= 0 or top.ask <= 0:
            return
        held = self._held(symbol)
        if held is None:
            return  # the position in memory is damaged: no quote on it
        wanted = quote(indicator, top, held, self._settings)
        self._side(symbol, "buy", wanted.buy)
        self._side(symbol, "sell", wanted.sell)

    def _side(self, symbol: str, side: ev.Side, price: int | None) -> None:
        """Keep the quote if it stands at the wanted price, else replace it by cancel and new."""
        mine = self._mine[symbol]
        for cl_ord_id, order in list(mine.items()):
            if not order.open:
                del mine[cl_ord_id]
        there = [order for order in mine.values() if order.side == side]
        if any(order.price == price and order.status in decide.RESTING for order in there):
            return
        for order in there:
            self._desk.cancel(order.cl_ord_id)
        if price is None or (symbol, side) in self._asked:
            return
        self._asked[symbol, side] = ""
        self._desk.place(
            NewOrder(symbol, side, self._settings.quantity, price),
            origin="strategy",
            reply=lambda outcome: self._placed(symbol, side, outcome),
        )

    def _placed(self, symbol: str, side: str, outcome: Outcome) -> None:
        self._asked.pop((symbol, side), None)
        order = self._desk.state.open_orders.get(outcome.cl_ord_id)
        if not outcome.reason and order is not None:
            self._mine[symbol][order.cl_ord_id] = order
