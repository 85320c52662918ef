"""The check-list's items with histories in which somebody did not look; `test_analyse` has the good one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from blackstart.check.analyse import analyse
from blackstart.model.record import SignalSeen
from blackstart.model.verdict import Verdict

if TYPE_CHECKING:
    from blackstart.model.outcome import ChecklistItem

MS = 1_000_000
T0 = 10**12
RECOVERED = T0 + 20 * MS
EXCHANGE, MONITORING, DATABASE, LEAKS, THREADS = 6, 9, 11, 14, 15


def tick(world: Any, number: int) -> ChecklistItem:
    """Analyse, and return one item."""
    return analyse(world.history()).checklist[number - 1]


def last_process(world: Any, count: int, **changes: Any) -> None:
    """Alter the component in its last samples."""
    world.samples[-count:] = [
        msgspec.structs.replace(s, components={"engine": {**s.components["engine"], **changes}})
        for s in world.samples[-count:]
    ]


@pytest.mark.parametrize(
    ("scraped_ns", "verdict"),
    [
        (RECOVERED + 1, Verdict.PASS),
        (RECOVERED, Verdict.UNKNOWN),
        (T0 + 10 * MS, Verdict.UNKNOWN),
        (None, Verdict.UNKNOWN),
        (T0 + 3000 * MS, Verdict.UNKNOWN),
    ],
)
def test_monitoring_is_a_scrape_since_the_recovery(
    world: Any, scraped_ns: int | None, verdict: Verdict
) -> None:
    """Metrics that were fetched before the recovery, nobody knows when, or in the future show nothing."""
    metrics = {"scraped": 12, "last_scraped_mono_ns": scraped_ns}
    world.change("target/infrastructure", metrics=metrics)
    assert tick(world, MONITORING).verdict is verdict


def test_without_a_recovered_stamp_the_service_decides(world: Any) -> None:
    """Where the target did not tell of its recovery, metrics must be fetched after the service was back."""
    world.signals = [one for one in world.signals if not isinstance(one, SignalSeen)]
    for after_ms, verdict in ((25, Verdict.UNKNOWN), (35, Verdict.PASS)):
        metrics = {"scraped": 12, "last_scraped_mono_ns": T0 + after_ms * MS}
        world.change("target/infrastructure", metrics=metrics)
        item = tick(world, MONITORING)
        assert item.verdict is verdict, item.evidence


@pytest.mark.parametrize("number", [LEAKS, THREADS])
def test_too_few_samples_of_a_process_are_unknown(world: Any, number: int) -> None:
    """Three samples of a process that has just begun show neither a leak nor a stuck thread; four do."""
    last_process(world, 3, pid=43)
    item = tick(world, number)
    assert item.verdict is Verdict.UNKNOWN
    assert "engine: 3 samples" in item.evidence
    last_process(world, 4, pid=43)
    assert tick(world, number).verdict is Verdict.PASS
    assert "4 samples or more" in tick(world, number).evidence


def test_what_a_new_process_takes_is_no_leak(world: Any) -> None:
    """A process that was started after the fault takes its memory for the first time; an old one leaks."""
    last_process(world, 8, pid=43, rss=9 << 20)
    last_process(world, 6, pid=43, rss=160 << 20)
    trial = analyse(world.history())
    assert trial.validation["infrastructure"].verdict is Verdict.PASS
    assert trial.checklist[LEAKS - 1].verdict is Verdict.UNKNOWN
    assert "since its start after the fault" in trial.checklist[LEAKS - 1].evidence
    last_process(world, 12, pid=42)
    assert analyse(world.history()).validation["infrastructure"].verdict is Verdict.FAIL


def test_an_item_that_breaks_spoils_nothing_else(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial is judged all the same, and the item is UNKNOWN."""

    def broken(*_: Any) -> Any:
        raise ValueError("no such thing")

    metrics = {"scraped": 12, "last_scraped_mono_ns": RECOVERED + 1}
    world.change("target/infrastructure", metrics=metrics)
    monkeypatch.setattr("blackstart.check.rto.measure", broken)
    item = tick(world, MONITORING)
    assert item.verdict is Verdict.UNKNOWN
    assert "no such thing" in item.evidence


@pytest.mark.parametrize("number", [LEAKS, THREADS])
def test_a_component_that_is_gone_is_unknown(world: Any, number: int) -> None:
    """What was not there at the end was not measured at the end."""
    world.samples[-1] = msgspec.structs.replace(world.samples[-1], components={})
    assert tick(world, number).verdict is Verdict.UNKNOWN


def test_unseen_threads_are_unknown(world: Any) -> None:
    """The state of a process says nothing about those of its threads."""
    last_process(world, 1, thread_states=None)
    assert tick(world, THREADS).verdict is Verdict.UNKNOWN
    assert tick(world, LEAKS).verdict is Verdict.PASS


def test_without_heartbeats_threads_are_judged_from_outside_and_said_so(world: Any) -> None:
    """The evidence says whether the target states signs of life of its own."""
    assert "1 heartbeats stated by the target" in tick(world, THREADS).evidence
    for said in (world.before, world.documents):
        said["target/infrastructure"] = {**said["target/infrastructure"], "threads": None}
    item = tick(world, THREADS)
    assert item.verdict is Verdict.PASS
    assert "from outside only: the target states no heartbeats" in item.evidence


@pytest.mark.parametrize(("session", "verdict"), [({"FIRM": False}, Verdict.FAIL), ({}, Verdict.UNKNOWN)])
def test_the_exchange_is_asked_about_its_links(world: Any, session: Any, verdict: Verdict) -> None:
    """A link that only the target calls connected is not ticked."""
    assert "both sides say" in tick(world, EXCHANGE).evidence
    for said in (world.earlier, world.documents):
        said["oracle/connectivity"] = session
    assert tick(world, EXCHANGE).verdict is verdict


def test_a_word_that_nobody_checked_is_called_one(world: Any) -> None:
    """Links to database and queue rest on what the target says, and the evidence names it so."""
    assert "the target's own word" in tick(world, DATABASE).evidence
