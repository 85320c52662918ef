"""Did the fault bite, was it taken back, and is there again what it ended? (DESIGN section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.check import presence
from blackstart.model.outcome import FaultRecord
from blackstart.model.record import Reverted, Witnessed
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts


def check(facts: Facts) -> CheckResult:
    """Look at the witness, at the undos, and at the processes that live at the end."""
    return conclude("fault", _findings(facts))


def record(facts: Facts) -> FaultRecord | None:
    """Return what was broken; None when nothing was."""
    receipt, seen = facts.receipt, facts.first(Witnessed)
    if receipt is None:
        return None
    witness = {"bit": seen.witness.bit, **seen.witness.evidence} if seen else None
    return FaultRecord(
        name=receipt.fault, mechanism=receipt.mechanism, witness=witness, reverted=_reverted(facts)
    )


def _findings(facts: Facts) -> Iterable[Finding]:
    if facts.receipt is None:
        yield _unknown("fault-not-injected", "no fault was injected")
        return
    seen = facts.first(Witnessed)
    if seen is None:
        yield _unknown("fault-did-not-bite", "nobody witnessed that the fault bit")
    elif seen.witness.bit is not True:
        how = "did not bite" if seen.witness.bit is False else "may not have bitten: nobody could tell"
        yield _unknown("fault-did-not-bite", f"{facts.receipt.fault} {how}")
    if _reverted(facts) is not True:
        yield _unknown("not-reverted", "it is not proven that the fault was taken back")
    yield from presence.check(facts)


def _reverted(facts: Facts) -> bool | None:
    """Say whether all was taken back: False where a comparison said no, None where nobody looked."""
    done = {reverted.undo_id: reverted.verified for reverted in facts.all(Reverted)}
    if any(verified is False for verified in done.values()):
        return False
    wanted = {undo.id for undo in facts.receipt.undo} if facts.receipt else set()
    seen = facts.stage("reverted") is not None and wanted <= done.keys()
    return True if seen else None


def _unknown(code: str, text: str) -> Finding:
    return Finding(verdict=Verdict.UNKNOWN, code=code, text=text)
