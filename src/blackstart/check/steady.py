"""Steady and loaded when it was broken? Without load a recovery proves nothing (DESIGN section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.model.record import ServiceBatch
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from blackstart.check.facts import Facts
    from blackstart.model.manifest import Manifest

WINDOW_NS = 1_000_000_000


def check(facts: Facts) -> CheckResult:
    """See that the steady state was reached and that the load was on in the second in which it must be."""
    findings: list[Finding] = []
    if facts.stage("steady") is None:
        text = "the steady state was never reached"
        findings.append(Finding(verdict=Verdict.UNKNOWN, code="not-steady", text=text))
    rate, required = load_per_s(facts), required_per_s(facts)
    if load_service(facts) is None:
        text = no_carrier(facts.plan.service)
        findings.append(Finding(verdict=Verdict.UNKNOWN, code="no-load", text=text))
    elif rate is None:
        text = "load at the failure is not known: there was none"
        findings.append(Finding(verdict=Verdict.UNKNOWN, code="no-load", text=text))
    elif rate < required:
        place = "at t0" if facts.plan.scenario.load.before == "fault" else "before the preparation"
        text = f"no load {place} ({rate:.0f}/s, {required:.0f}/s required)"
        data = {"rate_per_s": rate, "required_per_s": required}
        findings.append(Finding(verdict=Verdict.UNKNOWN, code="no-load", text=text, data=data))
    return conclude("steady", findings)


def carrier(manifest: Manifest, service: str) -> str | None:
    """Return the service whose rate is the load; None when nobody but Blackstart itself asks.

    The answers of a probe are to our own questions and load nothing: where a workload's acknowledged
    writes are a service, these are the load.
    """
    spec = manifest.services.get(service)
    if spec is None or not spec.source.startswith("probe:"):
        return service
    if manifest.workload is None:
        return None
    return next((name for name, one in manifest.services.items() if one.source == "workload"), None)


def no_carrier(service: str) -> str:
    """Say that a service cannot carry the load, and what to do."""
    return (
        f"no load: `{service}` is a probe, and Blackstart's own questions are none; give the manifest a"
        ' [workload] and a service with source = "workload"'
    )


def load_service(facts: Facts) -> str | None:
    """Return the service that carries the load: as the conductor noted it, else the trial's own."""
    stage = facts.stage("steady")
    noted = stage.detail.get("service") if stage else None
    return carrier(facts.manifest, noted if isinstance(noted, str) else facts.plan.service)


def required_per_s(facts: Facts) -> float:
    """Return the load that must be on: the scenario's minimum, or the manifest's where that is higher."""
    spec = facts.manifest.services.get(load_service(facts) or "")
    return max(facts.plan.scenario.load.minimum_per_s, (spec.minimum_per_s if spec else None) or 0.0)


def load_per_s(facts: Facts) -> float | None:
    """Return how many events of the load's service came in the second in which the load must be on.

    None when that second is not known (without a t0), or when no service carries the load.
    """
    end, service = _load_until_ns(facts), load_service(facts)
    if end is None or service is None:
        return None
    events = (e for batch in facts.all(ServiceBatch) if batch.service == service for e in batch.events)
    return float(sum(end - WINDOW_NS <= mono < end for mono, _, _ in events))


def _load_until_ns(facts: Facts) -> int | None:
    if facts.plan.scenario.load.before == "fault":
        return facts.t0_ns
    preparing = facts.stage("preparing")
    return preparing.mono_ns if preparing else None
