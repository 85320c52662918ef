"""RPO: what became of every acknowledged event, stream by stream, from a trial's ledgers (R49, R70).

A stream fails when it lost more than the objective allows, or holds anything twice, invented, altered,
or behind something that was acknowledged later (booked from a resend, that is `late`, excepted). The
objective holds for the figure that is shown, too: the losses of all streams together.
Indeterminate and late events are reported, not judged; where most events would be held in a wrong order were
they not called late, nobody checked the order: UNKNOWN. So it is where a key was acknowledged with different
contents: only one of them can still be there; and what is missing while the target still catches up when we
had waited long enough. A side that is missing, damaged, altered since the trial, or
empty where something must have been acknowledged makes the answer UNKNOWN, never zero.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blackstart.check.audit import AuditResult, audit, incredible
from blackstart.errors import LedgerError
from blackstart.model.outcome import Rpo, StreamLoss
from blackstart.model.record import LedgerFile
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from blackstart.check.facts import Facts
    from blackstart.model.manifest import Stream

NS_PER_MS = 1_000_000
TICKS_PER_UNIT = 10_000
NAMED = 5
LISTED = 100

WORDS = {
    "duplicated": "held more than once",
    "phantom": "held but never acknowledged",
    "corrupted": "held with other content",
    "reordered": "held behind something acknowledged later",
}
REMARKS = {
    "indeterminate": "sent without an answer: neither lost nor invented",
    "late": "recovered by resend or reconciliation: not lost",
}


def check(facts: Facts) -> tuple[Rpo, CheckResult]:
    """Audit every stream of the manifest and judge what is lost by the objective."""
    streams = {name: _stream(facts, name) for name in _names(facts)}
    rpo = _total(facts, streams)
    findings = [f for name, loss in streams.items() for f in _judge(name, loss, facts)]
    findings += _exceeded(rpo, facts.objectives.rpo_events, _rising(facts))
    if not streams:
        text = "the manifest names no stream: nothing shows what was lost"
        findings.append(Finding(verdict=Verdict.UNKNOWN, code="no-streams", text=text))
    return rpo, conclude("rpo", findings)


def _names(facts: Facts) -> list[str]:
    return list(dict.fromkeys([*facts.manifest.streams, *(f.stream for f in facts.all(LedgerFile))]))


def _stream(facts: Facts, name: str) -> StreamLoss:
    try:
        ours, theirs = (_side(facts, name, side) for side in ("acknowledged", "recovered"))
        result = audit(
            ours, theirs, out=facts.folder / "audit" / name, listed=LISTED, t0_mono_ns=facts.t0_ns, threads=2
        )
    except (LedgerError, OSError) as error:
        return StreamLoss(acknowledged=0, recovered=0, counts={}, error=str(error))
    return _loss(result, facts.manifest.streams.get(name))


def _loss(result: AuditResult, stream: Stream | None) -> StreamLoss:
    loss = StreamLoss(
        acknowledged=result.acknowledged,
        recovered=result.recovered,
        counts=result.counts,
        earliest_lost_mono_ns=result.earliest_lost_mono_ns,
        lost_notional=result.lost_notional,
        gap_events=result.gap_events,
        excused=result.excused,
        acknowledged_again=result.acknowledged_again,
        not_unique=result.not_unique,
        not_checked=tuple(_with_reason(what, stream) for what in result.not_checked),
    )
    return msgspec.structs.replace(loss, **result.lists)


def _with_reason(what: str, stream: Stream | None) -> str:
    """Tell beside a comparison that was not made why nobody can make it, where the manifest says so."""
    if stream is not None and stream.unordered and what.startswith("order "):
        return f"{what} ({stream.unordered})"
    return what


def _side(facts: Facts, stream: str, side: str) -> Path:
    """Return the path of one side; raises LedgerError when it is not there or not what was written then."""
    file = facts.ledger(stream, side)
    if file is None:
        raise LedgerError(f"the {side} side was never written", where=stream)
    if file.error is not None:
        raise LedgerError(f"the {side} side could not be written: {file.error}", where=stream)
    path = locate(facts.folder, file.path)
    with path.open("rb") as stream_:
        digest = hashlib.file_digest(stream_, "sha256").hexdigest()
    if digest != file.sha256:
        raise LedgerError(f"the {side} side was altered after the trial", where=str(path))
    return path


def locate(folder: Path, path: str) -> Path:
    """Return where a ledger file lies now, though the trial's folder may have been moved since."""
    given = Path(path)
    choices = (folder / given, folder / "ledger" / given.name)
    return next((choice for choice in choices if choice.is_file()), choices[0])


def _total(facts: Facts, streams: dict[str, StreamLoss]) -> Rpo:
    known = [loss for loss in streams.values() if loss.error is None]
    whole = bool(streams) and len(known) == len(streams)
    lost = sum(loss.counts["lost"] for loss in known)
    losing = [loss for loss in known if loss.counts["lost"]]
    earliest = [loss.earliest_lost_mono_ns for loss in losing]
    return Rpo(
        events=lost if whole or lost else None,
        ms=_age_ms(facts.t0_ns, earliest) if whole or lost else None,
        notional=_money(known) if whole or lost else None,
        acknowledged=sum(loss.acknowledged for loss in known),
        streams=streams,
    )


def _rising(facts: Facts) -> Collection[str]:
    """Return the streams that the target was still catching up with when we had waited long enough."""
    quiesced = facts.stage("quiesced")
    return frozenset(quiesced.detail.get("rising", ())) if quiesced else frozenset()


