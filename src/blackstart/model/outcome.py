"""What a trial measured: RTO, RPO, validation, and the result documents of `results.json`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.model.approval import Grant  # noqa: TC001  # msgspec reads the annotations
from blackstart.model.instant import Stamp  # noqa: TC001  # msgspec reads the annotations
from blackstart.model.verdict import CheckResult, Verdict  # noqa: TC001  # msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RESULTS_SCHEMA = 1

PHASES = ("detection", "response", "recovery", "validation", "resume")


class Rto(msgspec.Struct, frozen=True, kw_only=True):
    """Recovery time in five contiguous phases (R48).

    Durations are nanoseconds; None means unknown. Where all five are known their sum equals `total_ns`
    exactly. The total needs only t0 and t5. `censored_ns` is set instead of a total when the service had
    not returned after that long. `interrupted` is False when the service stream never stopped: then
    `longest_gap_ns` and `usual_gap_ns` tell the story. `at_most_ns` is set instead of a total, and
    `interrupted` is None, when a silence could not be told from a hiccup of a busy host: if it was an outage,
    it had ended so long after the failure.
    """

    detection_ns: int | None = None
    response_ns: int | None = None
    recovery_ns: int | None = None
    validation_ns: int | None = None
    resume_ns: int | None = None
    total_ns: int | None = None
    uncertainty_ns: int | None = None
    censored_ns: int | None = None
    at_most_ns: int | None = None
    interrupted: bool | None = None
    longest_gap_ns: int | None = None
    usual_gap_ns: int | None = None
    stamps: dict[str, Stamp] = {}


class StreamLoss(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one stream of acknowledged events (R49, R70).

    The counts are exact; the lists name at most `listed` keys each (the full lists are in the trial's
    `audit/` folder). `gap_events` is the sequence-gap measure of the source document, section 6.3, reported
    beside the event measure. `not_checked` says which comparisons the ledgers did not allow: where none of a
    kind was made (`content of 9 of 9 events`), the zero of `corrupted` (`order`: `reordered`) says nothing.
    `excused` counts late events that would be reordered otherwise, `acknowledged_again` keys acknowledged
    more than once, `not_unique` those of them with different content.
    """

    acknowledged: int
    recovered: int
    counts: dict[str, int]
    lost: tuple[str, ...] = ()
    duplicated: tuple[str, ...] = ()
    phantom: tuple[str, ...] = ()
    corrupted: tuple[str, ...] = ()
    reordered: tuple[str, ...] = ()
    indeterminate: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    earliest_lost_mono_ns: int | None = None
    lost_notional: int | None = None
    gap_events: int | None = None
    not_checked: tuple[str, ...] = ()
    excused: int = 0
    acknowledged_again: int = 0
    not_unique: int = 0
    error: str | None = None


LOSS_KINDS = ("lost", "duplicated", "phantom", "corrupted", "reordered", "indeterminate", "late")
FOUND_BY = {"corrupted": "content", "reordered": "order"}
"""The comparison that finds a kind of loss: not made, nobody knows how many there are."""
_NONE_COMPARED = re.compile(r"(content|order) of (\d+) of \2 events\b")


def counted(kind: str, counts: Mapping[str, int], not_checked: Iterable[str]) -> int | None:
    """Return how many of a kind there are; None where not a single event was compared for it."""
    unseen = [found[1] for what in not_checked if (found := _NONE_COMPARED.match(what))]
    return None if FOUND_BY.get(kind) in unseen else counts.get(kind)


class Rpo(msgspec.Struct, frozen=True, kw_only=True):
    """Loss over all streams.

    `events` lost, `ms` from the earliest lost event to the failure, `notional` in money units.
    """

    events: int | None = None
    ms: float | None = None
    notional: float | None = None
    acknowledged: int = 0
    streams: dict[str, StreamLoss] = {}


class ChecklistItem(msgspec.Struct, frozen=True, kw_only=True):
    """One of the fifteen items of the source document's section 7.1 (R53)."""

    number: int
    text: str
    verdict: Verdict
    evidence: str


class FaultRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What was broken, by which mechanism, and the independent proof that it bit."""

    name: str
    mechanism: str
    witness: dict[str, Any] | None
    reverted: bool | None = None


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The whole result of one trial, as analysed from its history.

    `checks` are the checks besides the eight validators; `not_applicable` names the validators that the
    manifest rules out, and why; `then` are the faults that followed the first; `approval` is what allowed it
    in production.
    """

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
    rto: Rto
    rpo: Rpo
    validation: dict[str, CheckResult]
    checklist: tuple[ChecklistItem, ...]
    then: tuple[FaultRecord, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    not_applicable: dict[str, str] = {}
    objectives: dict[str, float] = {}
    note: str = ""
    load_per_s: float | None = None
    started_wall_ns: int = 0
    duration_ns: int = 0
    folder: str = ""
    approval: Grant | None = None


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario of the suite that was not run, and why the target cannot carry it."""

    id: str
    title: str
    reason: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """All trials of one invocation, and what a whole suite would have had besides."""

    id: str
    version: str
    target: str
    seed: int
    folder: str
    started_wall_ns: int
    duration_ns: int
    trials: tuple[Trial, ...]
    target_title: str = ""
    environment: dict[str, Any] = {}
    interrupted: bool = False
    left_out: tuple[LeftOut, ...] = ()
