"""P&L recomputed from executions, whole and by symbol, $100 tolerance by default (R54, source document 7.2).

Two independent ways: total = cash + quantity x mark, which needs no order of events, and realised
profit at average cost, in the order in which the target booked. The marks are the target's, and must be
prices that the exchange had around the reading. Prices and money are in ticks of 0.0001.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from blackstart.check.validators import market, truth
from blackstart.check.validators.documents import UnreadError, document, fail, remark, unknown, validator
from blackstart.check.validators.shapes import Pnl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blackstart.check.facts import Facts
    from blackstart.model.verdict import Finding

TICKS_PER_UNIT = 10_000


@validator("pnl")
def check(facts: Facts) -> Iterable[Finding]:
    """Compare what the target states with what its executions earned."""
    pnl = document(facts, "pnl", Pnl)
    tolerance = facts.objectives.pnl_tolerance * TICKS_PER_UNIT
    figures = [pnl.realised, pnl.unrealised, pnl.total]
    figures += [figure for one in pnl.by_symbol.values() for figure in (one.realised, one.unrealised)]
    if not all(isfinite(figure) for figure in figures):
        yield fail("pnl-not-finite", "profit and loss is not a finite number")
        return
    if abs(pnl.realised + pnl.unrealised - pnl.total) > tolerance:
        yield fail("pnl-does-not-add-up", "realised and unrealised do not sum to the total")
    held = _held(facts)
    yield from _total(pnl, held, tolerance)
    yield from _by_symbol(pnl, held, tolerance, recomputed=truth.fills(facts) is not None)
    valued = {s: one.mark for s, one in pnl.by_symbol.items() if s in held and held[s].quantity}
    yield from market.marks(facts, {s: mark for s, mark in valued.items() if mark}, "pnl")
    if truth.fills(facts) is None:
        yield remark("realised-not-recomputed", "no stream of executions: only the total was recomputed")
    else:
        realised = sum(holding.realised for holding in held.values())
        yield from _differs("realised profit", pnl.realised, realised, tolerance)


def _held(facts: Facts) -> dict[str, truth.Holding]:
    """Return holdings from the executions, without such a stream from the exchange's statement of cash."""
    executions = truth.fills(facts)
    if executions is not None:
        return truth.holdings(executions)
    stated = truth.positions(facts)
    if any(position.cash is None for position in stated.values()):
        raise UnreadError("not-read", "the exchange states no cash and there is no stream of executions")
    return {s: truth.Holding(quantity=p.quantity, cash=p.cash or 0) for s, p in stated.items()}


def _total(pnl: Pnl, held: Mapping[str, truth.Holding], tolerance: float) -> Iterable[Finding]:
    if not held:
        yield unknown("nothing-to-compare", "there was no execution: nothing was shown")
    total = 0.0
    for symbol, holding in held.items():
        stated = pnl.by_symbol.get(symbol)
        mark = stated.mark if stated else None
        if holding.quantity and (mark is None or not isfinite(mark) or mark <= 0):
            yield unknown("no-mark", f"{symbol}: no price to value {holding.quantity:,} at", symbol=symbol)
            return
        total += holding.cash + holding.quantity * (mark or 0)
    yield from _differs("total profit", pnl.total, total, tolerance)


def _by_symbol(
    pnl: Pnl, held: Mapping[str, truth.Holding], tolerance: float, *, recomputed: bool
) -> Iterable[Finding]:
    """Compare each symbol's figures with the exchange's: errors of two symbols may cancel out in a sum."""
    for symbol, stated in sorted(pnl.by_symbol.items()):
        holding = held.get(symbol) or truth.Holding()
        if stated.quantity is not None and stated.quantity != holding.quantity:
            text = f"{symbol}: profit and loss of {stated.quantity:,}, at the exchange {holding.quantity:,}"
            yield fail("pnl-quantity", text, symbol=symbol)
        if recomputed:
            yield from _differs(f"{symbol}: realised profit", stated.realised, holding.realised, tolerance)
        if not holding.quantity or stated.mark:
            total = holding.cash + holding.quantity * (stated.mark or 0)
            said = stated.realised + stated.unrealised
            yield from _differs(f"{symbol}: total profit", said, total, tolerance)
    if missing := sorted(held.keys() - pnl.by_symbol.keys()):
        text = (
            f"{', '.join(missing)}: traded, and not stated by symbol; so the symbols' figures were not summed"
        )
        yield remark("not-compared", text, symbols=missing)
        return
    for what, whole in (("realised", pnl.realised), ("unrealised", pnl.unrealised)):
        parts = sum(getattr(one, what) for one in pnl.by_symbol.values())
        if abs(parts - whole) > tolerance:
            yield fail(
                "pnl-does-not-add-up", f"{what} by symbol does not sum to the whole: {parts:,} {whole:,}"
            )
    if silent := sorted(symbol for symbol, one in pnl.by_symbol.items() if one.quantity is None):
        yield remark("not-compared", f"{', '.join(silent)}: no quantity stated", symbols=silent)


def _differs(what: str, stated: float, computed: float, tolerance: float) -> Iterable[Finding]:
    if abs(stated - computed) > tolerance:
        a, b = (value / TICKS_PER_UNIT for value in (stated, computed))
        yield fail(
            "pnl-mismatch", f"{what}: stated {a:,.2f}, recomputed {b:,.2f}", stated=stated, computed=computed
        )
