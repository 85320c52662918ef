"""From injections, alerts and summary to the result of a session, and its exit status. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from blackstart.chaos.model import CHAOS_SCHEMA, ChaosResult
from blackstart.model.verdict import Verdict, merge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blackstart.chaos.log import Status
    from blackstart.chaos.model import Alert, Injection, LeftOut, Summary
    from blackstart.model.approval import Grant
    from blackstart.model.manifest import Manifest

NAMED = 10
NOT_JUDGED = "not judged"


def conclude(
    status: Status,
    manifest: Manifest,
    version: str,
    *,
    done: Sequence[Injection],
    alerts: Sequence[Alert],
    left_out: Sequence[LeftOut],
    summary: Summary,
    approval: Grant | None = None,
) -> ChaosResult:
    """Put it all together. Without an injection nothing was shown: UNKNOWN."""
    judged = [one for one in done if one.judged]
    found = [*_findings(judged, alerts, summary), *_seldom_placed(done)]
    return ChaosResult(
        schema=CHAOS_SCHEMA,
        id=status.folder.rstrip("/").rsplit("/", 1)[-1],
        version=version,
        target=manifest.name,
        target_title=manifest.title or manifest.name,
        profile=status.profile,
        seed=status.seed,
        replay=f"blackstart chaos replay {shlex.quote(status.folder)}",
        folder=status.folder,
        started_wall_ns=status.started_wall_ns,
        verdict=merge([*(one.verdict for one in judged), *(verdict for verdict, _ in found)]),
        reasons=tuple(dict.fromkeys(text for _, text in found)),
        counts=counts(done),
        injections=tuple(done),
        alerts=tuple(alerts),
        false_alarms=sum(1 for one in alerts if one.injection is None),
        left_out=tuple(left_out),
        summary=summary,
        approval=approval,
    )


def counts(done: Sequence[Injection]) -> dict[str, int]:
    """Count injections by verdict, and those that were not judged."""
    found = {one.value.lower(): sum(1 for i in done if i.judged and i.verdict is one) for one in Verdict}
    return {**found, NOT_JUDGED: sum(1 for i in done if not i.judged)}


def _findings(
    done: Sequence[Injection], alerts: Sequence[Alert], summary: Summary
) -> Iterator[tuple[Verdict, str]]:
    """Yield everything that is not as it should be, the worst first."""
    for alert in alerts:
        of = f"injection {alert.injection}" if alert.injection is not None else "no fault in place"
        yield Verdict.FAIL, f"alert {alert.code} ({of}): {alert.text}"
    for name, result in summary.validation.items():
        for finding in result.findings:
            if finding.verdict is not Verdict.PASS:
                yield finding.verdict, f"{name}: {finding.code}: {finding.text}"
    for one in [one for one in done if one.verdict is not Verdict.PASS][:NAMED]:
        yield one.verdict, f"injection {one.number} ({one.name}): {'; '.join(one.reasons[:3])}"
    for problem in summary.problems:
        yield Verdict.UNKNOWN, problem
    if not any(one.at_s is not None for one in done):
        yield Verdict.UNKNOWN, "no-fault: nothing was broken, so nothing was shown"
    yield from _ending(summary)


def _seldom_placed(done: Sequence[Injection]) -> Iterator[tuple[Verdict, str]]:
    """Yield UNKNOWN where most of it could not be placed: that says nothing of the target."""
    unplaced = [one for one in done if not one.judged and one.at_s is None]
    if 2 * len(unplaced) > len(done):
        text = f"seldom-placed: {len(unplaced)} of {len(done)} injections found nothing to break"
        yield Verdict.UNKNOWN, text


def _ending(summary: Summary) -> Iterator[tuple[Verdict, str]]:
    if summary.ending == "stopped":
        yield Verdict.FAIL, summary.why
    elif summary.ending == "interrupted" and not summary.open_ended:
        yield Verdict.UNKNOWN, "interrupted: it was ended before its time"
    elif summary.ending in ("halted", "error"):
        yield Verdict.UNKNOWN, summary.why
    if not summary.validation and summary.ending in ("complete", "interrupted", "stopped"):
        yield Verdict.UNKNOWN, "books-not-read: nobody audited what was lost"
