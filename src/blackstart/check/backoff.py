"""Whether a component that crashed again and again was started again after growing pauses (R36).

A scenario that expects the sign `back-off` of a crash loop gets the target's word for it; this check has the
pauses themselves: from the kernel's notice of each death until the next one is struck, at its return.
"""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING, Any

from blackstart.model.record import Witnessed
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from blackstart.check.facts import Facts

KIND, SIGN = "crash_loop", "back-off"
_ENOUGH = 4
_FIRST = 2
"""So many pauses are the first ones: a back-off may be at its longest soon after."""
_GROWN = 1.5
"""So many times the median of the first ones is that of the later half, at the least."""
_NOISE_MS = 50.0
"""And so much longer: how long a process takes to start, and to be found, varies by less."""


def applies(facts: Facts) -> bool:
    """Whether a crash loop was to be answered by backing off, and the manifest does not rule that out."""
    expected = any(one.signal == SIGN for one in facts.plan.scenario.expect)
    ruled_out = isinstance(facts.manifest.signs.get(SIGN), str)
    return expected and not ruled_out and any(step.kind == KIND for step in facts.plan.faults)


def check(facts: Facts) -> CheckResult:
    """Compare the later pauses with the first ones."""
    return conclude("backoff", _findings(facts))


def _findings(facts: Facts) -> Iterable[Finding]:
    """Judge each component; a loop that did not come about, or of which nobody told, shows nothing."""
    loops = [one.witness for one in facts.all(Witnessed) if facts.plan.faults[one.step].kind == KIND]
    told = [(name, one) for loop in loops if loop.bit is True for name, one in loop.evidence.items()]
    for name, evidence in told:
        yield _finding(name, evidence)
    if not told:
        yield _unmeasured("no crash loop was witnessed, so nobody knows its pauses")


def _finding(name: str, evidence: Mapping[str, Any]) -> Finding:
    if evidence.get("started_by_blackstart"):
        text = f"{name}: Blackstart itself starts it again, so nobody could back off"
        return Finding(verdict=Verdict.PASS, code="back-off-not-applicable", text=text)
    pauses = _pauses(evidence.get("deaths", ()))
    if len(pauses) < _ENOUGH:
        text = f"{name}: {len(pauses)} pauses were measured, {_ENOUGH} at least tell whether they grow"
        return _unmeasured(text)
    early, late = statistics.median(pauses[:_FIRST]), statistics.median(pauses[-(len(pauses) // 2) :])
    said = f"started again after {', '.join(f'{one:,.0f}' for one in pauses)} ms"
    data = {"component": name, "pauses_ms": pauses}
    if late >= _GROWN * early:
        if late - early < _NOISE_MS:
            return _unmeasured(f"{name}: {said}: too short to tell growth from the noise of a start")
        return Finding(verdict=Verdict.PASS, code="backed-off", text=f"{name}: {said}", data=data)
    text = f"{name}: {said}: the pauses do not grow (median {early:,.0f} ms, later {late:,.0f} ms)"
    return Finding(verdict=Verdict.FAIL, code="no-back-off", text=text, data=data)


def _unmeasured(text: str) -> Finding:
    return Finding(verdict=Verdict.UNKNOWN, code="back-off-not-measured", text=text)


def _pauses(deaths: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the milliseconds from each death until there was a process again, which was killed at once."""
    return [
        (after["struck_mono_ns"] - before["struck_mono_ns"]) / 1e6 - before["noticed_after_ms"]
        for before, after in itertools.pairwise(deaths)
    ]
