"""RTO: six stamps, five contiguous phases, one total (DESIGN section 4, R48).

How the stamps are chosen when a target reports many events of a kind (two engines restart, a session
comes back after its router):

* t0 is the receipt's. Whatever is stamped before it (less its uncertainty) belongs to the time before
  the fault.
* t5 is the event that ended the outage: `check.service` says which one, and why events in flight at t0
  never count.
* t1 is the first detection after t0; t2 the first response from t1 on.
* t4 is the last validation up to t5: if a first validation was overtaken by events (halted, validated
  anew), the one that led to service counts. One that lies after t5 is no stamp but a finding
  (`check.order`: traded before validated).
* t3 is the last recovery up to t4: what had to be back before the state could be validated. Parts that
  come back later (a standby) do not lengthen the outage.

Stamps must not run backwards. A stamp that lies before its predecessor by no more than both
uncertainties together is moved onto it, with a remark; else it is left out. A phase with a stamp
missing is unknown, never zero. The total needs only t0 and t5.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from blackstart.check import relapse
from blackstart.check.hiccup import brief, doubtful
from blackstart.check.service import ResumeWatch
from blackstart.check.stamps import candidates, last_notice, not_credible
from blackstart.model.instant import Stamp, StampName
from blackstart.model.outcome import PHASES, Rto
from blackstart.model.record import WORKLOAD_FAILED, Problem, ServiceBatch, ServiceWatched
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackstart.check.facts import Facts
    from blackstart.check.service import Event
    from blackstart.model.fault import Receipt
    from blackstart.model.record import Record

NS_PER_MS = 1_000_000
RARE = 0.01
STATE = ("positions", "orders", "risk", "pnl", "connectivity", "market_data", "strategy")


def check(facts: Facts) -> tuple[Rto, CheckResult]:
    """Measure the recovery and judge it by the scenario's objective."""
    receipt = facts.receipt
    if receipt is None:
        finding = Finding(
            verdict=Verdict.UNKNOWN, code="no-fault", text="no fault was injected: there is no t0"
        )
        return Rto(), conclude("rto", [finding])
    rto, remarks = measure(facts, receipt)
    return rto, conclude("rto", [*remarks, *_judge(facts, rto)])


def measure(facts: Facts, receipt: Receipt) -> tuple[Rto, list[Finding]]:
    """Take the stamps out of the history; the findings say what kept some of them from being used."""
    t0 = Stamp(
        name=StampName.FAILURE,
        mono_ns=receipt.t0_mono_ns,
        source=receipt.t0_source,
        uncertainty_ns=receipt.uncertainty_ns,
    )
    until, unwatched = _sight(facts, t0.mono_ns)
    watch = _watch(facts, until)
    t5 = _resumption(watch, facts, t0, until)
    at_most = None
    if t5 is not None and doubtful(watch, facts, t0, t5, until):
        at_most, t5 = t5.mono_ns - t0.mono_ns, None
    stamps, remarks = _chain(facts, t0, t5)
    rto = _rto(watch, stamps, until, unwatched)
    if at_most is not None:
        rto = msgspec.structs.replace(rto, at_most_ns=at_most, interrupted=None, censored_ns=None)
    later = [*relapse.check(facts, watch, rto, until), *relapse.unanswered(facts, rto, until)]
    return rto, [
        *unwatched,
        *_incredible(facts),
        *remarks,
        *_about_service(watch, rto),
        *([] if unwatched else later),
    ]


def _incredible(facts: Facts) -> list[Finding]:
    """Name the target's stamps that contradict our own clock: they measure nothing."""
    return [
        Finding(
            verdict=Verdict.UNKNOWN,
            code="stamp-not-credible",
            text=f"{one.source}: {one.event} is stamped "
            f"{(one.mono_ns - one.seen_mono_ns) / NS_PER_MS:+,.1f} ms from when it was seen",
            data={"mono_ns": one.mono_ns, "seen_mono_ns": one.seen_mono_ns},
        )
        for one in not_credible(facts)
    ]


