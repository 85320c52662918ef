"""Risk: usage recomputed from the exchange, limits kept and unchanged (R54, source document 7.2).

Two conventions are in use for exposure: the position as it is, or the worst that fills of the open
orders could make of it. Either will do, but one of them must hold for every symbol.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from blackstart.check.validators import truth
from blackstart.check.validators.documents import document, fail, optional, remark, unknown, validator
from blackstart.check.validators.shapes import Order, Pnl, Risk, RiskFigures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blackstart.check.facts import Facts
    from blackstart.model.verdict import Finding

# Marks move between two reads; positions do not, once the books are at rest.
NOTIONAL_TOLERANCE = 0.05


@validator("risk")
def check(facts: Facts) -> Iterable[Finding]:
    """Compare the target's usage with our own reckoning, and both with the limits."""
    risk = document(facts, "risk", Risk)
    before = optional(facts, "risk", Risk, moment="before")
    for breach in risk.breaches:
        yield fail("limit-breached", f"the target reports: {breach}")
    if before is not None and before.limits != risk.limits:
        yield fail("limits-changed", "the limits after the recovery are not those before it")
    quantities = {symbol: held.quantity for symbol, held in truth.positions(facts).items()}
    yield from _limits(risk, quantities)
    usage = risk.usage
    if usage is None:
        yield unknown("no-usage", "the target does not say what is used of its limits")
        return
    exposures = _exposures(quantities, truth.open_orders(facts).values())
    exposure = min(exposures, key=lambda one: len(_wrong(one, usage)))
    for symbol, (used, actual) in sorted(_wrong(exposure, usage).items()):
        yield fail("risk-usage-wrong", f"{symbol}: usage {used:,}, at the exchange {actual:,}", symbol=symbol)
    yield from _capital(facts, risk, usage, exposure)


def _limits(risk: Risk, quantities: Mapping[str, int]) -> Iterable[Finding]:
    if not risk.limits.position:
        yield unknown("no-limits", "the target has no position limits")
    for symbol, quantity in sorted(quantities.items()):
        limit = risk.limits.position.get(symbol, risk.limits.position.get("*"))
        if limit is not None and abs(quantity) > limit:
            text = f"{symbol}: position {quantity:,} exceeds {limit:,}"
            yield fail("position-limit", text, symbol=symbol)


def _exposures(
    quantities: Mapping[str, int], orders: Iterable[Order]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return exposure by symbol: as it is, and the worst that open orders could make of it."""
    buys, sells = Counter[str](), Counter[str]()
    for order in orders:
        side = buys if order.side == "buy" else sells
        side[order.symbol or ""] += order.leaves_quantity or 0
    plain = {symbol: abs(quantity) for symbol, quantity in quantities.items()}
    worst = {
        symbol: max(abs(quantity + buys[symbol]), abs(quantity - sells[symbol]))
        for symbol in {*quantities, *buys, *sells}
        for quantity in (quantities.get(symbol, 0),)
    }
    return plain, worst


def _wrong(exposure: Mapping[str, int], usage: RiskFigures) -> dict[str, tuple[int, int]]:
    """Return where usage and exposure differ: (used, actual) by symbol."""
    pairs = {s: (abs(usage.position.get(s, 0)), exposure.get(s, 0)) for s in {*exposure, *usage.position}}
    return {symbol: pair for symbol, pair in pairs.items() if pair[0] != pair[1]}


def _capital(facts: Facts, risk: Risk, usage: RiskFigures, exposure: Mapping[str, int]) -> Iterable[Finding]:
    """Gross notional and concentration, at the marks that the target states."""
    pnl = optional(facts, "pnl", Pnl)
    marks = {symbol: one.mark for symbol, one in pnl.by_symbol.items()} if pnl else {}
    values = {s: n * mark for s, n in exposure.items() if n and (mark := marks.get(s)) is not None}
    unmarked = sorted(s for s, n in exposure.items() if n and s not in values)
    if unmarked:
        text = f"no mark for {', '.join(unmarked)}: gross notional not recomputed"
        yield remark("capital-not-recomputed", text)
        return
    gross, limits = sum(values.values()), risk.limits
    used = usage.gross_notional
    if used is not None and abs(used - gross) > NOTIONAL_TOLERANCE * max(abs(used), gross):
        yield fail("risk-usage-wrong", f"gross notional: usage {used:,.0f} ticks, recomputed {gross:,.0f}")
    if limits.gross_notional is not None and gross > limits.gross_notional:
        text = f"gross notional {gross:,.0f} ticks exceeds {limits.gross_notional:,.0f}"
        yield fail("capital-limit", text)
    share_pct = 100 * max(values.values(), default=0) / gross if gross else 0.0
    if limits.concentration_pct is not None and share_pct > limits.concentration_pct:
        # Small books are always concentrated; whether the limit is in force yet, only the target knows.
        text = f"one symbol is {share_pct:.1f} % of the gross notional, limit {limits.concentration_pct:g} %"
        yield remark("concentration-high", text)
