"""What is promised of every fault (docs/CREATING_FAULTS.md), tried on every kind of the registry."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import sabotage
from plays import Play, Plays

from blackstart.cli import doctor
from blackstart.faults import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = sorted(registry.known())

# Nothing stays in place after these: there is nothing to take back but what the operator does.
DEEDS = {"kill", "terminate", "cold", "crash_loop", "stop_service"}
# The target has to find the damage and heal; its undo is carried out when all has been read.
DAMAGE = {"flip_file_bits", "truncate_file", "flip_memory_bits"}
# These need nothing that a host could forbid: a signal to a process, a file, a question to a server.
FREE = (
    DEEDS
    | DAMAGE
    | {
        "segv",
        "pause",
        "pause_service",
        "refuse_service",
        "misbehave",
        "disconnect",
        "nonsense",
        "oom",
        "cpu_stress",
        "cpu_quota",
    }
)
# What does not need its component: a link has its ports, a file its bytes.
HEEDLESS = DAMAGE | {
    "partition",
    "packet_loss",
    "reset",
    "latency",
    "reorder",
    "duplicate_packets",
    "corrupt_packets",
    "bandwidth",
    "slow_reader",
}
# As an ordinary user: where the mechanism is another one, and one of each family.
ORDINARY = [
    "clock_skew",
    "cpu_quota",
    "cpu_stress",
    "disk_error",
    "disk_full",
    "flip_memory_bits",
    "kill",
    "kill_at_syscall",
    "latency",
    "partition",
    "pause",
    "segv",
]


@pytest.fixture(scope="module")
def plays(request: pytest.FixtureRequest) -> Iterator[Plays]:
    """Play each kind that is asked for once."""
    asked = [
        item.callspec
        for item in request.session.items
        if hasattr(item, "callspec") and item.path == request.path
    ]
    mine = {one.params["kind"] for one in asked if "kind" in one.params}
    ordinary = {one.params["ordinary"] for one in asked if "ordinary" in one.params}
    found = Plays(sorted(mine), sorted(ordinary))
    yield found
    found.close()


@pytest.fixture(scope="module")
def findings() -> dict[str, doctor.Finding]:
    """Ask doctor about the reference firm once."""
    return {one.what: one for one in doctor._faults("paperfirm")}


def clean(part: Play) -> None:
    """See that it was played to its end, that every undo was verified, twice, and that nothing is left."""
    assert part.get("mistake") is None, part["mistake"]
    assert part["left"] == {}
    assert part.get("failed", []) == []
    assert part.get("again_failed", []) == []


def played(plays: Plays, kind: str) -> Play:
    """Return the play of a kind that can be had here."""
    found = plays.of(kind)
    if found["unavailable"] is not None:
        pytest.skip(f"not to be had here: {found['unavailable']}")
    if kind == "oom" and os.geteuid() != 0:
        pytest.skip("not looked at: without a control group the small system hangs on its limit, and lives")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_doctor_tries_it(plays: Plays, findings: dict[str, doctor.Finding], kind: str) -> None:
    """Doctor has an entry for it, which says that it works where it does, and else what is missing."""
    entry = findings[f"fault {kind}"]
    works = plays.of(kind)["unavailable"] is None
    assert (entry.state == "works") == works, entry
    assert entry.how
    assert works or entry.hint


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_that_forbids_it_is_named_with_its_reason(plays: Plays, kind: str) -> None:
    """What needs the host's leave says why it has none, and doctor says the same; the others need none."""
    found = plays.of(kind)["forbidden"]
    if kind in FREE:
        assert (found["reason"], found["doctor"]) == (None, "works")
        return
    assert sabotage.WHY in found["reason"]
    assert found["doctor"] == "optional"
    assert sabotage.WHY in found["hint"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_there_makes_the_trial_unknown_with_the_reason(plays: Plays, kind: str) -> None:
    """A component, link, data or exchange that the target lacks: named, before anything is started."""
    whole = plays.of(kind)
    found, not_here = whole["wrong"], whole["unavailable"]
    assert "nowhere" in found["reason"] or "exchange" in found["reason"] or found["reason"] == not_here
    assert found["verdict"] == "UNKNOWN"
    assert found["reasons"][0].startswith("fault-unavailable")
    assert found["reason"] in found["reasons"][0]


@pytest.mark.parametrize("kind", KINDS)
def test_it_bites_and_is_taken_back(plays: Plays, kind: str) -> None:
    """Protected on disk before it takes effect, witnessed, reverted twice; then all is as before."""
    part = played(plays, kind)["revert"]
    clean(part)
    assert part["mechanism"]
    assert part["bit"] is True, part["evidence"]
    assert part["not_before"] == []
    assert bool(part["undos"]) == (kind not in DEEDS)
    assert bool(part["receipt_undos"]) == (kind not in DEEDS | DAMAGE)


@pytest.mark.parametrize("kind", KINDS)
def test_the_guardian_alone_takes_it_back(plays: Plays, kind: str) -> None:
    """What it owes is on record while the fault is there; its undos do all, and a late revert no harm."""
    part = played(plays, kind)["guardian"]
    clean(part)
    assert part["bit"] is True, part["evidence"]
    assert part["not_on_record"] == []
    assert sorted(part["told"]) == sorted(part["undos"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_deed_that_was_left_out_is_not_witnessed(plays: Plays, kind: str) -> None:
    """Where the deed did nothing the witness says so; a witness that cannot say no proves nothing."""
    part = played(plays, kind)["sabotage"]
    clean(part)
    assert part["bit"] is False, part.get("refused") or part["evidence"]


@pytest.mark.parametrize("kind", KINDS)
def test_twice_on_one_resource_leaves_nothing(plays: Plays, kind: str) -> None:
    """The second is refused or comes on top; taken back newest first, all is as before."""
    part = played(plays, kind)["overlap"]
    clean(part)


@pytest.mark.parametrize("kind", KINDS)
def test_twice_on_one_resource_leaves_the_guardian_nothing(plays: Plays, kind: str) -> None:
    """The same, taken back by the guardian alone."""
    part = played(plays, kind)["at_once"]
    clean(part)


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_that_is_down_is_told(plays: Plays, kind: str) -> None:
    """What needs the dead component says that it is not there; whatever comes of it, nothing is left."""
    found = played(plays, kind)
    part = found["down"]
    clean(part)
    if kind not in HEEDLESS:
        assert any(
            word in part["refused"] for word in (part["name"], "line", "cannot connect", "cannot be reached")
        )
    assert found["after"] == []


@pytest.mark.parametrize("ordinary", ORDINARY)
def test_an_ordinary_user_has_it_by_another_way(plays: Plays, ordinary: str) -> None:
    """Without privilege, with the mechanism that is left: the same promises, or the reason why not."""
    found = plays.of(ordinary, ordinary=True)
    if found["unavailable"] is not None:
        pytest.skip(f"not to be had here: {found['unavailable']}")
    for name in ("revert", "guardian", "sabotage", "overlap", "at_once", "down"):
        clean(found[name])
    assert found["revert"]["bit"] in (True, None)
    assert found["sabotage"]["bit"] is not True
