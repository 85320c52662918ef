"""What looks good but was not really seen is UNKNOWN, and what was loosened says so."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from blackstart.check import analyse
from blackstart.history.view import History
from blackstart.model.record import LedgerFile, Reverted
from blackstart.model.verdict import Verdict

MS = 1_000_000
T0 = 10**12


def codes(world: Any) -> tuple[Verdict, set[str]]:
    """Say the verdict and which codes decided it."""
    trial = analyse(world.history())
    return trial.verdict, {reason.partition(":")[0] for reason in trial.reasons}


@pytest.mark.parametrize("off_ns", [-1, 1001 * MS])
def test_a_stamp_that_cannot_be_right_is_not_believed(world: Any, off_ns: int) -> None:
    """Stamped after it was seen, or more than a second before: UNKNOWN, and never used as it stands."""
    last = world.signals[-1]
    world.signals[-1] = msgspec.structs.replace(last, mono_ns=last.seen_mono_ns - off_ns)
    verdict, found = codes(world)
    assert verdict is Verdict.UNKNOWN
    assert "stamp-not-credible" in found
    stamp = analyse(world.history()).rto.stamps["t4_validated"]
    assert (stamp.mono_ns, stamp.uncertainty_ns) == (last.seen_mono_ns, abs(off_ns))


@pytest.mark.parametrize(("field", "declared"), [("content", {}), ("seq", {"ordered": "id"})])
def test_a_comparison_that_the_manifest_asks_for_must_be_made(
    world: Any, field: str, declared: dict[str, Any]
) -> None:
    """Declared content or order that the ledgers do not state leaves the trial UNKNOWN."""
    stream = msgspec.structs.replace(world.manifest.streams["executions"], **declared)
    world.manifest = msgspec.structs.replace(world.manifest, streams={"executions": stream})
    assert "not-checked" not in codes(world)[1]
    for row in world.ledgers["recovered"]:
        del row[field]
    verdict, found = codes(world)
    assert verdict is Verdict.UNKNOWN
    assert "not-checked" in found


def test_an_undo_that_nobody_could_compare_proves_nothing(world: Any) -> None:
    """Carried out, but not compared with what was before: it is not proven that the fault was taken back."""
    records = [
        msgspec.structs.replace(one, verified=None) if isinstance(one, Reverted) else one
        for one in world.records()
    ]
    trial = analyse(History.of(records, world.folder))
    assert trial.verdict is Verdict.UNKNOWN
    assert [reason.partition(":")[0] for reason in trial.reasons] == ["not-reverted"]
    assert trial.fault is not None
    assert trial.fault.reverted is None


def test_an_indeterminate_event_has_no_order_to_check(world: Any) -> None:
    """A write without an answer that is held nevertheless does not make the order unknown."""
    stream = msgspec.structs.replace(world.manifest.streams["executions"], ordered="id")
    world.manifest = msgspec.structs.replace(world.manifest, streams={"executions": stream})
    world.ledgers["acknowledged"][2] |= {"outcome": "info"}
    del world.ledgers["acknowledged"][2]["seq"]
    trial = analyse(world.history())
    assert trial.rpo.streams["executions"].counts["indeterminate"] == 1
    assert not trial.rpo.streams["executions"].not_checked
    assert not [reason for reason in trial.reasons if reason.startswith("not-checked")]


@pytest.mark.parametrize("field", ["content", "seq"])
def test_indeterminate_events_excuse_no_comparison_of_others(world: Any, field: str) -> None:
    """However many writes had no answer: content and order of what was acknowledged have to be compared."""
    stream = msgspec.structs.replace(world.manifest.streams["executions"], ordered="id")
    world.manifest = msgspec.structs.replace(world.manifest, streams={"executions": stream})
    world.ledgers["acknowledged"] += [{"key": f"I{n}", "outcome": "info", "mono_ns": T0} for n in range(9)]
    assert codes(world) == (Verdict.PASS, set())
    del world.ledgers["recovered"][0][field]
    assert codes(world) == (Verdict.UNKNOWN, {"not-checked"})


def test_why_an_order_is_not_checked_is_told(world: Any) -> None:
    """Where a manifest says why a stream has no order, that is told wherever order was not checked."""
    stream = msgspec.structs.replace(world.manifest.streams["executions"], unordered="a table has none")
    world.manifest = msgspec.structs.replace(world.manifest, streams={"executions": stream})
    for row in world.ledgers["recovered"]:
        del row["seq"]
    trial = analyse(world.history())
    told = [one for one in trial.rpo.streams["executions"].not_checked if "order" in one]
    assert len(told) == 1
    assert told[0].endswith("events (a table has none)")
    assert trial.verdict is Verdict.PASS


def test_a_gap_longer_than_the_objective_is_not_without_interruption(world: Any) -> None:
    """Where gaps as usual exceed the objective nobody can tell whether it was met."""
    services = {
        name: msgspec.structs.replace(one, epoch=None) for name, one in world.manifest.services.items()
    }
    world.manifest = msgspec.structs.replace(world.manifest, services=services)
    world.service = [(T0 + n * 10 * MS, f"1-C{n}", 1000) for n in range(-500, 150)]
    world.signals = []
    assert analyse(world.history()).rto.interrupted is False
    assert "objective-below-resolution" not in codes(world)[1]
    world.objectives(rto_ms=5)
    verdict, found = codes(world)
    assert verdict is Verdict.UNKNOWN
    assert "objective-below-resolution" in found


@pytest.mark.parametrize(("allowed", "found"), [(3, set()), (2, {"rpo-exceeded"}), (0, {"lost"})])
def test_the_allowance_of_losses_is_for_all_streams_together(
    world: Any, allowed: int, found: set[str]
) -> None:
    """Three streams that lose one event each have lost three, which is what the report shows and judges."""
    stream = world.manifest.streams["executions"]
    streams = dict.fromkeys(["executions", "copy", "archive"], stream)
    world.manifest = msgspec.structs.replace(world.manifest, streams=streams)
    world.objectives(rpo_events=allowed)
    world.ledgers["recovered"].pop()
    files = [one for one in world.records() if isinstance(one, LedgerFile)]
    world.extra = [msgspec.structs.replace(one, stream=name) for one in files for name in ("copy", "archive")]
    assert codes(world) == (Verdict.FAIL if found else Verdict.PASS, found)
    assert analyse(world.history()).rpo.events == 3


def test_a_loosened_objective_is_noted(world: Any) -> None:
    """A manifest that allows more than the scenario is noted; one that asks for more is not."""
    for rto_ms, note in ((400, ""), (2000, "rto_ms relaxed to 2,000 (scenario: 500)")):
        world.manifest = msgspec.structs.replace(world.manifest, objectives={"R1": {"rto_ms": rto_ms}})
        assert analyse(world.history()).note == note


def test_an_objective_loosened_in_the_plan_is_noted(world: Any) -> None:
    """A plan has the manifest's figures already; what the scenario itself stated is kept beside them."""
    world.plan = msgspec.structs.replace(world.plan, stated=world.plan.scenario.objectives)
    world.objectives(rto_ms=2000)
    assert analyse(world.history()).note == "rto_ms relaxed to 2,000 (scenario: 500)"
    world.objectives(rto_ms=400)
    assert analyse(world.history()).note == ""