def _resumption(watch: ResumeWatch, facts: Facts, t0: Stamp, until_ns: int) -> Stamp | None:
    """Return t5: the event that ended the outage, where there was one and it ended."""
    event = watch.final(until_ns)
    if event is None and watch.interrupted(until_ns) is False and not watch.by_epoch:
        event = _bounded(watch, facts, t0)
    if event is None or event[0] > until_ns:
        return None
    spec = facts.manifest.services.get(watch.service)
    who = spec.source if spec else "service"
    return Stamp(
        name=StampName.RESUMED, mono_ns=event[0], source=f"{who}: {event[1]}", uncertainty_ns=event[2]
    )


def _bounded(watch: ResumeWatch, facts: Facts, t0: Stamp) -> Event | None:
    """Return the first event after a recovery that was silent, though no longer than gaps may be.

    The stretch is the target's own: from the response, and the last part's notice, to the recovery.
    """
    stretch = _recovery(facts, t0)
    if stretch is None or watch.usual is None:
        return None
    begin, end = stretch
    later = sorted(event for event in facts.service_events() if event[0] >= begin)
    if not later or later[0][0] <= end or watch.usual.empty_share(end - begin) > RARE:
        return None
    return later[0]


def _recovery(facts: Facts, t0: Stamp) -> tuple[int, int] | None:
    """From the response to the recovery, as the target (or its operator) reported them."""
    earliest = t0.mono_ns - t0.uncertainty_ns
    begin = _first(candidates(facts, "responded", not_before_ns=earliest), None)
    end = _first(candidates(facts, "recovered", not_before_ns=begin.mono_ns), None) if begin else None
    if begin is None or end is None or begin.inferred or end.inferred:
        return None
    sure = end.mono_ns - end.uncertainty_ns
    begun = max(begin.mono_ns, last_notice(facts, earliest, end.mono_ns))
    return (begun, sure) if begun < sure else None


def first_return(facts: Facts) -> Event | None:
    """Return the first event of the service after its first interruption; None while it went on.

    A takeover is one, too. What may be a hiccup of a busy host is none (`check.hiccup`).
    """
    if facts.t0_ns is None:
        return None
    watch = _watch(facts, _sight(facts, facts.t0_ns)[0])
    if watch.usual is None:
        return next((event for _, event in watch.breaks), None)
    sure = (e for silence, e in watch.breaks if not (silence and brief(watch.usual, facts, silence, e[0])))
    return next(sure, None)


def _watch(facts: Facts, until_ns: int) -> ResumeWatch:
    watch = ResumeWatch.of(facts.plan, facts.manifest)
    for record in facts.records:
        watch.feed(_up_to(record, until_ns))
    return watch


def _up_to(record: Record, until_ns: int) -> Record:
    """Leave out what the service did after the observation: a hiccup then is no outage of this fault."""
    if not isinstance(record, ServiceBatch):
        return record
    return msgspec.structs.replace(record, events=[one for one in record.events if one[0] <= until_ns])


def _sight(facts: Facts, t0_ns: int) -> tuple[int, list[Finding]]:
    """Return until when the service was watched from t0 on without a break: later silence proves nothing."""
    service = facts.plan.service
    spans = sorted(
        (w.since_mono_ns, w.until_mono_ns) for w in facts.all(ServiceWatched) if w.service == service
    )
    until = t0_ns
    for since, end in spans:
        if since <= until:
            until = max(until, end)
    observed = facts.stage("observed")
    loaded_ns = _loaded_until(facts)
    if loaded_ns is not None and observed is not None and loaded_ns < min(until, observed.mono_ns):
        text = f"the load ended before observation did: silence of '{service}' after it proves nothing"
        return loaded_ns, [Finding(verdict=Verdict.UNKNOWN, code="load-ended", text=text)]
    if observed is not None and until >= observed.mono_ns:
        return observed.mono_ns, []  # what comes later is our own doing: the load is taken away
    text = f"the service stream '{service}' was not watched from the fault to the end of observation"
    return until, [Finding(verdict=Verdict.UNKNOWN, code="service-unwatched", text=text)]


