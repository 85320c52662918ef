"""What became of the service after it had resumed: back is only what stays, and carries the load.

t5 is the first event after the outage (DESIGN section 4). It says nothing of what follows, so that is judged
beside it, up to the end of observation:

* silent at the end, longer than any interruption and than 200 ms: not back, FAIL (`silent-at-the-end`);
* a relapse (`check.service`) that ended later than the objective allows: not back in time, FAIL (`relapsed`);
* in the last second, also where nothing was interrupted, fewer than half of the events that there were
  before t0, by more than chance (three standard deviations): FAIL (`degraded-throughput`); a remark where
  the scenario says that the service goes on (`goes_on`) or that the fault only makes the going hard
  (`degrades`).

Where the service is a probe, the workload that is the load (`check.steady`) has to be answered again, too:
not one acknowledged write from t5 (or, without an outage, from t0) to the end is FAIL
(`workload-unanswered`).
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from blackstart.check.hiccup import brief
from blackstart.check.service import BASELINE_NS, OPEN_NS, usual
from blackstart.check.steady import carrier
from blackstart.model.instant import StampName
from blackstart.model.record import ServiceBatch, ServiceWatched
from blackstart.model.verdict import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts
    from blackstart.check.service import ResumeWatch, Usual
    from blackstart.model.outcome import Rto

NS_PER_S, NS_PER_MS = 1_000_000_000, 1_000_000
LEAST_WINDOW_NS = NS_PER_S // 2
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
    if rto.total_ns is not None:
        if not watch.running(until_ns):
            yield _silent(facts, watch, rhythm, until_ns)
            return
        yield from _relapsed(facts, watch, rto)
    yield from _throughput(facts, watch, rhythm, until_ns)


def unanswered(facts: Facts, rto: Rto, until_ns: int) -> Iterable[Finding]:
    """Judge the workload's acknowledged writes, where the service that was watched is another and is back."""
    load, t0 = carrier(facts.manifest, facts.plan.service), rto.stamps[StampName.FAILURE.value].mono_ns
    watched = any(w.service == load and w.until_mono_ns >= until_ns for w in facts.all(ServiceWatched))
    if load == facts.plan.service or not watched or rto.censored_ns is not None:
        return
    answers = [mono for one in facts.all(ServiceBatch) if one.service == load for mono, _, _ in one.events]
    rhythm = usual(sorted({mono for mono in answers if t0 - BASELINE_NS <= mono <= t0}))
    back = t0 + (rto.total_ns or 0)
    if rhythm is None or any(back < mono <= until_ns for mono in answers):
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
    """Compare the last second with the time before t0; of too short a stretch nothing is said but that."""
    t0 = watch.t0_ns
    assert t0 is not None
    begin = max(until_ns - NS_PER_S, t0 if watch.resumed is None else watch.resumed[0])
    if until_ns - begin < LEAST_WINDOW_NS:
        text = "observation ended too soon after the service was back to tell whether it carries the load"
        yield Finding(verdict=Verdict.PASS, code="throughput-not-judged", text=text)
        return
    window_s, usual_s = (until_ns - begin) / NS_PER_S, sum(rhythm.gaps_ns) / NS_PER_S
    moments = [mono for mono, _, _ in facts.service_events()]
    usual = sum(t0 - usual_s * NS_PER_S <= mono <= t0 for mono in moments) / usual_s
    seen = sum(begin < mono <= until_ns for mono in moments)
    if seen + SIGMAS * sqrt(seen + 1) >= HALF * usual * window_s:
        return
    scenario = facts.plan.scenario
    text = f"at the end of observation {seen / window_s:,.0f} events/s; {usual:,.0f} before the failure"
    verdict = Verdict.PASS if scenario.goes_on or scenario.degrades else Verdict.FAIL
    yield Finding(verdict=verdict, code="degraded-throughput", text=text)
