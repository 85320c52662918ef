"""Positions: equal to the exchange's, cash too, and within limits (R54, source document 7.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.check.validators import truth
from blackstart.check.validators.documents import (
    document,
    fail,
    optional,
    remark,
    twice,
    unknown,
    validator,
)
from blackstart.check.validators.shapes import OraclePosition, Position, Positions, Risk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blackstart.check.facts import Facts
    from blackstart.model.verdict import Finding


@validator("positions")
def check(facts: Facts) -> Iterable[Finding]:
    """Compare what the target holds with what the exchange says, and the exchange with its own executions."""
    every = document(facts, "positions", Positions).positions
    yield from twice((position.symbol for position in every), "position in")
    held = {position.symbol: position for position in every}
    theirs = truth.positions(facts)
    if not theirs:
        yield unknown("nothing-to-compare", "the exchange holds no position: nothing was shown")
    for symbol in sorted(held.keys() | theirs.keys()):
        yield from _compare(symbol, held.get(symbol), theirs.get(symbol))
    yield from _cash_not_compared(facts, held, theirs)
    yield from _oracle_agrees(facts, theirs)
    yield from _limits(facts, held)


def _compare(symbol: str, ours: Position | None, theirs: OraclePosition | None) -> Iterable[Finding]:
    internal, exchange = (side.quantity if side else 0 for side in (ours, theirs))
    if internal != exchange:
        text = f"{symbol}: internal {internal:,}, exchange {exchange:,}"
        yield fail("position-mismatch", text, symbol=symbol, internal=internal, exchange=exchange)
    if ours and ours.cash is not None and theirs and theirs.cash is not None and ours.cash != theirs.cash:
        text = f"{symbol}: internal cash {ours.cash:,} ticks, exchange {theirs.cash:,}"
        yield fail("cash-mismatch", text, symbol=symbol, internal=ours.cash, exchange=theirs.cash)


def _cash_not_compared(
    facts: Facts, held: Mapping[str, Position], theirs: Mapping[str, OraclePosition]
) -> Iterable[Finding]:
    """Miss cash that one side states, or that the target stated before the fault."""
    before = optional(facts, "positions", Positions, moment="before")
    stated = {one.symbol for one in before.positions if one.cash is not None} if before else set[str]()
    ours = {symbol for symbol, one in held.items() if one.cash is not None}
    there = {symbol for symbol, one in theirs.items() if one.cash is not None}
    if lacking := sorted(((stated | there) & held.keys() - ours) | (ours & theirs.keys() - there)):
        text = f"cash of {', '.join(lacking)}: not stated on both sides"
        yield unknown("not-compared", text, symbols=lacking)


def _oracle_agrees(facts: Facts, stated: Mapping[str, OraclePosition]) -> Iterable[Finding]:
    """See that the truth agrees with itself, for otherwise it proves nothing."""
    executions = truth.fills(facts)
    if executions is None:
        yield remark("not-recomputed", "no stream of executions to recompute the exchange's positions from")
        return
    computed = {symbol: held.quantity for symbol, held in truth.holdings(executions).items()}
    for symbol in sorted(computed.keys() | stated.keys()):
        said = stated[symbol].quantity if symbol in stated else 0
        if computed.get(symbol, 0) != said:
            text = (
                f"{symbol}: the exchange states {said:,}, its executions sum to {computed.get(symbol, 0):,}"
            )
            yield unknown("oracle-inconsistent", text, symbol=symbol)


def _limits(facts: Facts, held: Mapping[str, Position]) -> Iterable[Finding]:
    risk = optional(facts, "risk", Risk)
    if risk is None:
        yield remark("limits-not-read", "no risk document: position limits were not compared")
        return
    for symbol, position in held.items():
        limit = risk.limits.position.get(symbol, risk.limits.position.get("*"))
        if limit is not None and abs(position.quantity) > limit:
            yield fail(
                "position-limit", f"{symbol}: position {position.quantity:,} exceeds {limit:,}", symbol=symbol
            )