def _loaded_until(facts: Facts) -> int | None:
    """Return when the workload ended by itself, where its writes may be what the service consists of.

    A workload's own stream says itself how long it was watched, and a probe answers without one.
    """
    spec = facts.manifest.services.get(facts.plan.service)
    if spec is None or spec.source not in {"oracle", "sql"}:
        return None
    return next((one.mono_ns for one in facts.all(Problem) if one.code == WORKLOAD_FAILED), None)


def _chain(facts: Facts, t0: Stamp, t5: Stamp | None) -> tuple[dict[StampName, Stamp], list[Finding]]:
    """Choose t1 to t4 between t0 and t5 by the rules of this module."""
    earliest = t0.mono_ns - t0.uncertainty_ns
    latest = t5.mono_ns if t5 else None
    first = _first(candidates(facts, "detected", not_before_ns=earliest), latest)
    base = first.mono_ns - first.uncertainty_ns if first else earliest
    second = _first(candidates(facts, "responded", not_before_ns=base), latest)
    base = second.mono_ns if second else base
    fourth = _last(candidates(facts, "validated", not_before_ns=base), latest)
    third = _last(candidates(facts, "recovered", not_before_ns=base), _earlier(fourth, latest))
    t0, findings = _narrowed(t0, first)
    stamps = {StampName.FAILURE: t0}
    for stamp in (first, second, third, fourth, t5):
        if stamp is not None:
            _append(stamps, stamp, findings)
    return stamps, findings


def _narrowed(t0: Stamp, first: Stamp | None) -> tuple[Stamp, list[Finding]]:
    """Move t0 back to a detection inside its uncertainty: no effect comes before its cause.

    The kill call may have been suspended behind the kill; its return is the latest that t0 can be.
    """
    if first is None or first.inferred or first.mono_ns >= t0.mono_ns:
        return t0, []
    apart_ns = t0.mono_ns - first.mono_ns
    if first.uncertainty_ns or apart_ns > t0.uncertainty_ns:
        return t0, []
    rest_ns, source = t0.uncertainty_ns - apart_ns, f"{t0.source}, at latest"
    moved = msgspec.structs.replace(t0, mono_ns=first.mono_ns, uncertainty_ns=rest_ns, source=source)
    text = f"{first.source} came {apart_ns / NS_PER_MS:,.3f} ms before the end of {t0.source}"
    return moved, [Finding(verdict=Verdict.PASS, code="t0-narrowed", text=text, data={"by_ns": apart_ns})]


def _earlier(stamp: Stamp | None, limit_ns: int | None) -> int | None:
    known = [ns for ns in (stamp.mono_ns if stamp else None, limit_ns) if ns is not None]
    return min(known, default=None)


def _first(found: Sequence[Stamp], limit_ns: int | None) -> Stamp | None:
    """Return the earliest stamp that can lie at or before the limit."""
    return next((s for s in found if _fits(s, limit_ns)), None)


def _fits(stamp: Stamp, limit_ns: int | None) -> bool:
    return limit_ns is None or stamp.mono_ns - stamp.uncertainty_ns <= limit_ns


def _last(found: Sequence[Stamp], limit_ns: int | None) -> Stamp | None:
    """Return the latest stamp that can lie at or before the limit; without a limit the earliest."""
    if limit_ns is None:
        return found[0] if found else None
    return next((s for s in reversed(found) if _fits(s, limit_ns)), None)


def _append(stamps: dict[StampName, Stamp], stamp: Stamp, findings: list[Finding]) -> None:
    """Put a stamp behind those that are there. t5 is the oracle's and stays where it is."""
    ahead = [s for s in stamps.values() if s.mono_ns > stamp.mono_ns]
    if stamp.name is StampName.RESUMED:
        stamps[stamp.name] = stamp
        for other in ahead:
            _move(stamps, other, stamp, findings)
    elif ahead:
        _move(stamps, stamp, max(ahead, key=lambda s: s.mono_ns), findings)
    else:
        stamps[stamp.name] = stamp


