"""Strategy: initialised, indicators finite, and not begun anew (R54, source document 7.2).

After a cold restart nothing is there to continue from: fewer samples than before are then a remark,
not a failure.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from blackstart.check.validators.documents import document, fail, optional, remark, unknown, validator
from blackstart.check.validators.shapes import Indicator, Strategy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts
    from blackstart.model.verdict import Finding


@validator("strategy")
def check(facts: Facts) -> Iterable[Finding]:
    """Look at the indicators, and compare their samples with those before the fault."""
    strategy = document(facts, "strategy", Strategy)
    before = optional(facts, "strategy", Strategy, moment="before")
    if not strategy.initialised:
        yield fail("not-initialised", "the strategy is not initialised")
    if not strategy.indicators:
        yield unknown("nothing-to-compare", "the strategy names no indicators")
    if before is None:
        yield unknown("not-read", "no strategy document from before the fault to compare with")
        return
    old = {(one.symbol, one.name): one for one in before.indicators}
    now = {(one.symbol, one.name): one for one in strategy.indicators}
    for key in sorted(old.keys() - now.keys()):
        yield fail("indicator-missing", f"{' '.join(key)}: was there before the fault")
    for key, indicator in now.items():
        yield from _indicator(indicator, old.get(key), cold=facts.plan.scenario.recovery == "cold")


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
