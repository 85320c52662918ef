"""The order of things: validated before traded; nothing old executed late (ANCHORS, trading)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from blackstart.check.hiccup import recovers
from blackstart.check.rto import first_return
from blackstart.check.service import FACTOR, epoch_of
from blackstart.check.stamps import candidates, last_notice
from blackstart.check.validators.documents import optional
from blackstart.check.validators.shapes import Orders
from blackstart.model.instant import StampName
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blackstart.check.facts import Facts
    from blackstart.check.service import Event
    from blackstart.model.outcome import Rto

STALE_NS = 1_000_000_000
NAMED = 5
LISTED = 100


def check(facts: Facts, rto: Rto) -> CheckResult:
    """Look for trading before validation, and for old orders that went out long after the failure."""
    return conclude("order", [*_before_validated(facts, rto), *_stale(facts, rto)])


def _before_validated(facts: Facts, rto: Rto) -> Iterable[Finding]:
    """Find orders that reached the oracle after the response and before the first validation after it.

    Exempt is only what was in flight (`_drained`), never because of what it looks like: a session layer
    that sends old orders again trades before validation as well. Where the service was to go on (`goes_on`),
    what came before its first interruption was resumed by nobody; a hiccup of a busy host is no interruption.
    There, and where the fault ends no part (`degrades`), a silence until whose end nobody told of an end, a
    response or a recovery left nothing to validate.
    """
    spec = facts.manifest.services.get(facts.plan.service)
    since = rto.stamps.get(StampName.RESPONDED.value) or rto.stamps.get(StampName.RESUMED.value)
    if since is None or spec is None or spec.source != "oracle":
        return
    went_on_ns = _went_on_ns(facts, rto)
    if went_on_ns is None:
        return  # nothing was resumed
    validated = candidates(facts, "validated", not_before_ns=since.mono_ns)
    if not validated:
        return
    until, drained = validated[0].mono_ns, _drained(facts, rto, since.mono_ns)
    begin = max(since.mono_ns, went_on_ns)
    early = sorted(e for e in facts.service_events() if begin <= e[0] - e[2] and e[0] < until)
    new = [e for e in early if e[0] >= drained or _later_epoch(e[1], facts, rto)]
    if new:
        text = f"{len(new)} order(s) up to {(until - new[0][0]) / 1e6:,.1f} ms before the state was validated"
        yield _named(Verdict.FAIL, "traded-before-validated", text, new)
    if len(new) < len(early):
        flown = [e for e in early if e not in set(new)]
        text = f"{len(flown)} order(s) in flight arrived after the response, before the old path was drained"
        yield _named(Verdict.PASS, "in-flight", text, flown)


def _went_on_ns(facts: Facts, rto: Rto) -> int | None:
    """Return until when orders were no resumption; None where that is all of them."""
    scenario = facts.plan.scenario
    if not scenario.goes_on and not scenario.degrades:
        return 0
    back = first_return(facts)
    if back is None:
        return None if scenario.goes_on else 0
    told = recovers(facts, rto.stamps[StampName.FAILURE.value], back[0])
    if not told and not any(_later_epoch(key, facts, rto) for _, key, _ in facts.service_events()):
        return None
    return back[0] if scenario.goes_on else 0


def _drained(facts: Facts, rto: Rto, since_ns: int) -> int:
    """Return until when orders from before the response can still arrive.

    Every part of the target acts on its own notice of the failure, and what it sent until then may be under
    way as long as no interruption is seen: the last notice plus three times the usual 99th percentile of the
    gaps (the machine may hold up oracle and target alike), but never beyond the first recovery, for from then
    on there is somebody new who can send.
    """
    t0 = rto.stamps[StampName.FAILURE.value].mono_ns
    recovered = [s.mono_ns for s in candidates(facts, "recovered", not_before_ns=since_ns)][:1]
    notice = last_notice(facts, t0, recovered[0] if recovered else since_ns)
    return min([max(since_ns, notice) + FACTOR * (rto.usual_gap_ns or 0), *recovered])


def _later_epoch(key: str, facts: Facts, rto: Rto) -> bool:
    """Say whether the key is of an epoch later than all before t0."""
    old, mine = _old_epoch(facts, rto), _epoch(facts, key)
    return old is not None and mine is not None and mine > old


def _old_epoch(facts: Facts, rto: Rto) -> int | None:
    t0 = rto.stamps[StampName.FAILURE.value].mono_ns
    known = (_epoch(facts, key) for mono, key, _ in facts.service_events() if mono <= t0)
    return max((epoch for epoch in known if epoch is not None), default=None)


def _epoch(facts: Facts, key: str) -> int | None:
    spec = facts.manifest.services.get(facts.plan.service)
    return epoch_of(spec.epoch, key) if spec and spec.epoch else None


def _named(verdict: Verdict, code: str, text: str, events: Sequence[Event]) -> Finding:
    keys = [key for _, key, _ in events]
    names = ", ".join(keys[:NAMED]) + (" …" if len(keys) > NAMED else "")
    data = {"count": len(keys), "keys": keys[:LISTED]}
    return Finding(verdict=verdict, code=code, text=f"{text} ({names})", data=data)


def _stale(facts: Facts, rto: Rto) -> Iterable[Finding]:
    """Find orders made before t0 that were accepted after t2 and more than a second late.

    How old an order is shows in two ways. The target's document `orders` may say when it was made
    (`created_mono_ns`). And an order of the old epoch cannot be younger than the takeover: the first event of
    a later epoch; so much at least is known without the target's help.
    """
    t0, t2 = rto.stamps.get(StampName.FAILURE.value), rto.stamps.get(StampName.RESPONDED.value)
    if t0 is None or t2 is None:
        return
    made = {**_taken_over(facts, rto), **_created(facts)}
    late = [
        _Late(key, mono - made[key])
        for mono, key, _ in facts.service_events()
        if key in made and made[key] < mono - STALE_NS and mono > t2.mono_ns
    ]
    if late:
        worst = max(one.age_ns for one in late) / 1e9
        names = ", ".join(one.key for one in late[:NAMED])
        text = f"{len(late)} order(s) from before the failure went out up to {worst:.1f} s stale ({names})"
        yield Finding(
            verdict=Verdict.FAIL, code="stale-orders", text=text, data={"orders": [o.key for o in late]}
        )


def _created(facts: Facts) -> dict[str, int]:
    """When each order from before t0 was made, where the target says so."""
    orders, t0 = optional(facts, "orders", Orders), facts.t0_ns
    if orders is None or t0 is None:
        return {}
    made = {o.cl_ord_id: o.created_mono_ns for o in orders.orders if o.created_mono_ns is not None}
    return {key: ns for key, ns in made.items() if ns < t0}


def _taken_over(facts: Facts, rto: Rto) -> dict[str, int]:
    """When each order of the old epoch that came in after the takeover was made at the latest."""
    old = _old_epoch(facts, rto)
    if old is None:
        return {}
    epochs = [(mono, key, epoch) for mono, key, _ in facts.service_events() if (epoch := _epoch(facts, key))]
    later = min((mono for mono, _, epoch in epochs if epoch > old), default=None)
    if later is None:
        return {}
    return {key: later for mono, key, epoch in epochs if epoch <= old and mono > later}


class _Late(msgspec.Struct, frozen=True):
    key: str
    age_ns: int