def _move(stamps: dict[StampName, Stamp], stamp: Stamp, onto: Stamp, findings: list[Finding]) -> None:
    """Move `stamp` onto the one it contradicts if both may be the same instant, else leave it out."""
    apart_ns = abs(stamp.mono_ns - onto.mono_ns)
    data = {"stamp": stamp.name, "against": onto.name, "apart_ns": apart_ns}
    if apart_ns <= stamp.uncertainty_ns + onto.uncertainty_ns:
        uncertainty = stamp.uncertainty_ns + apart_ns
        stamps[stamp.name] = msgspec.structs.replace(stamp, mono_ns=onto.mono_ns, uncertainty_ns=uncertainty)
        text = f"{stamp.name} and {onto.name} are the wrong way round by {apart_ns} ns, within uncertainty"
        findings.append(Finding(verdict=Verdict.PASS, code="stamps-touch", text=text, data=data))
        return
    stamps.pop(stamp.name, None)
    text = f"{stamp.name} ({stamp.source}) is on the wrong side of {onto.name} ({onto.source})"
    findings.append(Finding(verdict=Verdict.UNKNOWN, code="stamps-out-of-order", text=text, data=data))


def _rto(watch: ResumeWatch, stamps: dict[StampName, Stamp], until_ns: int, unwatched: list[Finding]) -> Rto:
    t0, t5 = stamps[StampName.FAILURE], stamps.get(StampName.RESUMED)
    interrupted = True if t5 else watch.interrupted(until_ns)
    if watch.by_epoch and t5 is None and interrupted is False:
        interrupted = None  # the old path goes on: neither an outage nor the proof that there was none
    if unwatched and t5 is None:
        interrupted = None
    out = interrupted is True and t5 is None
    return Rto(
        **_phases(stamps),
        total_ns=t5.mono_ns - t0.mono_ns if t5 else None,
        uncertainty_ns=t0.uncertainty_ns + t5.uncertainty_ns if t5 else None,
        censored_ns=until_ns - t0.mono_ns if out else None,
        interrupted=interrupted,
        longest_gap_ns=max(watch.longest_gap_ns, watch.silence_ns(until_ns)),
        usual_gap_ns=watch.usual.p99_ns if watch.usual else None,
        stamps={name.value: stamp for name, stamp in stamps.items()},
    )


def _phases(stamps: dict[StampName, Stamp]) -> dict[str, int]:
    borders = zip(PHASES, pairwise(StampName), strict=True)
    known = ((phase, stamps.get(begin), stamps.get(end)) for phase, (begin, end) in borders)
    return {f"{phase}_ns": b.mono_ns - a.mono_ns for phase, a, b in known if a and b}


def _about_service(watch: ResumeWatch, rto: Rto) -> list[Finding]:
    """Remarks and doubts about the service stream itself."""
    found: list[tuple[Verdict, str, str]] = []
    if watch.usual is None and not watch.by_epoch:
        text = f"too few events of '{watch.service}' before the fault: silence after it proves nothing"
        found.append((Verdict.UNKNOWN, "no-baseline", text))
    if watch.by_epoch and rto.total_ns is None and rto.interrupted is None:
        text = "no event of a later epoch, but the service goes on: in-flight and new cannot be told apart"
        found.append((Verdict.UNKNOWN, "no-new-epoch", text))
    resumed = watch.resumed or (watch.returns[-1] if watch.returns else None)
    again = [event for event in watch.returns if resumed and event[0] > resumed[0]]
    early = [event for event in watch.returns if resumed and event[0] < resumed[0]]
    if early:
        text = f"{len(early)} short run(s) before the service held, not counted as resumption"
        found.append((Verdict.PASS, "stragglers", text))
    if again:
        text = f"the service was silent again {len(again)} time(s) after it had resumed"
        found.append((Verdict.PASS, "interrupted-again", text))
    return [Finding(verdict=verdict, code=code, text=text) for verdict, code, text in found]


