"""Whether what was asked to stop ended in order (R24).

A process that merely dies of the signal was not shut down.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from blackstart.model.record import Injected, Witnessed
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts
    from blackstart.model.manifest import Manifest

ASKING = "terminate"
"""The kind of fault that asks for an orderly stop."""


def applies(facts: Facts) -> bool:
    """Whether anything was to be asked to stop."""
    return any(step.kind == ASKING for step in facts.plan.faults)


def check(facts: Facts) -> CheckResult:
    """Compare the exit statuses, as far as they were seen, with those of an orderly end (`stop_status`)."""
    return conclude("ending", _findings(facts))


def orderly(manifest: Manifest, component: str) -> tuple[int, ...]:
    """Return the exit statuses of a component's orderly end: its own, those of its process, else 0."""
    spec = manifest.components.get(component)
    process = manifest.processes.get(spec.process) if spec and spec.process else None
    if spec and spec.stop_status is not None:
        return spec.stop_status
    return process.stop_status if process else (0,)


def _findings(facts: Facts) -> Iterable[Finding]:
    evidence = {one.step: one.witness.evidence for one in facts.all(Witnessed) if one.witness.bit is True}
    for injected in facts.all(Injected):
        if injected.receipt.fault == ASKING:
            for name in injected.receipt.hit:
                status = (evidence.get(injected.step, {}).get(name) or {}).get("status")
                yield _finding(name, status, orderly(facts.manifest, name))


def _finding(name: str, status: int | None, wanted: tuple[int, ...]) -> Finding:
    expected = " or ".join(map(str, wanted))
    if status is None:
        who = "only its parent or manager could tell"
        text = f"{name}: how it ended was not seen ({who}), so {expected} was not looked for"
        return Finding(verdict=Verdict.PASS, code="end-not-seen", text=text)
    data = {"component": name, "status": status}
    if status in wanted:
        text = f"{name} ended with status {status}"
        return Finding(verdict=Verdict.PASS, code="ended-in-order", text=text, data=data)
    how = f"died of {_signal(-status)}" if status < 0 else f"ended with status {status}"
    text = f"{name} was asked to stop and {how}: an orderly end is {expected} (`stop_status` of the manifest)"
    return Finding(verdict=Verdict.FAIL, code="not-ended-in-order", text=text, data=data)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
