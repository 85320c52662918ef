"""The summary of a trial in one line: what the terminal table and the head of the HTML report both show."""

from __future__ import annotations

from collections import Counter

import msgspec

from blackstart.model.instant import StampName
from blackstart.model.outcome import PHASES, Rpo, Rto, Run, Trial
from blackstart.model.verdict import Verdict
from blackstart.report.wording import DASH, NS_PER_MS, bare_ms, count, duration, limit
from blackstart.stats.order import summary

MERGED = "validation-not-applicable"
NEARLY_ZERO = "\u22480"
AT_MOST = "\u2264"
UNCHECKED = "*"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the summary table, as text. `phases` has five entries, or none without an outage.

    `unchecked` is what was not compared (`content`, `order`) without a reason in the manifest.
    """

    id: str
    title: str
    verdict: Verdict
    rto: str
    phases: tuple[str, ...]
    rpo: str
    unchecked: tuple[str, ...] = ()
    state: str
    note: str


class Tally(msgspec.Struct, frozen=True):
    """How many trials ended how."""

    passed: int
    failed: int
    unknown: int


def tally(run: Run) -> Tally:
    """Count the verdicts of a run."""
    counts = Counter(trial.verdict for trial in run.trials)
    return Tally(counts[Verdict.PASS], counts[Verdict.FAIL], counts[Verdict.UNKNOWN])


def rto_text(rto: Rto) -> str:
    """Return the total, `> limit` (not back by then), `no interruption`, or a dash: nobody could measure.

    `≤ bound`: no outage, or one that had ended by then.
    """
    if rto.censored_ns is not None:
        return limit(rto.censored_ns)
    if rto.total_ns is not None:
        return duration(rto.total_ns)
    if rto.at_most_ns is not None:
        return f"{AT_MOST} {duration(rto.at_most_ns)}"
    return "no interruption" if rto.interrupted is False else DASH


def merged(trial: Trial) -> bool:
    """Say whether validation and resume are one stretch: nothing of the target could be validated."""
    return any(one.code == MERGED for check in trial.checks for one in check.findings)


def phase_values(rto: Rto, *, merge: bool = False) -> tuple[int | None, ...]:
    """Return the five phases in nanoseconds, in order; with `merge` the rest of the total is `resume`."""
    values = tuple(getattr(rto, f"{phase}_ns") for phase in PHASES)
    if not merge or rto.total_ns is None or None in values[:3] or values[3:] != (None, None):
        return values
    return (*values[:4], rto.total_ns - sum(values[:3]))


def phase_texts(rto: Rto, *, merge: bool = False) -> tuple[str, ...]:
    """Return the phases in milliseconds, `?` for an unknown one; nothing where there is no phase at all.

    One that is shorter than its stamps are sure of is `<` what it can be at most. With `merge` (see
    `merged`) a validation that there is none of is a dash.
    """
    values = phase_values(rto, merge=merge)
    if rto.total_ns is None and all(value is None for value in values):
        return ()
    alone = merge and values[3] is None and values[4] is not None
    texts = [_phase_text(rto, number, value) for number, value in enumerate(values)]
    return (*texts[:3], DASH if alone else texts[3], texts[4])


def _phase_text(rto: Rto, number: int, value: int | None) -> str:
    """Write one phase; where it is less than the uncertainty of its two stamps, what it is at most."""
    names = list(StampName)
    ends = [rto.stamps.get(name) for name in names[number : number + 2]]
    doubt_ns = sum(stamp.uncertainty_ns for stamp in ends if stamp is not None)
    if value is None or value >= doubt_ns:
        return bare_ms(value)
    most = value + doubt_ns
    return NEARLY_ZERO if most < NS_PER_MS // 20 else f"<{bare_ms(most)}"


def rpo_text(rpo: Rpo) -> str:
    """`0 of 18,204`: lost events of acknowledged ones; with a mark where content or order stays open."""
    mark = UNCHECKED if unchecked(rpo) else ""
    return DASH if rpo.events is None else f"{count(rpo.events)} of {count(rpo.acknowledged)}{mark}"


def unchecked(rpo: Rpo) -> tuple[str, ...]:
    """Name what was not compared in some stream, where the manifest does not say why (in parentheses)."""
    left = (what for loss in rpo.streams.values() for what in loss.not_checked if not what.endswith(")"))
    return tuple(sorted({what.partition(" ")[0] for what in left}))


def state_text(trial: Trial) -> str:
    """`8/8`: validators that pass, of those that apply to this target."""
    results = trial.validation.values()
    if not results:
        return DASH
    return f"{sum(result.verdict is Verdict.PASS for result in results)}/{len(results)}"


def gap_text(rto: Rto) -> str:
    """For a service that never stopped, or perhaps: its longest gap after the fault against the usual one."""
    calm = rto.interrupted is False or rto.at_most_ns is not None
    if not calm or rto.longest_gap_ns is None:
        return ""
    usual = f", usual {duration(rto.usual_gap_ns)}" if rto.usual_gap_ns is not None else ""
    return f"longest gap {duration(rto.longest_gap_ns)}{usual}"


def note_text(trial: Trial) -> str:
    """Why a trial is not PASS comes first; then its own note and the gap of an uninterrupted service."""
    reasons = trial.reasons[:1] if trial.verdict is not Verdict.PASS else ()
    more = f"+{len(trial.reasons) - 1} more" if reasons and len(trial.reasons) > 1 else ""
    return " · ".join(part for part in (*reasons, more, trial.note, gap_text(trial.rto)) if part)


def repeated(run: Run) -> list[str]:
    """Sum up trials that were run more than once: median, slowest, and what so many trials prove (R75)."""
    groups: dict[str, list[Trial]] = {}
    for trial in run.trials:
        groups.setdefault(trial.id.partition("#")[0], []).append(trial)
    return [_summed_up(name, trials) for name, trials in groups.items() if len(trials) > 1]


def _summed_up(name: str, trials: list[Trial]) -> str:
    """One that was not back when watching ended counts as slower than all that were."""
    totals = [trial.rto.total_ns for trial in trials if trial.rto.total_ns is not None]
    over = [trial.rto.censored_ns for trial in trials if trial.rto.censored_ns is not None]
    missing = len(trials) - len(totals) - len(over)
    parts = [name]
    if totals or over:
        slowest = limit(max([*totals, *over])) if over else duration(max(totals))
        parts += [f"median {_median(totals, over)}", f"slowest {slowest}"]
    found = summary(totals)
    if found is not None and len(totals) == len(trials):
        parts.append(found.claim.text())
    else:
        parts.append(f"{len(trials)} trials, too little known for a claim")
    if over:
        parts.append(f"{len(over)} of {len(trials)} not back while watched")
    if missing:
        parts.append(f"{missing} of {len(trials)} without a recovery time")
    return " \u00b7 ".join(parts)


def _median(totals: list[int], over: list[int]) -> str:
    """Return the middle one; a bound where it or one below it is itself only known to be longer."""
    times = sorted([*((ns, False) for ns in totals), *((ns, True) for ns in over)])
    first, last = (len(times) - 1) // 2, len(times) // 2
    middle = (times[first][0] + times[last][0]) // 2
    return limit(middle) if any(bound for _, bound in times[: last + 1]) else duration(middle)


def row(trial: Trial) -> Row:
    """Return the summary line of one trial."""
    return Row(
        id=trial.id,
        title=trial.title,
        verdict=trial.verdict,
        rto=rto_text(trial.rto),
        phases=phase_texts(trial.rto, merge=merged(trial)),
        rpo=rpo_text(trial.rpo),
        unchecked=unchecked(trial.rpo),
        state=state_text(trial),
        note=note_text(trial),
    )
