"""Strategy: initialised, indicators finite, and not begun anew (R54, source document 7.2).

After a cold restart nothing is there to continue from: fewer samples than before are then a remark,
not a failure.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from blackstart.check.validators.documents import document, earlier, fail, remark, unknown, validator
from blackstart.check.validators.shapes import Indicator, Strategy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts
    from blackstart.model.verdict import Finding


JUMP_FACTOR = 100
"""No strategy takes in a second more than so many times the samples that it had taken in all before."""
Indicators = dict[tuple[str, str], Indicator]


@validator("strategy")
def check(facts: Facts) -> Iterable[Finding]:
    """Look at the indicators, and compare their samples with those before the fault."""
    strategy = document(facts, "strategy", Strategy)
    before = yield from earlier(facts, "strategy", Strategy)
    if not strategy.initialised:
        yield fail("not-initialised", "the strategy is not initialised")
    if not strategy.indicators:
        yield unknown("nothing-to-compare", "the strategy names no indicators")
    if before is None:
        return
    old = {(one.symbol, one.name): one for one in before.indicators}
    now = {(one.symbol, one.name): one for one in strategy.indicators}
    for key in sorted(old.keys() - now.keys()):
        yield fail("indicator-missing", f"{' '.join(key)}: was there before the fault")
    yield from _as_a_whole(old, now, cold=facts.plan.scenario.recovery == "cold")
    yield from _jumped(old, now, _apart_s(facts))
    for key, indicator in now.items():
        yield from _indicator(indicator, old.get(key), cold=facts.plan.scenario.recovery == "cold")


def _as_a_whole(old: Indicators, now: Indicators, *, cold: bool) -> Iterable[Finding]:
    """Doubt indicators that all stand at zero, or of which none took a sample since before the fault."""
    common = old.keys() & now.keys()
    if common and all(now[key].value == 0 for key in common) and any(old[key].value for key in common):
        yield unknown("indicators-zero", "every indicator is exactly 0, and not all were before the fault")
    counted = [key for key in common if old[key].samples or now[key].samples]
    if not cold and counted and all(now[key].samples == old[key].samples for key in counted):
        yield unknown("indicators-frozen", "no indicator took a sample since before the fault")


def _apart_s(facts: Facts) -> float:
    """Return how long after the document from before the fault the present one was read."""
    first, last = (facts.state("target", "strategy", moment=moment) for moment in ("before", "after"))
    return (last.mono_ns - first.mono_ns) / 1e9 if first and last else 0.0


def _jumped(old: Indicators, now: Indicators, apart_s: float) -> Iterable[Finding]:
    """Doubt counts that no stream of prices can have brought about in the time between: a turned bit can."""
    for key in sorted(old.keys() & now.keys()):
        most = JUMP_FACTOR * (old[key].samples + JUMP_FACTOR) * max(1.0, apart_s)
        if now[key].samples > most:
            text = f"{' '.join(key)}: {now[key].samples:,} samples, {old[key].samples:,} before the fault"
            yield unknown("indicator-jumped", f"{text}, {apart_s:,.0f} s earlier")


def _indicator(now: Indicator, old: Indicator | None, *, cold: bool) -> Iterable[Finding]:
    name = f"{now.symbol} {now.name}"
    had_value = old is None or old.value is not None
    if now.value is None and had_value:
        yield fail("indicator-invalid", f"{name}: has no value")
    elif now.value is not None and not isfinite(now.value):
        yield fail("indicator-invalid", f"{name}: {now.value}")
    if old is not None and now.samples < old.samples:
        say = remark if cold else fail
        yield say("indicator-reset", f"{name}: {now.samples} samples, {old.samples} before the fault")
