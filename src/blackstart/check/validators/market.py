"""What the oracle saw of the market around the final read, and the target's prices held against it.

Prices move: the oracle is read before and after the target, and a price of the target is right when it lies
between the lowest and the highest that the oracle had then, give or take `TOLERANCE`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.check.validators.documents import UnreadError, fail, raw, shaped, unknown
from blackstart.check.validators.shapes import Number, OracleQuote, Quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from blackstart.check.facts import Facts
    from blackstart.model.verdict import Finding

TOLERANCE = 0.005
Market = dict[str, OracleQuote]


def around(facts: Facts, name: str) -> list[Market]:
    """Return what the oracle said before and after the target's document was read. Raises UnreadError."""
    raw(facts, "market_data", side="oracle")
    _, read = raw(facts, name)
    found = [one for one in facts.states("oracle", "market_data") if one.error is None]
    stamps = [one.mono_ns for one in found]
    if not min(stamps) <= read.mono_ns <= max(stamps):
        text = f"the oracle's market was not read both before and after the target's document '{name}'"
        raise UnreadError("market-not-read", text)
    return [shaped(one.document, Market, "oracle document 'market_data'") for one in found]


def listed(facts: Facts) -> set[str]:
    """Return the symbols that the oracle's market names at any reading."""
    found = [one.document for one in facts.states("oracle", "market_data") if one.error is None]
    return {symbol for document in found if isinstance(document, dict) for symbol in document}


def marks(facts: Facts, stated: Mapping[str, Number], name: str) -> Iterable[Finding]:
    """Compare the marks of a document with bid, ask and last trade at the exchange."""
    if not stated:
        return
    seen = around(facts, name)
    for symbol, mark in sorted(stated.items()):
        quotes = [market[symbol] for market in seen if symbol in market]
        prices = [p for one in quotes for p in (one.bid, one.ask, one.last) if p]
        if not prices:
            text = f"{symbol}: the exchange has no price to compare the mark with"
            yield unknown("mark-not-compared", text, symbol=symbol)
        elif not _within(mark, prices):
            text = f"{symbol}: marked at {mark:,.0f} ticks, {_said(prices)}"
            yield fail("mark-off-market", text, symbol=symbol, mark=mark, prices=sorted(set(prices)))


def middles(facts: Facts, symbols: Iterable[str]) -> dict[str, Number]:
    """Return what the oracle would value symbols at: the middle of the book, else the last trade."""
    wanted = set(symbols)
    if not wanted or facts.state("oracle", "market_data") is None:
        return {}
    found, _ = raw(facts, "market_data", side="oracle")
    told = shaped(found, Market, "oracle document 'market_data'")
    values = {s: (q.bid + q.ask) / 2 if q.bid and q.ask else q.last for s, q in told.items() if s in wanted}
    return {symbol: value for symbol, value in values.items() if value}


def quotes(facts: Facts, stated: Sequence[Quote]) -> Iterable[Finding]:
    """Compare best bid and ask with the exchange's."""
    seen = around(facts, "market_data")
    for quote in stated:
        there = [market[quote.symbol] for market in seen if quote.symbol in market]
        if not there or not (quote.bid or quote.ask):
            who = "the target states no price" if there else "the exchange does not have it"
            yield unknown("price-not-compared", f"{quote.symbol}: {who}", symbol=quote.symbol)
            continue
        yield from _side(quote.symbol, "bid", quote.bid, [one.bid for one in there])
        yield from _side(quote.symbol, "ask", quote.ask, [one.ask for one in there])


def _side(symbol: str, side: str, ours: Number | None, theirs: Sequence[Number | None]) -> Iterable[Finding]:
    """Compare one side of a book; a side that was empty at one of the readings may be empty."""
    prices = [price for price in theirs if price]
    if ours and prices and _within(ours, prices):
        return
    if not ours and len(prices) < len(theirs):
        return
    text = f"{symbol}: {side} {f'{ours:,.0f} ticks' if ours else 'none'}, {_said(prices)}"
    yield fail("price-off-market", text, symbol=symbol, side=side)


def _within(price: Number, prices: Sequence[Number]) -> bool:
    return min(prices) * (1 - TOLERANCE) <= price <= max(prices) * (1 + TOLERANCE)


def _said(prices: Sequence[Number]) -> str:
    if not prices:
        return "at the exchange none"
    return f"at the exchange {min(prices):,.0f} to {max(prices):,.0f} around the reading"
