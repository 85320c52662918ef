"""`results.json`: the machine-readable result of a run.

The schema in docs/reference/results.schema.json is generated from these types. Durations are given twice:
`*_ms` for people and dashboards, `*_ns` exact, because phases must sum to the nanosecond (R48).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.model.approval import Grant  # noqa: TC001  # msgspec reads the annotations
from blackstart.model.outcome import (
    RESULTS_SCHEMA,
    ChecklistItem,
    FaultRecord,
    LeftOut,
    Rto,
    Run,
    StreamLoss,
    Trial,
)
from blackstart.model.verdict import CheckResult, Finding, Verdict  # noqa: TC001  # msgspec reads the annotations
from blackstart.report.rows import tally
from blackstart.report.wording import NS_PER_MS, NS_PER_S, milliseconds

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "results.json"


class StampDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One of the six stamps: on the monotonic clock, and after t0."""

    mono_ns: int
    after_t0_ms: float | None
    source: str
    uncertainty_ms: float
    uncertainty_ns: int
    inferred: bool


class RtoDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Recovery time. null is unknown, never zero; `censored`: the total only exceeds `censored_ms`.

    `at_most_ms`: no outage that can be told from a hiccup of a busy host, or one that had ended by then.
    """

    detection_ms: float | None
    response_ms: float | None
    recovery_ms: float | None
    validation_ms: float | None
    resume_ms: float | None
    total_ms: float | None
    detection_ns: int | None
    response_ns: int | None
    recovery_ns: int | None
    validation_ns: int | None
    resume_ns: int | None
    total_ns: int | None
    uncertainty_ms: float | None
    uncertainty_ns: int | None
    censored: bool
    censored_ms: float | None
    at_most_ms: float | None
    at_most_ns: int | None
    interrupted: bool | None
    longest_gap_ms: float | None
    usual_gap_ms: float | None
    stamps: dict[str, StampDocument]


class StreamDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One stream of acknowledged events. Counts are exact; lists may be short, `audit/` has them whole.

    `not_checked` names each comparison that was not made, and for how many events. Where that is all of them
    (`content of 9 of 9 events`, `order of 9 of 9 events`) the zero of `corrupted` (`reordered`) in `counts`
    says nothing: nobody looked.
    """

    acknowledged: int
    recovered: int
    counts: dict[str, int]
    lost: tuple[str, ...]
    duplicated: tuple[str, ...]
    phantom: tuple[str, ...]
    corrupted: tuple[str, ...]
    reordered: tuple[str, ...]
    indeterminate: tuple[str, ...]
    late: tuple[str, ...]
    gap_events: int | None
    lost_notional: float | None
    not_checked: tuple[str, ...]
    error: str | None


class RpoDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Loss over all streams; null where it could not be compared."""

    events: int | None
    ms: float | None
    notional: float | None
    acknowledged: int
    streams: dict[str, StreamDocument]


class ValidationDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One of the eight validators."""

    verdict: Verdict
    findings: tuple[Finding, ...]


class TrialDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One trial."""

    id: str
    scenario: str
    title: str
    requirement: str
    target: str
    verdict: Verdict
    reasons: tuple[str, ...]
    seed: int
    replay: str
    fault: FaultRecord | None
    then: tuple[FaultRecord, ...]
    rto: RtoDocument
    rpo: RpoDocument
    validation: dict[str, ValidationDocument]
    not_applicable: dict[str, str]
    checks: tuple[CheckResult, ...]
    checklist: tuple[ChecklistItem, ...]
    objectives: dict[str, float]
    note: str
    load_per_s: float | None
    started: str
    duration_ms: float
    folder: str
    approval: Grant | None


class SummaryDocument(msgspec.Struct, frozen=True, kw_only=True):
    """How many trials ended how."""

    trials: int
    passed: int
    failed: int
    unknown: int


class ResultsDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `schema` grows when a field changes its meaning or goes away; new fields may appear."""

    schema: int
    blackstart: str
    run: str
    target: str
    seed: int
    folder: str
    started: str
    started_wall_ns: int
    duration_ms: float
    interrupted: bool
    environment: dict[str, Any]
    summary: SummaryDocument
    left_out: tuple[LeftOut, ...]
    trials: tuple[TrialDocument, ...]


