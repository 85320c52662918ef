"""Who says when the target detected, responded, recovered and validated: candidates for t1 to t4.

For each stamp the best kind of source that says anything is taken, never a mixture of kinds:

1. what the target itself reported (`phases` of the manifest) and, where Blackstart is its operator
   (`restart = "blackstart"`), what that operator saw and did: death by pidfd, start, readiness;
2. what Blackstart deduced from outside: a death that it noticed though somebody else restarts, the
   readiness probe. These are marked *inferred*. There is no inferred t4: nothing seen from outside shows
   when a target had verified its own state.

A signal may say which part of the target it is about: `detail.component`, `detail.link` or `detail.peer`.
As soon as one of a phase is about what the trial broke, those about other parts are left out: a recorder
that happens to reconnect did not detect the death of the router. Signals that name no part always count.
A signal stamped later than it was seen, or more than a second earlier, is not believed: its stamp is then
when it was seen, with the difference as uncertainty, and the trial cannot pass (`stamp-not-credible`).
What was broken is known by the trial's components and by every name under which the target reported the
pid that the fault ended.
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

LATENCY_NS = 1_000_000_000
PARTS = ("component", "link", "peer")
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
    if spec is not None and (spec.host is not None or spec.managed):
        return spec.operated
    process = manifest.processes.get((spec.process if spec else None) or component)
    return process is not None and process.restart == "blackstart"


def candidates(facts: Facts, phase: Phase, *, not_before_ns: int) -> list[Stamp]:
    """Return the stamps for a phase from `not_before_ns` on, earliest first, of the best kind of source."""
    for source in (_reported, _deduced):
        found = [stamp for stamp in source(facts, phase) if stamp.mono_ns >= not_before_ns]
        if found:
            return sorted(found, key=lambda stamp: stamp.mono_ns)
    return []


def last_notice(facts: Facts, since_ns: int, until_ns: int) -> int:
    """Return when the last part of the target noticed the failure before `until_ns`; without any, `since_ns`.

    Every part acts on its own notice: until then it goes on as before.
    """
    notices = (stamp.mono_ns for stamp in candidates(facts, "detected", not_before_ns=since_ns))
    return max((ns for ns in notices if ns < until_ns), default=since_ns)


def _reported(facts: Facts, phase: Phase) -> Iterable[Stamp]:
    yield from _signals(facts, phase)
    yield from _deeds(facts, phase, lambda component: operated(facts.manifest, component), inferred=False)


def _deduced(facts: Facts, phase: Phase) -> Iterable[Stamp]:
    yield from _deeds(facts, phase, lambda component: not operated(facts.manifest, component), inferred=True)
    yield from _readiness(facts, phase)


def not_credible(facts: Facts) -> list[SignalSeen]:
    """Return what reached us since the fault as news of a phase, with a stamp that cannot be right."""
    t0 = facts.t0_ns or 0
    found = (signal for phase in NAMES for signal in _matching(facts, phase) if signal.seen_mono_ns >= t0)
    return [signal for signal in found if not credible(signal)]


def credible(signal: SignalSeen) -> bool:
    """Say whether the stamp lies before it reached us, by no more than telling us can have taken."""
    return 0 <= signal.seen_mono_ns - signal.mono_ns <= LATENCY_NS


def _matching(facts: Facts, phase: Phase) -> list[SignalSeen]:
    tests = [(match.event, matches(match.where)) for match in facts.manifest.phases.get(phase, ())]
    return [
        signal
        for signal in facts.all(SignalSeen)
        if any(signal.event == event and test(signal.fields) for event, test in tests)
    ]


def _signals(facts: Facts, phase: Phase) -> Iterable[Stamp]:
    """Take the target's stamp where it can be right; else when it reached us, and how far that is off."""
    for signal in _about(_matching(facts, phase), broken(facts)):
        good = credible(signal)
        yield Stamp(
            name=NAMES[phase],
            mono_ns=signal.mono_ns if good else signal.seen_mono_ns,
            source=_source(signal),
            uncertainty_ns=signal.uncertainty_ns if good else abs(signal.seen_mono_ns - signal.mono_ns),
        )


def _source(signal: SignalSeen) -> str:
    part = _part(signal)
    return f"{signal.source}: {signal.event}{f' ({part})' if part else ''}"


def _part(signal: SignalSeen) -> str | None:
    """Return the part of the target that a signal is about, where it names one."""
    detail = signal.fields.get("detail")
    if not isinstance(detail, dict):
        return None
    return next((str(detail[key]) for key in PARTS if detail.get(key)), None)


def _about(found: list[SignalSeen], names: set[str]) -> list[SignalSeen]:
    if not any(_part(signal) in names for signal in found):
        return found
    return [signal for signal in found if (part := _part(signal)) is None or part in names]


def broken(facts: Facts) -> set[str]:
    """Return every name of what the fault broke: the trial's own and those the target gives its pids."""
    pids: set[tuple[str | None, int]] = set()
    for receipt in facts.receipts:
        pids |= {(None, process.pid) for process in receipt.processes.values()}
        pids |= {(process.host, process.pid) for process in receipt.remote.values()}
    names = {name for step in facts.plan.faults for name in step.components}
    for signal in facts.all(SignalSeen) if pids else ():
        fields = signal.fields
        detail, source = fields.get("detail"), facts.manifest.events.get(signal.source)
        host = source.host if source else None
        for said in (fields, detail if isinstance(detail, dict) else {}):
            if (host, said.get("pid")) in pids and isinstance(said.get("component"), str):
                names.add(said["component"])
    return names


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
