"""Risk: usage recomputed from the exchange, limits kept and unchanged (R54, source document 7.2).

Two conventions are in use for exposure: the position as it is, or the worst that fills of the open
orders could make of it. The target says which one is its own; where it does not, and both do not come to
the same, nobody can tell whether its usage is right.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from blackstart.check.validators import market, truth
from blackstart.check.validators.documents import (
    document,
    earlier,
    fail,
    optional,
    remark,
    unknown,
    validator,
)
from blackstart.check.validators.shapes import Order, Pnl, Risk, RiskFigures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blackstart.check.facts import Facts
    from blackstart.model.verdict import Finding

# Marks move between two reads; positions do not, once the books are at rest.
NOTIONAL_TOLERANCE = 0.05
SHARE_TOLERANCE_PCT = 5.0
ROUNDING_PCT = 1e-6

Exposure = dict[str, int]


@validator("risk")
def check(facts: Facts) -> Iterable[Finding]:
    """Compare the target's usage with our own reckoning, and both with the limits."""
    risk = document(facts, "risk", Risk)
    before = yield from earlier(facts, "risk", Risk)
    for breach in risk.breaches:
        yield fail("limit-breached", f"the target reports: {breach}")
    if before is not None and before.limits != risk.limits:
        yield fail("limits-changed", "the limits after the recovery are not those before it")
    quantities = {symbol: held.quantity for symbol, held in truth.positions(facts).items()}
    readings = _exposures(quantities, truth.open_orders(facts).values())
    usage = risk.usage
    if usage is None:
        yield from _limits(risk, readings["position"])
        yield unknown("no-usage", "the target does not say what is used of its limits")
        return
    if usage.exposure is None and readings["position"] != readings["worst"]:
        text = "the target does not say whether its usage counts open orders (`exposure`: position or worst)"
        yield unknown("exposure-not-stated", text)
    fitting = min(readings, key=lambda name: len(_wrong(readings[name], usage)))
    exposure = readings[usage.exposure or fitting]
    yield from _limits(risk, exposure)
    for symbol, (used, actual) in sorted(_wrong(exposure, usage).items()):
        yield fail("risk-usage-wrong", f"{symbol}: usage {used:,}, at the exchange {actual:,}", symbol=symbol)
    yield from _not_compared(usage, risk.limits, (before and before.usage) or RiskFigures())
    yield from _capital(facts, risk, usage, exposure)


def _limits(risk: Risk, exposure: Mapping[str, int]) -> Iterable[Finding]:
    if not risk.limits.position:
        yield unknown("no-limits", "the target has no position limits")
        return
    for symbol, quantity in sorted(exposure.items()):
        limit = risk.limits.position.get(symbol, risk.limits.position.get("*"))
        if limit is None and quantity:
            yield unknown("no-limits", f"{symbol}: the target states no position limit", symbol=symbol)
        elif limit is not None and quantity > limit:
            text = f"{symbol}: position {quantity:,} exceeds {limit:,}"
            yield fail("position-limit", text, symbol=symbol)


def _exposures(quantities: Mapping[str, int], orders: Iterable[Order]) -> dict[str, Exposure]:
    """Return exposure by symbol: as it is, and the worst that open orders could make of it."""
    buys, sells = Counter[str](), Counter[str]()
    for order in orders:
        side = buys if order.side == "buy" else sells
        side[order.symbol or ""] += order.leaves_quantity or 0
    worst = {
        symbol: max(abs(quantity + buys[symbol]), abs(quantity - sells[symbol]))
        for symbol in {*quantities, *buys, *sells}
        for quantity in (quantities.get(symbol, 0),)
    }
    return {"position": {symbol: abs(quantity) for symbol, quantity in quantities.items()}, "worst": worst}


def _wrong(exposure: Mapping[str, int], usage: RiskFigures) -> dict[str, tuple[int, int]]:
    """Return where usage and exposure differ: (used, actual) by symbol."""
    pairs = {s: (abs(usage.position.get(s, 0)), exposure.get(s, 0)) for s in {*exposure, *usage.position}}
    return {symbol: pair for symbol, pair in pairs.items() if pair[0] != pair[1]}


def _not_compared(usage: RiskFigures, limits: RiskFigures, before: RiskFigures) -> Iterable[Finding]:
    """Miss a usage that there is a limit of, or that was stated before the fault."""
    for field in ("gross_notional", "concentration_pct"):
        wanted = getattr(limits, field) is not None or getattr(before, field) is not None
        if wanted and getattr(usage, field) is None:
            yield unknown("not-compared", f"{field}: the target does not state its usage", field=field)


def _capital(facts: Facts, risk: Risk, usage: RiskFigures, exposure: Mapping[str, int]) -> Iterable[Finding]:
    """Gross notional and concentration, at marks of the target that are held against the exchange's."""
    counted = {symbol: quantity for symbol, quantity in exposure.items() if quantity}
    pnl = optional(facts, "pnl", Pnl)
    stated = {s: one.mark for s, one in pnl.by_symbol.items() if s in counted and one.mark} if pnl else {}
    yield from market.marks(facts, stated, "pnl")
    marks = {**market.middles(facts, counted.keys() - stated.keys()), **stated}
    if unmarked := sorted(counted.keys() - marks.keys()):
        text = f"no price for {', '.join(unmarked)}: gross notional not recomputed"
        yield unknown("capital-not-recomputed", text)
        return
    values = {symbol: quantity * marks[symbol] for symbol, quantity in counted.items()}
    gross = sum(values.values())
    used, limit = usage.gross_notional, risk.limits.gross_notional
    if used is not None and abs(used - gross) > NOTIONAL_TOLERANCE * max(abs(used), gross):
        yield fail("risk-usage-wrong", f"gross notional: usage {used:,.0f} ticks, recomputed {gross:,.0f}")
    if limit is not None and gross > limit:
        yield fail("capital-limit", f"gross notional {gross:,.0f} ticks exceeds {limit:,.0f}")
    if gross:
        yield from _concentration(risk.limits, usage, 100 * max(values.values()) / gross, gross)


def _concentration(
    limits: RiskFigures, usage: RiskFigures, share_pct: float, gross: float
) -> Iterable[Finding]:
    """Hold the largest symbol's share against the limit, where the book is large enough for it."""
    used, limit = usage.concentration_pct, limits.concentration_pct
    if used is not None and abs(used - share_pct) > SHARE_TOLERANCE_PCT:
        yield fail("risk-usage-wrong", f"concentration: usage {used:.1f} %, recomputed {share_pct:.1f} %")
    if limit is None or share_pct <= limit + ROUNDING_PCT:
        return
    text = f"one symbol is {share_pct:.1f} % of the gross notional, limit {limit:g} %"
    if limits.concentration_from is not None and gross <= limits.concentration_from:
        small = f"in force above {limits.concentration_from:,.0f} ticks, gross notional is {gross:,.0f}"
        yield remark("concentration-not-in-force", f"{text}, {small}")
    else:
        yield fail("concentration-limit", text)
