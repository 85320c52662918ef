"""From a finished history to the result of its trial. Pure: same history, same result."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, TypeVar

import msgspec

from blackstart.check import (
    backoff,
    ending,
    expectations,
    fault,
    order,
    presence,
    rpo,
    rto,
    settlement,
    steady,
)
from blackstart.check.checklist import checklist
from blackstart.check.facts import Facts
from blackstart.check.note import note
from blackstart.check.validators import VALIDATORS
from blackstart.check.verdict import OF_A_DISTURBANCE, OF_THE_BOOKS, course, judge
from blackstart.model.outcome import Rpo, Rto, Trial
from blackstart.model.record import Ended, StageReached
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from collections.abc import Callable

    from blackstart.contracts import HistoryView
    from blackstart.model.scenario import Plan

T = TypeVar("T")


def analyse(history: HistoryView) -> Trial:
    """Check a history; a checker that breaks is UNKNOWN. Raises HistoryError when there is no header."""
    facts = Facts(history)
    measured, rto_result = _pair("rto", lambda: rto.check(facts), Rto())
    lost, rpo_result = _pair("rpo", lambda: rpo.check(facts), Rpo())
    checks = (
        _one("trial", lambda: course(facts)),
        _one("steady", lambda: steady.check(facts)),
        _one("fault", lambda: fault.check(facts)),
        rto_result,
        _one("order", lambda: order.check(facts, measured)),
        *([_one("ending", lambda: ending.check(facts))] if ending.applies(facts) else []),
        *([_one("backoff", lambda: backoff.check(facts))] if backoff.applies(facts) else []),
        *([_one("settlement", lambda: settlement.check(facts))] if facts.plan.scenario.settles else []),
        *([_one("expectations", lambda: expectations.check(facts))] if facts.plan.scenario.expect else []),
        rpo_result,
    )
    ruled_out = {name: why for name, why in facts.manifest.not_applicable.items() if name in VALIDATORS}
    validation = {
        name: _one(name, lambda check=check: check(facts))  # type: ignore[misc]
        for name, check in VALIDATORS.items()
        if name not in ruled_out
    }
    outcome = _Outcome(measured, lost, checks, validation, ruled_out)
    return _trial(facts, outcome)


def disturbance(history: HistoryView) -> Trial:
    """Check one disturbance of a target that goes on trading: what was lost is known at the end of all only.

    Raises HistoryError when there is no header.
    """
    facts = Facts(history)
    measured, rto_result = _pair("rto", lambda: rto.check(facts), Rto())
    checks = (
        _one("trial", lambda: course(facts, OF_A_DISTURBANCE)),
        _one("steady", lambda: steady.check(facts)),
        _one("fault", lambda: fault.check(facts, watched_until="reverted")),
        _without_phases(rto_result),
        # of two recoveries side by side nobody can say which validation belongs to which
        *([_one("order", lambda: order.check(facts, measured))] if len(facts.plan.faults) == 1 else []),
    )
    return _trial(facts, _Outcome(measured, Rpo(), checks, {}, {}))


def _without_phases(result: CheckResult) -> CheckResult:
    """Take unknown phases for a remark: of a short pause a target tells nothing, and the total is known."""
    return conclude(
        result.check,
        (
            msgspec.structs.replace(one, verdict=Verdict.PASS) if one.code == "phase-unknown" else one
            for one in result.findings
        ),
    )


def books(history: HistoryView) -> tuple[Rpo, dict[str, CheckResult]]:
    """Check what a long session left behind: every stream, the state, who is there, how the end itself went.

    Raises HistoryError.
    """
    facts = Facts(history)
    lost, result = _pair("rpo", lambda: rpo.check(facts), Rpo())
    validation = {
        name: _one(name, lambda check=check: check(facts))  # type: ignore[misc]
        for name, check in VALIDATORS.items()
        if name not in facts.manifest.not_applicable
    }
    return lost, {
        "trial": _one("trial", lambda: course(facts, OF_THE_BOOKS)),
        "presence": _one("presence", lambda: conclude("presence", presence.stayed(facts))),
        "rpo": result,
        **validation,
    }


class _Outcome(msgspec.Struct, frozen=True):
    """What all checks came to."""

    rto: Rto
    rpo: Rpo
    checks: tuple[CheckResult, ...]
    validation: dict[str, CheckResult]
    ruled_out: dict[str, str]


def _trial(facts: Facts, outcome: _Outcome) -> Trial:
    plan, scenario = facts.plan, facts.plan.scenario
    verdict, reasons = judge([*outcome.checks, *outcome.validation.values()])
    broken = fault.records(facts)
    stages, ended = facts.all(StageReached), facts.first(Ended)
    begun = stages[0].mono_ns if stages else 0
    return Trial(
        id=plan.trial_id,
        scenario=scenario.id,
        title=_title(plan),
        requirement=scenario.requirement,
        target=facts.manifest.name,
        verdict=verdict,
        reasons=reasons,
        seed=plan.seed,
        replay=plan.replay,
        fault=broken[0] if broken else None,
        then=broken[1:],
        rto=outcome.rto,
        rpo=outcome.rpo,
        validation=outcome.validation,
        checklist=checklist(facts, outcome.validation),
        checks=outcome.checks,
        not_applicable=outcome.ruled_out,
        objectives=msgspec.to_builtins(facts.objectives),
        note=note(facts),
        load_per_s=steady.load_per_s(facts),
        started_wall_ns=int(facts.header.host.get("wall_ns", 0)),
        duration_ns=ended.mono_ns - begun if ended and begun else 0,
        folder=str(facts.folder),
        approval=plan.approval,
    )


def _title(plan: Plan) -> str:
    """Return the scenario's title; a trial that is one of several says of what."""
    part = plan.trial_id.removeprefix(plan.scenario.id).lstrip(":")
    return f"{plan.scenario.title}: {part}" if part else plan.scenario.title


def _one(name: str, check: Callable[[], CheckResult]) -> CheckResult:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a broken checker is UNKNOWN; the others go on
        return _broke(name, error)


def _pair(name: str, check: Callable[[], tuple[T, CheckResult]], default: T) -> tuple[T, CheckResult]:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - as above
        return default, _broke(name, error)


def _broke(name: str, error: Exception) -> CheckResult:
    said = traceback.format_exception_only(error)[-1].strip()
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"checker {name} broke: {said} ({place.name}, line {place.lineno})"
    return conclude(name, [Finding(verdict=Verdict.UNKNOWN, code="checker-broke", text=text)])
