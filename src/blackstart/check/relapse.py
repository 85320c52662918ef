"""What became of the service after it had resumed: back is only what stays, and carries the load.

t5 is the first event after the outage (DESIGN section 4). It says nothing of what follows, so that is judged
beside it, up to the end of observation:

* silent at the end, longer than any interruption and than 200 ms: not back, FAIL (`silent-at-the-end`);
* a relapse (`check.service`) that ended later than the objective allows: not back in time, FAIL (`relapsed`);
* a second, also where nothing was interrupted, with fewer than half of the events that there were before t0,
  by more than chance (three standard deviations): FAIL (`degraded-throughput`) when it is the last one or
  began later than the objective allows; a remark before that, and where the scenario says that the service
  goes on (`goes_on`) or that the fault only makes the going hard (`degrades`).

Where the service is a probe, the workload that is the load (`check.steady`) has to be answered again, too:
not one acknowledged write from t5 (or, without an outage, from t0) to the end is FAIL
(`workload-unanswered`). Where nobody watched these writes to the end, because the workload itself had ended,
nobody knows: UNKNOWN (`load-unwatched`).
"""

from __future__ import annotations

from bisect import bisect_right
from math import sqrt
from typing import TYPE_CHECKING

from blackstart.check.hiccup import brief
from blackstart.check.service import BASELINE_NS, OPEN_NS, usual
from blackstart.check.steady import carrier
from blackstart.model.instant import StampName
from blackstart.model.record import ServiceBatch, ServiceWatched
from blackstart.model.verdict import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blackstart.check.facts import Facts
    from blackstart.check.service import ResumeWatch, Usual
    from blackstart.model.outcome import Rto

NS_PER_S, NS_PER_MS = 1_000_000_000, 1_000_000
LEAST_WINDOW_NS, STEP_NS = NS_PER_S // 2, NS_PER_S // 10
HALF, SIGMAS = 0.5, 3


def check(facts: Facts, watch: ResumeWatch, rto: Rto, until_ns: int) -> Iterable[Finding]:
    """Judge the service from its resumption (or, without an outage, from t0) to the end of observation.

    There is nothing to say of one that is still out.
    """
    rhythm = watch.usual
    if rto.censored_ns is not None:
        return
    if rhythm is None:
        if rto.total_ns is not None:
            text = "too few events before the fault to tell whether the service stayed back"
            yield Finding(verdict=Verdict.UNKNOWN, code="no-rhythm", text=text)
        return
    if rto.total_ns is not None or rto.at_most_ns is not None:
        if not watch.running(until_ns):
            yield _silent(facts, watch, rhythm, until_ns)
            return
        yield from _relapsed(facts, watch, rto)
    yield from _throughput(facts, watch, rhythm, until_ns)


def unanswered(facts: Facts, rto: Rto, until_ns: int) -> Iterable[Finding]:
    """Judge the workload's acknowledged writes, where the service that was watched is another and is back."""
    load, t0 = carrier(facts.manifest, facts.plan.service), rto.stamps[StampName.FAILURE.value].mono_ns
    if load is None or load == facts.plan.service or rto.censored_ns is not None:
        return
    watched = [w for w in facts.all(ServiceWatched) if w.service == load]
    if not any(w.until_mono_ns >= until_ns for w in watched):
        why = next((w.error for w in reversed(watched) if w.error), "no watcher told of it")
        text = f"the workload's writes ('{load}') were not watched to the end of observation: {why}"
        yield Finding(verdict=Verdict.UNKNOWN, code="load-unwatched", text=text)
        return
    answers = [mono for one in facts.all(ServiceBatch) if one.service == load for mono, _, _ in one.events]
    rhythm = usual(sorted({mono for mono in answers if t0 - BASELINE_NS <= mono <= t0}))
    back = t0 + (rto.total_ns or 0)
    if any(back < mono <= until_ns for mono in answers):
        return
    if rhythm is None:
        text = f"no write of the workload ('{load}') was acknowledged, and too few before the fault to judge"
        yield Finding(verdict=Verdict.UNKNOWN, code="load-no-rhythm", text=text)
        return
    if until_ns - back > max(rhythm.interruption_ns, OPEN_NS):
        waited = (until_ns - back) / NS_PER_MS
        text = f"not one write of the workload was acknowledged in the last {waited:,.0f} ms ('{load}')"
        yield Finding(verdict=Verdict.FAIL, code="workload-unanswered", text=text)