def timestamp(wall_ns: int) -> str:
    """Unix nanoseconds as RFC 3339 in UTC, to the microsecond."""
    seconds, rest = divmod(wall_ns, NS_PER_S)
    moment = datetime.fromtimestamp(seconds, tz=UTC).replace(microsecond=rest // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _stamps(rto: Rto) -> dict[str, StampDocument]:
    first = rto.stamps.get("t0_failure")
    return {
        name: StampDocument(
            mono_ns=stamp.mono_ns,
            after_t0_ms=None if first is None else (stamp.mono_ns - first.mono_ns) / NS_PER_MS,
            source=stamp.source,
            uncertainty_ms=stamp.uncertainty_ns / NS_PER_MS,
            uncertainty_ns=stamp.uncertainty_ns,
            inferred=stamp.inferred,
        )
        for name, stamp in rto.stamps.items()
    }


def _rto(rto: Rto) -> RtoDocument:
    return RtoDocument(
        detection_ms=milliseconds(rto.detection_ns),
        response_ms=milliseconds(rto.response_ns),
        recovery_ms=milliseconds(rto.recovery_ns),
        validation_ms=milliseconds(rto.validation_ns),
        resume_ms=milliseconds(rto.resume_ns),
        total_ms=milliseconds(rto.total_ns),
        detection_ns=rto.detection_ns,
        response_ns=rto.response_ns,
        recovery_ns=rto.recovery_ns,
        validation_ns=rto.validation_ns,
        resume_ns=rto.resume_ns,
        total_ns=rto.total_ns,
        uncertainty_ms=milliseconds(rto.uncertainty_ns),
        uncertainty_ns=rto.uncertainty_ns,
        censored=rto.censored_ns is not None,
        censored_ms=milliseconds(rto.censored_ns),
        at_most_ms=milliseconds(rto.at_most_ns),
        at_most_ns=rto.at_most_ns,
        interrupted=rto.interrupted,
        longest_gap_ms=milliseconds(rto.longest_gap_ns),
        usual_gap_ms=milliseconds(rto.usual_gap_ns),
        stamps=_stamps(rto),
    )


def _stream(loss: StreamLoss) -> StreamDocument:
    return StreamDocument(
        acknowledged=loss.acknowledged,
        recovered=loss.recovered,
        counts=loss.counts,
        lost=loss.lost,
        duplicated=loss.duplicated,
        phantom=loss.phantom,
        corrupted=loss.corrupted,
        reordered=loss.reordered,
        indeterminate=loss.indeterminate,
        late=loss.late,
        gap_events=loss.gap_events,
        lost_notional=None if loss.lost_notional is None else loss.lost_notional / 10_000,
        not_checked=loss.not_checked,
        error=loss.error,
    )


def _rpo(trial: Trial) -> RpoDocument:
    rpo = trial.rpo
    streams = {name: _stream(loss) for name, loss in rpo.streams.items()}
    return RpoDocument(
        events=rpo.events, ms=rpo.ms, notional=rpo.notional, acknowledged=rpo.acknowledged, streams=streams
    )


def _validation(trial: Trial) -> dict[str, ValidationDocument]:
    return {
        name: ValidationDocument(verdict=result.verdict, findings=result.findings)
        for name, result in trial.validation.items()
    }


def trial_document(trial: Trial) -> TrialDocument:
    """Return the document of one trial."""
    return TrialDocument(
        id=trial.id,
        scenario=trial.scenario,
        title=trial.title,
        requirement=trial.requirement,
        target=trial.target,
        verdict=trial.verdict,
        reasons=trial.reasons,
        seed=trial.seed,
        replay=trial.replay,
        fault=trial.fault,
        then=trial.then,
        rto=_rto(trial.rto),
        rpo=_rpo(trial),
        validation=_validation(trial),
        not_applicable=trial.not_applicable,
        checks=trial.checks,
        checklist=trial.checklist,
        objectives=trial.objectives,
        note=trial.note,
        load_per_s=trial.load_per_s,
        started=timestamp(trial.started_wall_ns),
        duration_ms=trial.duration_ns / NS_PER_MS,
        folder=trial.folder,
        approval=trial.approval,
    )


def document(run: Run) -> ResultsDocument:
    """Return the document of a whole run."""
    counts = tally(run)
    return ResultsDocument(
        schema=RESULTS_SCHEMA,
        blackstart=run.version,
        run=run.id,
        target=run.target,
        seed=run.seed,
        folder=run.folder,
        started=timestamp(run.started_wall_ns),
        started_wall_ns=run.started_wall_ns,
        duration_ms=run.duration_ns / NS_PER_MS,
        interrupted=run.interrupted,
        environment=run.environment,
        summary=SummaryDocument(
            trials=len(run.trials), passed=counts.passed, failed=counts.failed, unknown=counts.unknown
        ),
        left_out=run.left_out,
        trials=tuple(trial_document(trial) for trial in run.trials),
    )


def encode(run: Run) -> bytes:
    """Return the document as indented UTF-8 JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(document(run)), indent=2) + b"\n"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of `results.json`, draft 2020-12."""
    body = msgspec.json.schema(ResultsDocument)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Blackstart results"}
    return head | body


class ResultsJson:
    """Reporter: writes `results.json` into the run folder."""

    name = "json"

    def render(self, run: Run, folder: Path) -> list[Path]:
        """Write the file; whole or not at all, because pipelines read it while runs are killed."""
        path = folder / FILE_NAME
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(encode(run))
        temporary.replace(path)
        return [path]
