"""The fifteen items of the source document's section 7.1, each ticked with its evidence (R53).

Items rest on the same findings as the validators; three look at the infrastructure document besides.
An item that the target rules out or that nobody could see is UNKNOWN, and its evidence says why; the
list informs and does not enter the trial's verdict again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from blackstart.check.facts import Facts
from blackstart.check.validators.documents import UnreadError, document, optional
from blackstart.check.validators.shapes import Connectivity, Infrastructure
from blackstart.model.outcome import ChecklistItem
from blackstart.model.verdict import CheckResult, Verdict

Validation = Mapping[str, CheckResult]


class Tick(msgspec.Struct, frozen=True):
    """An answer and what it rests on."""

    verdict: Verdict
    evidence: str


Item = Callable[[Facts, Validation], Tick]


def checklist(facts: Facts, validation: Validation) -> tuple[ChecklistItem, ...]:
    """Tick all fifteen."""
    ticks = ((text, item(facts, validation)) for text, item in ITEMS)
    return tuple(
        ChecklistItem(number=number, text=text, verdict=tick.verdict, evidence=tick.evidence)
        for number, (text, tick) in enumerate(ticks, start=1)
    )


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
            return Tick(Verdict.PASS, f"connected: {', '.join(link.name for link in links)}")
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


def _findings(*codes: str) -> Item:
    """Look for certain findings of the infrastructure validator."""

    def item(_facts: Facts, validation: Validation) -> Tick:
        result = validation.get("infrastructure")
        if result is None:
            return Tick(Verdict.UNKNOWN, "infrastructure was not looked at")
        bad = [f.text for f in result.findings if f.code in codes and f.verdict is Verdict.FAIL]
        if bad:
            return Tick(Verdict.FAIL, "; ".join(bad[:3]))
        if any(f.code == "not-measured" for f in result.findings):
            return Tick(Verdict.UNKNOWN, "nothing was measured")
        return Tick(Verdict.PASS, "measured throughout the trial, nothing found")

    return item


def _own(part: str, *codes: str) -> Item:
    """Need a part of the infrastructure document, and no finding against it."""

    def item(facts: Facts, validation: Validation) -> Tick:
        try:
            found = getattr(document(facts, "infrastructure", Infrastructure), part)
        except UnreadError as error:
            return Tick(Verdict.UNKNOWN, str(error))
        if not found:
            return Tick(Verdict.UNKNOWN, f"the target says nothing about {part}")
        tick = _findings(*codes)(facts, validation)
        return tick if tick.verdict is Verdict.FAIL else Tick(Verdict.PASS, f"{part}: as it should be")

    return item


def _monitoring(facts: Facts, _validation: Validation) -> Tick:
    found = optional(facts, "infrastructure", Infrastructure)
    scraped = found.metrics.scraped if found and found.metrics else None
    if scraped:
        return Tick(Verdict.PASS, f"metrics fetched {scraped:,} times")
    return Tick(Verdict.UNKNOWN, "nobody fetched the target's metrics")


ITEMS: tuple[tuple[str, Item], ...] = (
    ("Positions match exchange", _of("positions")),
    ("Open orders restored correctly", _of("orders")),
    ("Risk limits accurate", _of("risk")),
    ("P&L calculations correct", _of("pnl")),
    ("Market data feed active", _of("market_data")),
    ("Exchange connections established", _links("exchange")),
    ("Strategy state restored", _of("strategy")),
    ("Configuration loaded", _own("configuration", "configuration-not-loaded", "configuration-changed")),
    ("Monitoring active", _monitoring),
    ("Logging functional", _own("logging", "log-silent")),
    ("Database accessible", _database),
    ("Message queues working", _links("queue")),
    ("Timers/schedulers running", _own("timers", "timer-stopped")),
    ("No memory leaks", _findings("memory-leak")),
    ("No stuck threads", _findings("stuck-thread")),
)