def _silent(facts: Facts, watch: ResumeWatch, rhythm: Usual, until_ns: int) -> Finding:
    silence = watch.silence_ns(until_ns)
    text = f"the service had resumed, but was silent for the last {silence / NS_PER_MS:,.0f} ms"
    doubtful = brief(rhythm, facts, silence, until_ns)
    return Finding(
        verdict=Verdict.UNKNOWN if doubtful else Verdict.FAIL,
        code="silent-at-the-end",
        text=f"{text}, which may be a hiccup of the busy host" if doubtful else text,
        data={"silence_ns": silence},
    )


def _relapsed(facts: Facts, watch: ResumeWatch, rto: Rto) -> Iterable[Finding]:
    if not watch.relapses:
        return
    _, (ended_ns, key, _) = watch.relapses[-1]
    longest = max(length for length, _ in watch.relapses)
    after = ended_ns - rto.stamps[StampName.FAILURE.value].mono_ns
    text = (
        f"after it had resumed the service was out again {len(watch.relapses)} time(s), for up to "
        f"{longest / NS_PER_MS:,.0f} ms, the last until {after / NS_PER_MS:,.0f} ms after the failure ({key})"
    )
    limit_ms = facts.objectives.rto_ms
    late = after > limit_ms * NS_PER_MS
    yield Finding(
        verdict=Verdict.FAIL if late else Verdict.PASS,
        code="relapsed",
        text=f"{text}; objective {limit_ms:,.1f} ms" if late else text,
        data={"silences_ns": [length for length, _ in watch.relapses], "after_ns": after},
    )


def _throughput(facts: Facts, watch: ResumeWatch, rhythm: Usual, until_ns: int) -> Iterable[Finding]:
    """Compare each second with the time before t0; of too short a stretch nothing is said but that."""
    t0 = watch.t0_ns
    assert t0 is not None
    begin = t0 if watch.resumed is None else watch.resumed[0]
    if until_ns - begin < LEAST_WINDOW_NS:
        text = "observation ended too soon after the service was back to tell whether it carries the load"
        yield Finding(verdict=Verdict.PASS, code="throughput-not-judged", text=text)
        return
    moments = sorted(mono for mono, _, _ in facts.service_events())
    before = _rate(moments, t0 - sum(rhythm.gaps_ns), t0)
    windows = [(at, at + NS_PER_S) for at in range(begin, until_ns - NS_PER_S, STEP_NS)]
    windows.append((max(begin, until_ns - NS_PER_S), until_ns))
    low = [one for one in windows if _below_half(moments, *one, before)]
    if not low:
        return
    allowed = t0 + facts.objectives.rto_ms * NS_PER_MS
    missed = low[-1] == windows[-1] or low[-1][0] >= allowed
    scenario = facts.plan.scenario
    verdict = Verdict.FAIL if missed and not (scenario.goes_on or scenario.degrades) else Verdict.PASS
    yield Finding(verdict=verdict, code="degraded-throughput", text=_slow(moments, low, before, t0))


def _below_half(moments: Sequence[int], begin_ns: int, end_ns: int, usual: float) -> bool:
    seen = _between(moments, begin_ns, end_ns)
    return seen + SIGMAS * sqrt(seen + 1) < HALF * usual * (end_ns - begin_ns) / NS_PER_S


def _slow(moments: Sequence[int], low: Sequence[tuple[int, int]], usual: float, t0: int) -> str:
    worst = min(low, key=lambda window: _rate(moments, *window))
    first, last, until = ((moment - t0) / NS_PER_MS for moment in (*worst, low[-1][1]))
    return (
        f"less than half of the usual {usual:,.0f} events/s until {until:,.0f} ms after the failure; "
        f"in the worst second, from {first:,.0f} to {last:,.0f} ms, {_rate(moments, *worst):,.0f}"
    )


def _rate(moments: Sequence[int], begin_ns: int, end_ns: int) -> float:
    return _between(moments, begin_ns, end_ns) * NS_PER_S / max(1, end_ns - begin_ns)


def _between(moments: Sequence[int], begin_ns: int, end_ns: int) -> int:
    """Count those in (begin, end]; `moments` ascend."""
    return bisect_right(moments, end_ns) - bisect_right(moments, begin_ns)
