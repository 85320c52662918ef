"""Market data: every symbol was updated less than a second before it was read (R54, source document 7.2).

And its prices are those of the exchange, for a stamp alone shows only that somebody renews stamps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.check.validators import market, truth
from blackstart.check.validators.documents import (
    ahead,
    document,
    earlier,
    fail,
    gone,
    raw,
    unknown,
    validator,
)
from blackstart.check.validators.shapes import MarketData

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts
    from blackstart.model.verdict import Finding

FRESH_NS = 1_000_000_000


@validator("market_data")
def check(facts: Facts) -> Iterable[Finding]:
    """Look for stale symbols, those that went missing, and stamps that cannot be."""
    symbols = document(facts, "market_data", MarketData).symbols
    _, read = raw(facts, "market_data")
    if not symbols:
        yield unknown("nothing-to-compare", "the target names no symbols")
    before = yield from earlier(facts, "market_data", MarketData)
    old = [quote.symbol for quote in before.symbols] if before else []
    yield from gone(old, [quote.symbol for quote in symbols], "symbol")
    for quote in symbols:
        if quote.last_update_mono_ns is None:
            yield fail("no-market-data", f"{quote.symbol}: never updated", symbol=quote.symbol)
            continue
        yield from ahead(quote.last_update_mono_ns, read.mono_ns, quote.symbol)
        age_ns = read.youngest_ns - quote.last_update_mono_ns
        if age_ns > FRESH_NS or quote.stale:
            text = f"{quote.symbol}: {age_ns / 1e9:.3f} s old{', flagged stale' if quote.stale else ''}"
            yield fail("stale-market-data", text, symbol=quote.symbol, age_ns=age_ns)
    yield from _untold(facts, {quote.symbol for quote in symbols})
    yield from market.quotes(facts, symbols)


def _untold(facts: Facts, told: set[str]) -> Iterable[Finding]:
    """Miss what was traded, and what the exchange has of the manifest's symbols (without any: all)."""
    traded = truth.traded(facts)
    for symbol in sorted(traded - told):
        yield fail("symbol-missing", f"{symbol}: was traded, and is not in the document", symbol=symbol)
    listed = market.listed(facts)
    ours = listed & set(facts.manifest.symbols) if facts.manifest.symbols else listed
    for symbol in sorted(ours - traded - told):
        text = f"{symbol}: the exchange has it, and it is not in the document"
        yield unknown("symbol-missing", text, symbol=symbol)
