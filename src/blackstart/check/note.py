"""The short note beside a trial, computed from its history, never written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.model.match import matches, reach
from blackstart.model.record import OracleSeen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts


def note(facts: Facts) -> str:
    """Return what the trigger's event really said, and which objectives the manifest loosened."""
    return " · ".join(part for part in (_trigger(facts), *_relaxed(facts)) if part)


def _relaxed(facts: Facts) -> Iterable[str]:
    """Say which objectives are wider than the scenario's: a PASS against them is not its PASS."""
    own = facts.plan.stated or facts.plan.scenario.objectives
    for name in own.__struct_fields__:
        now, stated = getattr(facts.objectives, name), getattr(own, name)
        if now > stated:
            yield f"{name} relaxed to {now:,g} (scenario: {stated:,g})"


def _trigger(facts: Facts) -> str:
    seen = trigger_event(facts)
    if seen is None:
        return ""
    filled, left = reach(seen.fields, "cum_quantity"), reach(seen.fields, "leaves_quantity")
    if seen.event == "fill" and isinstance(filled, int) and isinstance(left, int):
        return f"{_filled_at(facts, seen, filled)} of {filled + left} filled"
    return f"on {seen.event}"


def trigger_event(facts: Facts) -> OracleSeen | None:
    """Return the oracle's event that set the fault off: the last one before t0 that is like the trigger."""
    trigger, t0 = facts.plan.scenario.trigger, facts.t0_ns
    if trigger.at != "oracle" or t0 is None:
        return None
    test = matches(trigger.where)
    found = [
        e for e in facts.all(OracleSeen) if e.event == trigger.event and e.mono_ns <= t0 and test(e.fields)
    ]
    return found[-1] if found else None


def _filled_at(facts: Facts, seen: OracleSeen, filled: int) -> int:
    """Return that order's filled quantity at t0: the exchange may have gone on until then."""
    key, t0 = reach(seen.fields, "cl_ord_id"), facts.t0_ns
    assert t0 is not None
    later = [
        quantity
        for event in facts.all(OracleSeen)
        if event.event == "fill" and event.mono_ns <= t0 and reach(event.fields, "cl_ord_id") == key
        if isinstance(quantity := reach(event.fields, "cum_quantity"), int)
    ]
    return max([filled, *later])
