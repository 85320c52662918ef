"""Steady and loaded when it was broken? Without load a recovery proves nothing (DESIGN section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.model.record import ServiceBatch
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from blackstart.check.facts import Facts

WINDOW_NS = 1_000_000_000


def check(facts: Facts) -> CheckResult:
    """See that the steady state was reached and that the load was on in the second before t0."""
    findings: list[Finding] = []
    if facts.stage("steady") is None:
        text = "the steady state was never reached"
        findings.append(Finding(verdict=Verdict.UNKNOWN, code="not-steady", text=text))
    rate, required = load_per_s(facts), required_per_s(facts)
    if rate is None:
        text = "load at the failure is not known: there was none"
        findings.append(Finding(verdict=Verdict.UNKNOWN, code="no-load", text=text))
    elif rate < required:
        text = f"no load at t0 ({rate:.0f}/s, {required:.0f}/s required)"
        data = {"rate_per_s": rate, "required_per_s": required}
        findings.append(Finding(verdict=Verdict.UNKNOWN, code="no-load", text=text, data=data))
    return conclude("steady", findings)


def load_service(facts: Facts) -> str:
    """Return the service that carries the load: as the conductor noted it, else the trial's own."""
    stage = facts.stage("steady")
    noted = stage.detail.get("service") if stage else None
    return noted if isinstance(noted, str) else facts.plan.service


def required_per_s(facts: Facts) -> float:
    """Return the load that must be on: the scenario's minimum, or the manifest's where that is higher."""
    spec = facts.manifest.services.get(load_service(facts))
    return max(facts.plan.scenario.load.minimum_per_s, (spec.minimum_per_s if spec else None) or 0.0)


def load_per_s(facts: Facts) -> float | None:
    """Return how many events of the load's service came in the last second before t0; None without a t0."""
    t0, service = facts.t0_ns, load_service(facts)
    if t0 is None:
        return None
    events = (e for batch in facts.all(ServiceBatch) if batch.service == service for e in batch.events)
    return float(sum(t0 - WINDOW_NS <= mono < t0 for mono, _, _ in events))