def _exceeded(rpo: Rpo, allowed: int, rising: Collection[str]) -> Iterable[Finding]:
    """Judge the streams together, where each alone lost no more than is allowed."""
    lost = {name: loss.counts["lost"] for name, loss in rpo.streams.items() if loss.counts.get("lost")}
    if (rpo.events or 0) > allowed >= max(lost.values(), default=0):
        parts = ", ".join(f"{name} {count}" for name, count in lost.items())
        text = f"{rpo.events} events are lost in all streams together ({parts}), at most {allowed} allowed"
        final = (rpo.events or 0) - sum(lost[name] for name in lost if name in rising) > allowed
        verdict = Verdict.FAIL if final else Verdict.UNKNOWN
        yield Finding(verdict=verdict, code="rpo-exceeded", text=text, data={"lost": lost})


def _age_ms(t0_ns: int | None, earliest: Iterable[int | None]) -> float | None:
    """From the earliest lost event to the failure; zero when nothing was lost."""
    found = list(earliest)
    if not found:
        return 0.0
    stamped = [ns for ns in found if ns is not None]
    if t0_ns is None or len(stamped) < len(found):
        return None
    return max(0, t0_ns - min(stamped)) / NS_PER_MS


def _money(known: list[StreamLoss]) -> float | None:
    """Money at stake in the lost events; None when one that lost does not say."""
    losing = [loss.lost_notional for loss in known if loss.counts["lost"]]
    if not losing:
        return 0.0
    stated = [ticks for ticks in losing if ticks is not None]
    return sum(stated) / TICKS_PER_UNIT if len(stated) == len(losing) else None


def _judge(name: str, loss: StreamLoss, facts: Facts) -> Iterable[Finding]:
    if loss.error is not None:
        yield Finding(verdict=Verdict.UNKNOWN, code="ledger-missing", text=f"{name}: {loss.error}")
        return
    if loss.acknowledged == 0:
        text = f"{name}: nothing was acknowledged, so nothing shows that nothing is lost"
        yield Finding(verdict=Verdict.UNKNOWN, code="nothing-acknowledged", text=text)
    if loss.counts["lost"]:
        yield _lost(name, loss, facts.objectives.rpo_events, rising=name in _rising(facts))
    for kind, words in WORDS.items():
        if loss.counts[kind]:
            yield _finding(Verdict.FAIL, name, kind, words, loss)
    for kind, words in REMARKS.items():
        if loss.counts[kind]:
            yield _finding(Verdict.PASS, name, kind, words, loss)
    yield from _again(name, loss)
    yield from _excused(name, loss, cold=facts.plan.scenario.recovery == "cold")
    for what in loss.not_checked:
        verdict = Verdict.UNKNOWN if _wanted(what, facts.manifest.streams.get(name)) else Verdict.PASS
        yield Finding(verdict=verdict, code="not-checked", text=f"{name}: not checked: {what}")


def _again(name: str, loss: StreamLoss) -> Iterable[Finding]:
    """Tell of keys that were acknowledged more than once: of several contents only one can still be held."""
    if loss.not_unique:
        text = (
            f"{name}: {loss.not_unique} keys were acknowledged more than once, with different content: "
            "whether what was acknowledged last is held, and in its place, cannot be told"
        )
        data = {"stream": name, "count": loss.not_unique}
        yield Finding(verdict=Verdict.UNKNOWN, code="key-not-unique", text=text, data=data)
    if loss.acknowledged_again > loss.not_unique:
        count = loss.acknowledged_again - loss.not_unique
        text = f"{name}: {count} keys were acknowledged more than once, and count once"
        data = {"stream": name, "count": count}
        yield Finding(verdict=Verdict.PASS, code="acknowledged-again", text=text, data=data)


def _excused(name: str, loss: StreamLoss, *, cold: bool) -> Iterable[Finding]:
    """Say how many events only the target's own word `late` keeps from being out of order."""
    if loss.excused:
        most = incredible(loss.excused, loss.acknowledged, cold=cold)
        share = f"{loss.excused} of {loss.acknowledged} are held behind something acknowledged later"
        yield Finding(
            verdict=Verdict.UNKNOWN if most else Verdict.PASS,
            code="late-not-credible" if most else "late-excused",
            text=f"{name}: {share}, excused by the target's own word that they were late",
            data={"stream": name, "count": loss.excused},
        )


def _wanted(what: str, stream: Stream | None) -> bool:
    """Say whether the manifest asks for a comparison that was not made for something acknowledged.

    `what` begins with the audit's wording (`order of 3 of 917 events`).
    """
    asked = {"content": stream.content, "order": stream.ordered} if stream else {}
    return bool(asked.get(what.partition(" ")[0]))


def _lost(name: str, loss: StreamLoss, allowed: int, *, rising: bool) -> Finding:
    """Judge what is missing; while the target was still catching up nobody knows what will be."""
    words = f"of {loss.acknowledged} acknowledged are lost"
    if loss.counts["lost"] <= allowed:
        return _finding(Verdict.PASS, name, "lost", words, loss)
    if rising:
        words = f"of {loss.acknowledged} acknowledged are missing, while the target was still catching up"
        return msgspec.structs.replace(
            _finding(Verdict.UNKNOWN, name, "lost", words, loss), code="still-catching-up"
        )
    return _finding(Verdict.FAIL, name, "lost", words, loss)


def _finding(verdict: Verdict, name: str, kind: str, words: str, loss: StreamLoss) -> Finding:
    keys, count = getattr(loss, kind), loss.counts[kind]
    more = " …" if count > NAMED else ""
    text = f"{name}: {count} {words} ({', '.join(keys[:NAMED])}{more})"
    return Finding(
        verdict=verdict, code=kind, text=text, data={"stream": name, "count": count, "keys": list(keys)}
    )
