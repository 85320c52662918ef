"""Limits on position, capital and concentration. Pure: no clock, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from paperfirm.config import Limits
    from paperfirm.wire import Holding, OpenOrder


class _Exposure:
    """One symbol: booked quantity, leaves of open buys and sells, and their price."""

    __slots__ = ("buys", "price", "quantity", "sells")

    def __init__(self) -> None:
        self.quantity = self.buys = self.sells = self.price = 0

    def worst(self) -> int:
        """Largest |position| that fills of open orders could lead to."""
        return max(abs(self.quantity + self.buys), abs(self.quantity - self.sells))

    def notional(self) -> int:
        return self.worst() * self.price


class _Open:
    """An order that still reserves room."""

    __slots__ = ("leaves", "side", "symbol")

    def __init__(self, symbol: str, side: str, leaves: int) -> None:
        self.symbol, self.side, self.leaves = symbol, side, leaves


class RiskBook:
    """Positions including open orders, measured against limits. Quantities in units, money in ticks."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._symbols: dict[str, _Exposure] = {}
        self._open: dict[str, _Open] = {}
        self._gross = 0

    def load(self, holdings: Iterable[Holding], orders: Iterable[OpenOrder]) -> None:
        """Forget everything and take over the engine's view."""
        self._symbols.clear()
        self._open.clear()
        self._gross = 0
        for holding in holdings:
            exposure = self._at(holding.symbol)
            exposure.quantity += holding.quantity
            exposure.price = holding.price or exposure.price
        for order in orders:
            self._reserve(order.id, order.symbol, order.side, order.leaves_quantity, order.price)
        self._gross = sum(exposure.notional() for exposure in self._symbols.values())

    def check(self, order_id: str, symbol: str, side: str, quantity: int, price: int) -> str | None:
        """Reserve room for an order and return None, or return why it must not go out."""
        if quantity <= 0 or price < 0 or side not in {"buy", "sell"}:
            return f"nonsense order: {side} {quantity} at {price}"
        if order_id in self._open:
            return f"{order_id} has been approved before"
        exposure = self._at(symbol)
        before = (exposure.price, exposure.worst(), self._gross)
        self._reserve(order_id, symbol, side, quantity, price)
        reason = self._excess(symbol, exposure, worst_before=before[1], gross_before=before[2])
        if reason is not None:
            self.close(order_id)
            self._reprice(exposure, before[0])
        return reason

    def booked(self, order_id: str, symbol: str, side: str, quantity: int, price: int) -> None:
        """Move filled quantity from the order to the position; a negative quantity takes a fill back.

        An order that is still open is open again by what was taken back.
        """
        exposure = self._at(symbol)
        before = exposure.notional()
        exposure.quantity += quantity if side == "buy" else -quantity
        exposure.price = exposure.price or price
        order = self._open.get(order_id)
        if order is not None and quantity > 0:
            filled = min(quantity, order.leaves)
            order.leaves -= filled
            self._add(exposure, order.side, -filled)
            if order.leaves == 0:
                del self._open[order_id]
        elif order is not None:
            order.leaves -= quantity
            self._add(exposure, order.side, -quantity)
        self._gross += exposure.notional() - before

    def adopt(self, order_id: str, symbol: str, side: str, quantity: int, price: int) -> None:
        """Reserve room for an order that is at the exchange whatever the limits say."""
        if order_id not in self._open and quantity > 0:
            self._reserve(order_id, symbol, side, quantity, price)

    def close(self, order_id: str) -> None:
        """Give back what an order still reserves; unknown ids are ignored."""
        order = self._open.pop(order_id, None)
        if order is not None:
            exposure = self._symbols[order.symbol]
            before = exposure.notional()
            self._add(exposure, order.side, -order.leaves)
            self._gross += exposure.notional() - before

    def mark(self, symbol: str, price: int) -> None:
        """Value the symbol at this price from now on."""
        if price > 0:
            self._reprice(self._at(symbol), price)

    def position_usage(self) -> dict[str, int]:
        """Return |position including open orders| of each symbol."""
        return {symbol: exposure.worst() for symbol, exposure in self._symbols.items()}

    @property
    def gross_notional(self) -> int:
        """Sum over symbols of |position including open orders| at its price, in ticks."""
        return self._gross

    @property
    def open_orders(self) -> int:
        """How many orders reserve room."""
        return len(self._open)

    def concentration_pct(self) -> float:
        """Return the largest symbol's share of gross notional, in percent."""
        largest = max((exposure.notional() for exposure in self._symbols.values()), default=0)
        return 100.0 * largest / self._gross if self._gross else 0.0

    def breaches(self) -> list[str]:
        """Name every limit exceeded now (by prices or a loaded state, never by an approved order)."""
        found = [
            f"position {symbol}: {exposure.worst()} > {self._position_limit(symbol)}"
            for symbol, exposure in sorted(self._symbols.items())
            if exposure.worst() > self._position_limit(symbol)
        ]
        if self._gross > self.limits.gross_notional:
            found.append(f"gross notional: {self._gross} > {self.limits.gross_notional}")
        if self._concentration_counts() and self.concentration_pct() > self.limits.concentration_pct:
            found.append(
                f"concentration: {self.concentration_pct():.2f} % > {self.limits.concentration_pct} %"
            )
        return found

    def _excess(
        self, symbol: str, exposure: _Exposure, *, worst_before: int, gross_before: int
    ) -> str | None:
        """Name what an order would exceed; one that makes the exposure no larger may always go."""
        worst = exposure.worst()
        if worst <= worst_before and self._gross <= gross_before:
            return None
        if worst > self._position_limit(symbol):
            return f"position limit {symbol}: {worst} > {self._position_limit(symbol)}"
        if self._gross > self.limits.gross_notional:
            return f"capital limit: gross notional {self._gross} > {self.limits.gross_notional}"
        share = 100.0 * exposure.notional() / self._gross if self._gross else 0.0
        if self._concentration_counts() and share > self.limits.concentration_pct:
            return f"concentration limit {symbol}: {share:.2f} % > {self.limits.concentration_pct} %"
        return None

    def _concentration_counts(self) -> bool:
        return self._gross > self.limits.concentration_from

    def _position_limit(self, symbol: str) -> int:
        limits = self.limits.position
        return limits.get(symbol, limits.get("*", 0))

    def _at(self, symbol: str) -> _Exposure:
        exposure = self._symbols.get(symbol)
        if exposure is None:
            exposure = self._symbols[symbol] = _Exposure()
        return exposure

    def _reserve(self, order_id: str, symbol: str, side: str, leaves: int, price: int) -> None:
        exposure = self._at(symbol)
        before = exposure.notional()
        exposure.price = exposure.price or price
        self._open[order_id] = _Open(symbol, side, leaves)
        self._add(exposure, side, leaves)
        self._gross += exposure.notional() - before

    def _reprice(self, exposure: _Exposure, price: int) -> None:
        before = exposure.notional()
        exposure.price = price
        self._gross += exposure.notional() - before

    @staticmethod
    def _add(exposure: _Exposure, side: str, leaves: int) -> None:
        if side == "buy":
            exposure.buys += leaves
        else:
            exposure.sells += leaves
