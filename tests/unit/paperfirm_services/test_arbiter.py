from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from paperfirm.supervisor.arbiter import Arbiter
from paperfirm.wire import Promote, Replication

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def living() -> set[str]:
    """Give the engines whose granted process lives; tests change it."""
    return set()


def arbiter_at(folder: Path, living: set[str]) -> Arbiter:
    """Return an arbiter with its state below a folder."""
    return Arbiter(folder / "epoch.json", living.__contains__)


def test_the_first_to_ask_becomes_primary(tmp_path: Path, living: set[str]) -> None:
    """Where there never was a primary, anybody may become one, once."""
    arbiter = arbiter_at(tmp_path, living)
    assert arbiter.promote(Promote("engine-b", 0)).granted
    living.add("engine-b")
    refused = arbiter.promote(Promote("engine-a", 0))
    assert (refused.granted, refused.epoch, refused.primary) == (False, 1, "engine-b")


def test_a_living_primary_keeps_its_epoch(tmp_path: Path, living: set[str]) -> None:
    """A standby in step gets nothing while the old primary lives, and everything once it is dead."""
    arbiter = arbiter_at(tmp_path, living)
    arbiter.promote(Promote("engine-a", 0))
    living.add("engine-a")
    assert arbiter.replication(Replication("engine-a", 1, in_sync=True))
    assert arbiter.must_wait(Promote("engine-b", 1))
    assert "lives" in arbiter.promote(Promote("engine-b", 1)).reason
    living.clear()
    assert not arbiter.must_wait(Promote("engine-b", 1))
    assert arbiter.promote(Promote("engine-b", 1)).granted
    assert arbiter.tenure.in_sync is False


def test_a_standby_that_missed_something_is_never_promoted(tmp_path: Path, living: set[str]) -> None:
    """Only an engine in step may take over; the old primary itself may always come back."""
    arbiter = arbiter_at(tmp_path, living)
    arbiter.promote(Promote("engine-a", 0))
    arbiter.replication(Replication("engine-a", 1, in_sync=True))
    arbiter.replication(Replication("engine-a", 1, in_sync=False))
    assert not arbiter.promote(Promote("engine-b", 1)).granted
    assert arbiter.promote(Promote("engine-a", 1)).epoch == 2


def test_a_fenced_engine_cannot_report(tmp_path: Path, living: set[str]) -> None:
    """What an old primary says about its standby is not believed."""
    arbiter = arbiter_at(tmp_path, living)
    arbiter.promote(Promote("engine-a", 0))
    arbiter.replication(Replication("engine-a", 1, in_sync=True))
    arbiter.promote(Promote("engine-b", 1))
    assert not arbiter.replication(Replication("engine-a", 1, in_sync=True))
    assert arbiter.tenure.in_sync is False


def test_compare_and_set(tmp_path: Path, living: set[str]) -> None:
    """A request that names another epoch than the present one changes nothing."""
    arbiter = arbiter_at(tmp_path, living)
    assert not arbiter.promote(Promote("engine-a", 4)).granted
    assert arbiter.promote(Promote("engine-a", 0)).granted
    assert not arbiter.promote(Promote("engine-a", 0)).granted


def test_what_was_granted_survives_the_supervisor(tmp_path: Path, living: set[str]) -> None:
    """A new supervisor on the same directory knows epoch, primary and whether the standby was in step."""
    first = arbiter_at(tmp_path, living)
    first.promote(Promote("engine-a", 0))
    first.replication(Replication("engine-a", 1, in_sync=True))
    assert arbiter_at(tmp_path, living).tenure == first.tenure


def test_nobody_is_promoted_while_the_firm_stops(tmp_path: Path, living: set[str]) -> None:
    """A standby must not take over from a primary that was told to end."""
    arbiter = arbiter_at(tmp_path, living)
    arbiter.promote(Promote("engine-a", 0))
    arbiter.replication(Replication("engine-a", 1, in_sync=True))
    arbiter.closed = True
    assert arbiter.promote(Promote("engine-b", 1)).reason == "the firm stops"


def test_a_hung_primary_is_passed_over_only_for_a_standby_in_step(tmp_path: Path, living: set[str]) -> None:
    """That it lives is no reason any more; that the standby may lack something still is."""
    arbiter = arbiter_at(tmp_path, living)
    arbiter.promote(Promote("engine-a", 0))
    living.add("engine-a")
    assert not arbiter.promote(Promote("engine-b", 1, silent=True), hung=True).granted
    arbiter.replication(Replication("engine-a", 1, in_sync=True))
    assert not arbiter.promote(Promote("engine-b", 1, silent=True)).granted
    assert arbiter.promote(Promote("engine-b", 1, silent=True), hung=True).epoch == 2
    assert not arbiter.replication(Replication("engine-a", 1, in_sync=False))
