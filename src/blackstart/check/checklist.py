"""The fifteen items of the source document's section 7.1, each ticked with its evidence (R53).

Items rest on the same findings as the validators; three look at the infrastructure document besides.
An item that the target rules out or that nobody could see is UNKNOWN, and its evidence says why; the
list informs and does not enter the trial's verdict again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from blackstart.check import rto
from blackstart.check.facts import Facts
from blackstart.check.validators import infrastructure
from blackstart.check.validators.documents import UnreadError, document, optional
from blackstart.check.validators.shapes import Connectivity, Infrastructure
from blackstart.model.instant import StampName
from blackstart.model.outcome import ChecklistItem
from blackstart.model.verdict import CheckResult, Verdict

Validation = Mapping[str, CheckResult]


class Tick(msgspec.Struct, frozen=True):
    """An answer and what it rests on."""

    verdict: Verdict
    evidence: str


_SESSION = ("session-not-logged-on", "session-not-compared", "not-read")
Item = Callable[[Facts, Validation], Tick]


def checklist(facts: Facts, validation: Validation) -> tuple[ChecklistItem, ...]:
    """Tick all fifteen."""
    ticks = ((text, _ticked(item, facts, validation)) for text, item in ITEMS)
    return tuple(
        ChecklistItem(number=number, text=text, verdict=tick.verdict, evidence=tick.evidence)
        for number, (text, tick) in enumerate(ticks, start=1)
    )


def _ticked(item: Item, facts: Facts, validation: Validation) -> Tick:
    """Ask one item; one that breaks is UNKNOWN, and spoils nothing else."""
    try:
        return item(facts, validation)
    except Exception as error:  # noqa: BLE001 - as of a checker: the verdict stands without it
        return Tick(Verdict.UNKNOWN, f"could not be looked at: {error!r}")


def _of(name: str) -> Item:
    """Take the verdict of a validator."""

    def item(facts: Facts, validation: Validation) -> Tick:
        result = validation.get(name)
        if result is None:
            return Tick(
                Verdict.UNKNOWN, f"not applicable: {facts.manifest.not_applicable.get(name, 'not looked at')}"
            )
        deciding = [f.text for f in result.findings if f.verdict is result.verdict]
        return Tick(result.verdict, "; ".join(deciding[:3]) or f"validator {name} found nothing wrong")

    return item


def _links(kind: str) -> Item:
    """See that there are links of a kind and that all are up."""

    def item(facts: Facts, _validation: Validation) -> Tick:
        found = optional(facts, "connectivity", Connectivity)
        links = [link for link in found.links if link.kind == kind] if found else []
        down = [link.name for link in links if not link.connected]
        if down:
            return Tick(Verdict.FAIL, f"not connected: {', '.join(down)}")
        if links:
            who = "both sides say" if kind == "exchange" else "the target's own word"
            return Tick(Verdict.PASS, f"connected: {', '.join(link.name for link in links)} ({who})")
        return Tick(Verdict.UNKNOWN, f"the target names no link of kind '{kind}'")

    return item


def _database(facts: Facts, validation: Validation) -> Tick:
    """Take the target's link, or that we read its tables ourselves after the recovery."""
    said = _links("database")(facts, validation)
    if said.verdict is not Verdict.UNKNOWN:
        return said
    for name, stream in facts.manifest.streams.items():
        file = facts.ledger(name, "recovered") if stream.sql else None
        if file is not None and file.error is None:
            return Tick(Verdict.PASS, f"{file.rows:,} rows of '{name}' read by SQL after the recovery")
    return said


def _exchange(facts: Facts, validation: Validation) -> Tick:
    """Take the target's links and what the exchange says of them."""
    said = _links("exchange")(facts, validation)
    found = validation["connectivity"].findings if "connectivity" in validation else ()
    for verdict in (Verdict.FAIL, Verdict.UNKNOWN):
        against = [f.text for f in found if f.verdict is verdict and f.code in _SESSION]
        if against and said.verdict is Verdict.PASS:
            return Tick(verdict, "; ".join(against[:3]))
    return said


def _against(validation: Validation, *codes: str) -> Tick | None:
    """Look for failures of certain codes that the infrastructure validator found."""
    result = validation.get("infrastructure")
    bad = [f.text for f in result.findings if f.code in codes and f.verdict is Verdict.FAIL] if result else []
    return Tick(Verdict.FAIL, "; ".join(bad[:3])) if bad else None


