"""Did the fault bite, was it taken back, and is the target whole and ready again? (DESIGN section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.check import presence
from blackstart.check.service import NS_PER_S, OPEN_NS
from blackstart.model.outcome import FaultRecord
from blackstart.model.record import Injected, ProbeChange, Reverted, Witnessed
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts
    from blackstart.model.fault import Receipt, Witness


LEFT_IN_PLACE = "left-in-place"
"""The loudest finding of all: a fault of ours is still in place."""


def check(facts: Facts, *, watched_until: str = "read") -> CheckResult:
    """Look at the witness, at the undos, at the processes that live in the end, and at the readiness."""
    return conclude("fault", _findings(facts, watched_until))


def records(facts: Facts) -> tuple[FaultRecord, ...]:
    """Return everything that was broken, in order."""
    return tuple(_record(facts, injected) for injected in facts.all(Injected))


def _record(facts: Facts, injected: Injected) -> FaultRecord:
    seen, receipt = _witness(facts, injected.step), injected.receipt
    return FaultRecord(
        name=receipt.fault,
        mechanism=receipt.mechanism,
        witness={"bit": seen.bit, **seen.evidence} if seen else None,
        reverted=_reverted(facts, [receipt]),
    )


def _witness(facts: Facts, step: int) -> Witness | None:
    return next((one.witness for one in facts.all(Witnessed) if one.step == step), None)


def _findings(facts: Facts, watched_until: str) -> Iterable[Finding]:
    yield from _left_in_place(facts)  # also of a fault that failed half-way
    if facts.receipt is None:
        yield _unknown("fault-not-injected", "no fault was injected")
        return
    injected = facts.all(Injected)
    for step in facts.plan.faults[len(injected) :]:
        yield _unknown("fault-not-injected", f"the fault that was to follow, {step.kind}, was not injected")
    for one in injected:
        yield from _bitten(facts, one)
        yield from _outlasted(facts, one)
    if _reverted(facts, facts.receipts) is None:
        yield _unknown("not-reverted", "it is not proven that the fault was taken back")
    yield from _floor(facts)
    yield from presence.check(facts, watched_until)
    yield from _unready(facts)


def _left_in_place(facts: Facts) -> Iterable[Finding]:
    """Name every undo that failed to the end, and what an operator has to do now."""
    last = {reverted.undo_id: reverted for reverted in facts.all(Reverted)}
    for one in last.values():
        if one.verified is False:
            command = str(one.evidence.get("by_hand", "blackstart halt"))
            why = one.evidence.get("error", "still there")
            text = f"{one.undo_id} could not be taken back ({why}): {command}"
            yield Finding(
                verdict=Verdict.FAIL,
                code=LEFT_IN_PLACE,
                text=text,
                data={"undo": one.undo_id, "by_hand": command},
            )


def _outlasted(facts: Facts, injected: Injected) -> Iterable[Finding]:
    """Tell of a fault with an end of its own that observation did not see: nor did it see the recovery."""
    observed, step = facts.stage("observed"), facts.plan.faults[injected.step]
    mine = {undo.id for undo in injected.receipt.undo}
    ends = [one.mono_ns for one in facts.all(Reverted) if one.undo_id in mine and one.mono_ns is not None]
    if observed is not None and step.duration_s is not None and ends and min(ends) > observed.mono_ns:
        text = f"observation ended before {step.kind} did ({step.duration_s:g} s): raise `observe.limit_s`"
        yield _unknown("fault-outlasted", text)


def _unready(facts: Facts) -> Iterable[Finding]:
    """See that the target's readiness had come back when observation ended, whatever its service did.

    A no counts from `OPEN_NS` on, like a silence; the conductor waits out what is shorter.
    """
    observed, probe = facts.stage("observed"), facts.manifest.ready
    if observed is None or probe is None:
        return
    said = [one for one in facts.all(ProbeChange) if one.probe == probe and one.mono_ns <= observed.mono_ns]
    if said and not said[-1].ok and observed.mono_ns - said[-1].mono_ns > OPEN_NS:
        since_s = (observed.mono_ns - said[-1].mono_ns) / NS_PER_S
        text = f"`{probe}` had said no for {since_s:.1f} s when observation ended ({said[-1].detail})"
        yield Finding(verdict=Verdict.FAIL, code="not-ready-at-the-end", text=text)


def _floor(facts: Facts) -> Iterable[Finding]:
    """Tell the kernel's own back-off after a heal: no recovery on such a connection can be quicker."""
    waits = [
        one["next_try_ms"] for record in facts.all(Reverted) for one in record.evidence.get("waiting", ())
    ]
    if waits:
        text = (
            f"{len(waits)} existing TCP connection(s) stood still for up to {max(waits):,.0f} ms after the "
            "link was whole again: until the kernel's own next try"
        )
        yield Finding(verdict=Verdict.PASS, code="tcp-back-off", text=text, data={"longest_ms": max(waits)})


def _bitten(facts: Facts, injected: Injected) -> Iterable[Finding]:
    seen = _witness(facts, injected.step)
    if seen is None:
        yield _unknown("fault-did-not-bite", f"nobody witnessed that {injected.receipt.fault} bit")
    elif seen.bit is not True:
        why = seen.evidence.get("why", "nobody could tell")
        how = "did not bite" if seen.bit is False else f"may not have bitten: {why}"
        yield _unknown("fault-did-not-bite", f"{injected.receipt.fault} {how}")


def _reverted(facts: Facts, receipts: Iterable[Receipt]) -> bool | None:
    """Say whether all was taken back: False where a comparison said no, None where none said yes."""
    done = {reverted.undo_id: reverted.verified for reverted in facts.all(Reverted)}
    if any(verified is False for verified in done.values()):
        return False
    wanted = {undo.id for receipt in receipts for undo in receipt.undo}
    proven = {undo_id for undo_id, verified in done.items() if verified}
    seen = facts.stage("reverted") is not None and wanted <= proven
    return True if seen else None


def _unknown(code: str, text: str) -> Finding:
    return Finding(verdict=Verdict.UNKNOWN, code=code, text=text)