def _judge(facts: Facts, rto: Rto) -> list[Finding]:
    """Compare with the objective; see what is missing."""
    limit_ns = round(facts.objectives.rto_ms * NS_PER_MS)
    if rto.censored_ns is not None:
        text = f"not back after {rto.censored_ns / NS_PER_MS:,.0f} ms of watching"
        return [Finding(verdict=Verdict.FAIL, code="not-recovered", text=text)]
    if rto.total_ns is not None:
        return [*_against(rto, limit_ns), *_missing(facts, rto)]
    if rto.at_most_ns is not None:
        return [_untold(rto, rto.at_most_ns, limit_ns)]
    if rto.interrupted is False and (rto.longest_gap_ns or 0) > limit_ns:
        text = (
            f"no interruption stands out, but a gap of {(rto.longest_gap_ns or 0) / NS_PER_MS:,.1f} ms "
            f"is longer than the objective of {limit_ns / NS_PER_MS:,.1f} ms"
        )
        return [Finding(verdict=Verdict.UNKNOWN, code="objective-below-resolution", text=text)]
    if rto.interrupted is False:
        return [
            Finding(verdict=Verdict.PASS, code="no-interruption", text="the service stream never stopped")
        ]
    return [
        Finding(verdict=Verdict.UNKNOWN, code="rto-unknown", text="when the service resumed is not known")
    ]


def _untold(rto: Rto, at_most_ns: int, limit_ns: int) -> Finding:
    """Judge what may have been an outage or a hiccup: the objective must be met either way."""
    gap, usual = (rto.longest_gap_ns or 0) / NS_PER_MS, (rto.usual_gap_ns or 0) / NS_PER_MS
    text = (
        f"a gap of {gap:,.1f} ms (usual: up to {usual:,.1f} ms) is not told apart from a hiccup of the busy "
        f"host; if it was an outage, it had ended {at_most_ns / NS_PER_MS:,.1f} ms after the failure"
    )
    verdict = Verdict.PASS if at_most_ns <= limit_ns else Verdict.UNKNOWN
    return Finding(verdict=verdict, code="not-told-apart", text=text)


def _against(rto: Rto, limit_ns: int) -> list[Finding]:
    """Judge the total, whose true value lies between total - u(t5) and total + u(t0)."""
    assert rto.total_ns is not None
    least = rto.total_ns - rto.stamps[StampName.RESUMED.value].uncertainty_ns
    most = rto.total_ns + rto.stamps[StampName.FAILURE.value].uncertainty_ns
    if most <= limit_ns:
        return []
    text = f"RTO {rto.total_ns / NS_PER_MS:,.1f} ms, objective {limit_ns / NS_PER_MS:,.1f} ms"
    if least > limit_ns:
        return [Finding(verdict=Verdict.FAIL, code="rto-exceeded", text=text)]
    return [Finding(verdict=Verdict.UNKNOWN, code="rto-within-uncertainty", text=text)]


def _missing(facts: Facts, rto: Rto) -> list[Finding]:
    """Every phase of an outage must be known, unless the target has no state that could be validated."""
    unknown = [phase for phase in PHASES if getattr(rto, f"{phase}_ns") is None]
    if not unknown:
        return []
    if set(unknown) <= {"validation", "resume"} and not _validates(facts):
        text = "the target has no trading state to validate: validation and resume are one stretch"
        return [Finding(verdict=Verdict.PASS, code="validation-not-applicable", text=text)]
    text = f"phase unknown: {', '.join(unknown)}"
    if facts.plan.scenario.degrades:
        text += "; nothing of the target ended, so it need not tell of a recovery"
        return [Finding(verdict=Verdict.PASS, code="degraded-only", text=text)]
    return [Finding(verdict=Verdict.UNKNOWN, code="phase-unknown", text=text, data={"phases": unknown})]


def _validates(facts: Facts) -> bool:
    """Say whether a validation step can be asked of the target: it reports one, or has such state."""
    ruled_out = facts.manifest.not_applicable
    return bool(facts.manifest.phases.get("validated")) or any(name not in ruled_out for name in STATE)