def _measured(bad: str, unseen: str, *, beats: bool = False) -> Item:
    """Need measurements of every component's process, and nothing bad in them."""

    def item(facts: Facts, validation: Validation) -> Tick:
        result = validation.get("infrastructure")
        if result is None:
            return Tick(Verdict.UNKNOWN, "infrastructure was not looked at")
        found = _against(validation, bad)
        if found is not None:
            return found
        gaps = [f.text for f in result.findings if f.code in ("not-measured", "component-gone", unseen)]
        numbers = infrastructure.counted(facts)
        if gaps or not numbers:
            return Tick(Verdict.UNKNOWN, "; ".join(gaps[:3]) or "no component was measured at the end")
        said = [f"{len(numbers)} components measured from outside, {min(numbers.values())} samples or more"]
        if beats:
            said.append(_heartbeats(facts))
        return Tick(Verdict.PASS, ", ".join(said))

    return item


def _heartbeats(facts: Facts) -> str:
    own = optional(facts, "infrastructure", Infrastructure)
    if own is None or not own.threads:
        return "from outside only: the target states no heartbeats"
    return f"{len(own.threads)} heartbeats stated by the target"


def _own(part: str, *codes: str) -> Item:
    """Need a part of the infrastructure document, and no finding against it."""

    def item(facts: Facts, validation: Validation) -> Tick:
        try:
            found = getattr(document(facts, "infrastructure", Infrastructure), part)
        except UnreadError as error:
            return Tick(Verdict.UNKNOWN, str(error))
        if not found:
            return Tick(Verdict.UNKNOWN, f"the target says nothing about {part}")
        return _against(validation, *codes) or Tick(Verdict.PASS, f"{part}: as it should be")

    return item


def _monitoring(facts: Facts, validation: Validation) -> Tick:
    """Need a scrape since the recovery, of the process that is there now: only that one can state it."""
    found = optional(facts, "infrastructure", Infrastructure)
    metrics = found.metrics if found else None
    since = _recovered(facts)
    if metrics is None or not metrics.scraped:
        return Tick(Verdict.UNKNOWN, "nobody fetched the target's metrics")
    if metrics.last_scraped_mono_ns is None or since is None:
        lacking = "when the recovery was" if since is None else "when the target's metrics were fetched last"
        return Tick(Verdict.UNKNOWN, f"nobody says {lacking}")
    future = _against(validation, "future-stamp")
    after_s = (metrics.last_scraped_mono_ns - since[1]) / 1e9
    if after_s <= 0 or future is not None:
        when = "after it was read" if future else f"{-after_s:.1f} s before {since[0]}"
        return Tick(Verdict.UNKNOWN, f"metrics were fetched last {when}, not since")
    return Tick(
        Verdict.PASS, f"metrics fetched {metrics.scraped:,} times, last {after_s:.1f} s after {since[0]}"
    )


def _recovered(facts: Facts) -> tuple[str, int] | None:
    """Return when the target had recovered, else served again; where it never stopped, when it was hit."""
    if facts.receipt is None or facts.last_t0_ns is None:
        return None
    measured, _ = rto.measure(facts, facts.receipt)
    for name, what in ((StampName.RECOVERED, "the recovery"), (StampName.RESUMED, "the service was back")):
        if name in measured.stamps:
            return what, measured.stamps[name].mono_ns
    return ("the fault", facts.last_t0_ns) if measured.interrupted is False else None


ITEMS: tuple[tuple[str, Item], ...] = (
    ("Positions match exchange", _of("positions")),
    ("Open orders restored correctly", _of("orders")),
    ("Risk limits accurate", _of("risk")),
    ("P&L calculations correct", _of("pnl")),
    ("Market data feed active", _of("market_data")),
    ("Exchange connections established", _exchange),
    ("Strategy state restored", _of("strategy")),
    ("Configuration loaded", _own("configuration", "configuration-not-loaded", "configuration-changed")),
    ("Monitoring active", _monitoring),
    ("Logging functional", _own("logging", "log-silent")),
    ("Database accessible", _database),
    ("Message queues working", _links("queue")),
    ("Timers/schedulers running", _own("timers", "timer-stopped")),
    ("No memory leaks", _measured("memory-leak", "memory-not-measured")),
    ("No stuck threads", _measured("stuck-thread", "threads-not-measured", beats=True)),
)
