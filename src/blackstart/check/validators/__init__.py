"""The eight validators of recovered state (R54): each a pure function of a trial's facts, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.check.validators import (
    connectivity,
    infrastructure,
    market_data,
    orders,
    pnl,
    positions,
    risk,
    strategy,
)

if TYPE_CHECKING:
    from blackstart.check.validators.documents import Validator

VALIDATORS: dict[str, Validator] = {
    "positions": positions.check,
    "orders": orders.check,
    "risk": risk.check,
    "pnl": pnl.check,
    "connectivity": connectivity.check,
    "market_data": market_data.check,
    "strategy": strategy.check,
    "infrastructure": infrastructure.check,
}
