"""The order of things: validated before traded; nothing old executed late (ANCHORS, trading)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from blackstart.check.stamps import candidates
from blackstart.check.validators.documents import optional
from blackstart.check.validators.shapes import Orders
from blackstart.model.instant import StampName
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts
    from blackstart.model.outcome import Rto

STALE_NS = 1_000_000_000
NAMED = 5


def check(facts: Facts, rto: Rto) -> CheckResult:
    """Look for trading before validation, and for old orders that went out long after the failure."""
    return conclude("order", [*_before_validated(facts, rto), *_stale(facts, rto)])


def _before_validated(facts: Facts, rto: Rto) -> Iterable[Finding]:
    t0, t5 = rto.stamps.get(StampName.FAILURE.value), rto.stamps.get(StampName.RESUMED.value)
    if t0 is None or t5 is None or StampName.VALIDATED.value in rto.stamps:
        return
    found = candidates(facts, "validated", not_before_ns=t5.mono_ns)
    if found:
        early_ms = (found[0].mono_ns - t5.mono_ns) / 1e6
        text = f"service resumed {early_ms:,.1f} ms before the state was validated"
        yield Finding(verdict=Verdict.FAIL, code="traded-before-validated", text=text)


def _stale(facts: Facts, rto: Rto) -> Iterable[Finding]:
    """Find orders made before t0 that were accepted after t2 and more than a second late.

    Seen only where the target's document `orders` says when an order was made (`created_mono_ns`).
    """
    t0, t2 = rto.stamps.get(StampName.FAILURE.value), rto.stamps.get(StampName.RESPONDED.value)
    orders = optional(facts, "orders", Orders)
    if t0 is None or t2 is None or orders is None:
        return
    made = {o.cl_ord_id: o.created_mono_ns for o in orders.orders if o.created_mono_ns is not None}
    late = [
        _Late(key, mono - made[key])
        for mono, key, _ in facts.service_events()
        if key in made and made[key] < t0.mono_ns and mono > t2.mono_ns and mono - made[key] > STALE_NS
    ]
    if late:
        worst = max(one.age_ns for one in late) / 1e9
        names = ", ".join(one.key for one in late[:NAMED])
        text = f"{len(late)} order(s) from before the failure went out up to {worst:.1f} s stale ({names})"
        yield Finding(
            verdict=Verdict.FAIL, code="stale-orders", text=text, data={"orders": [o.key for o in late]}
        )


class _Late(msgspec.Struct, frozen=True):
    key: str
    age_ns: int
