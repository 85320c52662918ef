"""Whether a crash came in the end-of-day processing, and the day is settled once, and as it was (R37).

What the target settled is compared with what the oracle executed until its own settlement phase began: the
positions exactly, what was realised at average cost with the tolerance of `pnl_tolerance`. The target's word
for it is its document `settlements` (docs/reference/state-documents.md).

A crash before the settlement began, or after it was durable, shows nothing of a crash in it: UNKNOWN.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from blackstart.check.validators import truth
from blackstart.check.validators.documents import UnreadError, document, fail, remark, unknown, validator
from blackstart.check.validators.pnl import TICKS_PER_UNIT
from blackstart.check.validators.shapes import Number  # noqa: TC001 - msgspec reads the annotation
from blackstart.model.match import matches
from blackstart.model.record import OracleSeen, SignalSeen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from blackstart.check.facts import Facts
    from blackstart.model.verdict import Finding

DOCUMENT = "settlements"
PHASE = {"phase": "settlement"}
"""The oracle's event `phase` with these fields begins a settlement."""


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """A day that the target has settled: positions carried over, and what was realised in it (ticks)."""

    day: int | str
    positions: dict[str, int]
    by_symbol: dict[str, Number] | None = None
    realised: Number | None = None


class Settlements(msgspec.Struct, frozen=True, kw_only=True):
    """The document `settlements`."""

    settlements: list[Settled]


@validator("settlement")
def check(facts: Facts) -> Iterable[Finding]:
    """Judge the moment of the crash, then what was settled."""
    yield from _moment(facts)
    if (why := facts.manifest.not_applicable.get(DOCUMENT)) is not None:
        yield remark("settlement-not-applicable", f"what was settled is not compared: {why}")
        return
    days = document(facts, DOCUMENT, Settlements).settlements
    began = _begun(facts)
    if not began:
        raise UnreadError("nothing-to-compare", "the oracle told of no settlement: nothing was shown")
    yield from _once(facts, days, began)
    executions = truth.fills(facts)
    if executions is None:
        raise UnreadError("nothing-to-compare", "no stream of executions to compute the settlement from")
    for day, until_ns in began.items():
        upto = days[: 1 + max((k for k, one in enumerate(days) if one.day == day), default=-1)]
        if upto:
            yield from _content(facts, upto, [one for one in executions if _before(one, until_ns)])


def _moment(facts: Facts) -> Iterable[Finding]:
    """See that the fault came when the settlement had begun and was not durable yet."""
    t0 = facts.t0_ns
    if t0 is None:
        return  # the check of the fault tells
    begun, finished = _told(facts, "settlement-started"), _told(facts, "settlement-finished")
    last = max((ns for ns in begun if ns <= t0), default=None)
    if last is None:
        yield unknown("not-in-settlement", "nobody told that a settlement had begun before the fault")
    elif any(last <= ns <= t0 for ns in finished):
        yield unknown("not-in-settlement", "the settlement was over before the fault")
    elif any(ns > t0 for ns in _told(facts, "settlement-found")):
        yield unknown("not-in-settlement", "the settlement was durable before the fault: it was found done")
    else:
        text = f"the fault came {(t0 - last) / 1e6:.1f} ms into a settlement that was not durable yet"
        yield remark("in-settlement", text)


def _told(facts: Facts, sign: str) -> list[int]:
    signs = [(one.event, matches(one.where)) for one in facts.manifest.told(sign)]
    return [
        seen.mono_ns
        for seen in facts.all(SignalSeen)
        if any(seen.event == event and test(seen.fields) for event, test in signs)
    ]


def _begun(facts: Facts) -> dict[int | str, int]:
    """Return when each day's settlement began at the oracle."""
    test = matches(PHASE)
    seen = [one for one in facts.all(OracleSeen) if one.event == "phase" and test(one.fields)]
    return {one.fields["day"]: one.mono_ns for one in seen if "day" in one.fields}


def _once(facts: Facts, days: Sequence[Settled], began: Mapping[int | str, int]) -> Iterable[Finding]:
    """Fail days that were settled twice, not at all, or that the exchange did not settle in this trial."""
    try:
        former = {one.day for one in document(facts, DOCUMENT, Settlements, moment="before").settlements}
    except UnreadError:
        former = set()
    for day, count in Counter(one.day for one in days).items():
        if count > 1:
            yield fail("settled-twice", f"day {day} is settled {count} times", day=day, count=count)
        if day not in began and day not in former:
            yield fail(
                "settled-unasked", f"day {day} is settled, and the exchange did not settle it", day=day
            )
    for day in began:
        if day not in {one.day for one in days}:
            yield fail("not-settled", f"day {day} is not settled, and the exchange has settled it", day=day)


def _before(fill: truth.Fill, until_ns: int) -> bool:
    if fill.mono_ns is None:
        raise UnreadError(
            "nothing-to-compare", "the oracle does not say when it executed: of which day is it?"
        )
    return fill.mono_ns <= until_ns


def _content(facts: Facts, upto: Sequence[Settled], executions: Sequence[truth.Fill]) -> Iterable[Finding]:
    """Compare the last of these days' positions, and what all of them realised, with the executions."""
    day, held = upto[-1], truth.holdings(executions)
    if not held:
        yield unknown("nothing-to-compare", f"day {day.day}: nothing was executed: nothing was shown")
    wrong = False
    for symbol in sorted(day.positions.keys() | held.keys()):
        ours, theirs = day.positions.get(symbol, 0), held[symbol].quantity if symbol in held else 0
        if ours != theirs:
            wrong = True
            text = f"day {day.day}, {symbol}: settled {ours:,}, the exchange's executions sum to {theirs:,}"
            yield fail("settled-position", text, symbol=symbol, settled=ours, exchange=theirs)
    stated, found = _realised(upto), {symbol: one.realised for symbol, one in held.items()}
    if stated is None:
        yield unknown("not-compared", f"day {day.day}: what was realised is not stated")
        return
    tolerance = facts.objectives.pnl_tolerance * TICKS_PER_UNIT
    for name in sorted(stated.keys() | (found.keys() if "" not in stated else set())):
        computed = found.get(name, 0.0) if name else sum(found.values())
        if abs(stated.get(name, 0) - computed) > tolerance:
            wrong = True
            a, b = (value / TICKS_PER_UNIT for value in (stated.get(name, 0), computed))
            text = f"day {day.day}, {name or 'all symbols'}: settled profit {a:,.2f}, recomputed {b:,.2f}"
            yield fail("settled-profit", text, symbol=name)
    if not wrong:
        text = (
            f"day {day.day}: {len(held)} positions of {len(executions):,} executions, and their profit, agree"
        )
        yield remark("settled-as-executed", text)


def _realised(days: Sequence[Settled]) -> dict[str, Number] | None:
    """Sum over days what was realised by symbol; only as a whole (`""`) where a day states no more."""
    if all(one.by_symbol is not None for one in days):
        total: dict[str, Number] = {}
        for one in days:
            for symbol, realised in (one.by_symbol or {}).items():
                total[symbol] = total.get(symbol, 0) + realised
        return total
    if any(one.realised is None and one.by_symbol is None for one in days):
        return None
    return {"": sum(_whole(one) for one in days)}


def _whole(day: Settled) -> Number:
    return day.realised if day.realised is not None else sum((day.by_symbol or {}).values())
