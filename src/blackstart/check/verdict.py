"""One verdict out of many checks, with its reasons: FAIL before UNKNOWN before PASS (DESIGN section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.model.record import Ended, Problem, StageReached
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude, merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blackstart.check.facts import Facts


def judge(results: Sequence[CheckResult]) -> tuple[Verdict, tuple[str, ...]]:
    """Merge all checks; the reasons are every finding that is not PASS, failures first, each said once."""
    findings = [f for result in results for f in result.findings]
    reasons = [
        f"{f.code}: {f.text}"
        for kind in (Verdict.FAIL, Verdict.UNKNOWN)
        for f in findings
        if f.verdict is kind
    ]
    return merge(result.verdict for result in results), tuple(dict.fromkeys(reasons))


STAGES = ("steady", "injected", "witnessed", "observed", "reverted", "quiesced", "read", "closed")
OF_A_DISTURBANCE = STAGES[: STAGES.index("quiesced")]
OF_THE_BOOKS = STAGES[STAGES.index("quiesced") : STAGES.index("closed")]


def course(facts: Facts, stages: Sequence[str] = STAGES) -> CheckResult:
    """Judge the course of the trial itself: its problems, its stages, its end."""
    return conclude("trial", _course(facts, stages))


def _course(facts: Facts, stages: Sequence[str]) -> Iterable[Finding]:
    for problem in facts.all(Problem):
        yield Finding(verdict=Verdict(problem.verdict), code=problem.code, text=problem.text)
    ended = facts.first(Ended)
    if ended is None:
        text = "the history breaks off before the end of the trial"
        yield Finding(verdict=Verdict.UNKNOWN, code="history-cut-short", text=text)
    elif ended.how != "complete":
        text = f"the trial ended early: {ended.how}"
        yield Finding(verdict=Verdict.UNKNOWN, code=ended.how, text=text)
    reached = {stage.stage for stage in facts.all(StageReached)}
    missing = [stage for stage in stages if stage not in reached]
    if missing and ended is not None and ended.how == "complete":
        text = f"the trial never reached: {', '.join(missing)}"
        yield Finding(verdict=Verdict.UNKNOWN, code="stage-missing", text=text)
