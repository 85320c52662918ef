"""Who says when the target detected, responded, recovered and validated: candidates for t1 to t4.

For each stamp the best kind of source that says anything is taken, never a mixture of kinds:

1. what the target itself reported (`phases` of the manifest) and, where Blackstart is its operator
   (`restart = "blackstart"`), what that operator saw and did: death by pidfd, start, readiness;
2. what Blackstart deduced from outside: a death that it noticed though somebody else restarts, the
   readiness probe. These are marked *inferred*. There is no inferred t4: nothing seen from outside shows
   when a target had verified its own state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from blackstart.model.instant import Stamp, StampName
from blackstart.model.match import matches
from blackstart.model.record import ProbeChange, ProcessSeen, SignalSeen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from blackstart.check.facts import Facts
    from blackstart.model.manifest import Manifest

Phase = Literal["detected", "responded", "recovered", "validated"]

NAMES: dict[Phase, StampName] = {
    "detected": StampName.DETECTED,
    "responded": StampName.RESPONDED,
    "recovered": StampName.RECOVERED,
    "validated": StampName.VALIDATED,
}
DEEDS: dict[Phase, tuple[str, ...]] = {
    "detected": ("exited",),
    "responded": ("starting", "started"),
    "recovered": ("ready",),
    "validated": (),
}


def operated(manifest: Manifest, component: str) -> bool:
    """Say whether Blackstart is the operator that restarts this component (or process)."""
    spec = manifest.components.get(component)
    process = manifest.processes.get((spec.process if spec else None) or component)
    return process is not None and process.restart == "blackstart"


def candidates(facts: Facts, phase: Phase, *, not_before_ns: int) -> list[Stamp]:
    """Return the stamps for a phase from `not_before_ns` on, earliest first, of the best kind of source."""
    for source in (_reported, _deduced):
        found = [stamp for stamp in source(facts, phase) if stamp.mono_ns >= not_before_ns]
        if found:
            return sorted(found, key=lambda stamp: stamp.mono_ns)
    return []


def _reported(facts: Facts, phase: Phase) -> Iterable[Stamp]:
    yield from _signals(facts, phase)
    yield from _deeds(facts, phase, lambda component: operated(facts.manifest, component), inferred=False)


def _deduced(facts: Facts, phase: Phase) -> Iterable[Stamp]:
    yield from _deeds(facts, phase, lambda component: not operated(facts.manifest, component), inferred=True)
    yield from _readiness(facts, phase)


def _signals(facts: Facts, phase: Phase) -> Iterable[Stamp]:
    tests = [(match.event, matches(match.where)) for match in facts.manifest.phases.get(phase, ())]
    for signal in facts.all(SignalSeen):
        if any(signal.event == event and test(signal.fields) for event, test in tests):
            yield Stamp(name=NAMES[phase], mono_ns=signal.mono_ns, source=f"{signal.source}: {signal.event}")


def _deeds(facts: Facts, phase: Phase, mine: Callable[[str], bool], *, inferred: bool) -> Iterable[Stamp]:
    who = "seen from outside" if inferred else "operator"
    for seen in facts.all(ProcessSeen):
        if seen.what in DEEDS[phase] and mine(seen.component):
            yield Stamp(
                name=NAMES[phase],
                mono_ns=seen.mono_ns,
                source=f"{who}: {seen.component} {seen.what}",
                uncertainty_ns=seen.uncertainty_ns,
                inferred=inferred,
            )


def _readiness(facts: Facts, phase: Phase) -> Iterable[Stamp]:
    wanted = {"detected": False, "recovered": True}.get(phase)
    if wanted is None or facts.manifest.ready is None:
        return
    for change in facts.all(ProbeChange):
        if change.probe == facts.manifest.ready and change.ok is wanted:
            yield Stamp(
                name=NAMES[phase],
                mono_ns=change.mono_ns,
                source=f"probe: {change.probe}",
                uncertainty_ns=change.uncertainty_ns,
                inferred=True,
            )
