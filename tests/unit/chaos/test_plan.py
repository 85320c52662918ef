"""The planner on small manifests."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.chaos import profiles
from blackstart.chaos.model import Candidate, Profile
from blackstart.chaos.plan import apart, choices, episodes
from blackstart.faults import registry
from blackstart.model.manifest import Component, Limits, Link, Manifest
from blackstart.target import manifest as manifests
from paperfirm.config import EngineSettings

DOCUMENT = Path(__file__).parents[3] / "docs" / "chaos.md"

if TYPE_CHECKING:
    from blackstart.model.scenario import FaultStep


def manifest(**changes: Any) -> Manifest:
    """Make a firm of five parts, of which two stand in for each other."""
    settings: dict[str, Any] = {
        "schema": 1,
        "name": "firm",
        "environment": "test",
        "components": {
            **{name: Component(supervisor="firm") for name in ("primary", "standby", "router", "risk")},
            "firm": Component(),
        },
        "groups": {
            "each": ("primary", "router", "risk"),
            "warm": ("primary", "standby"),
            "hot": ("primary",),
        },
        "links": {"exchange": Link(ports=("1",), components=("router",)), "bus": Link(ports=("2",))},
        "limits": Limits(concurrent_faults=3),
        **changes,
    }
    return Manifest(**settings)


def profile(*candidates: Candidate, **changes: Any) -> Profile:
    """Make a profile."""
    settings: dict[str, Any] = {
        "name": "p",
        "title": "p",
        "environments": ("test",),
        "schedule": "-",
        "interval_s": (5.0, 10.0),
        **changes,
    }
    return Profile(fault=candidates, **settings)


def anything(_step: FaultStep) -> None:
    """Have nothing against any fault."""


KILL = Candidate(kind="kill", components=("@each",), weight=3)
LATENCY = Candidate(
    kind="latency", links=("*",), parameters={"delay_ms": {"min": 100, "max": 500}}, duration_s=(1.0, 4.0)
)


def test_a_candidate_stands_for_each_member_and_for_each_link() -> None:
    """`@each` gives one choice a member and `*` one a link; together they weigh what the candidate weighs."""
    found, left = choices(profile(KILL, LATENCY), manifest(), anything)
    assert [(one.candidate.kind, one.where) for one in found] == [
        ("kill", "primary"),
        ("kill", "router"),
        ("kill", "risk"),
        ("latency", "exchange"),
        ("latency", "bus"),
    ]
    assert sum(one.weight for one in found if one.candidate is KILL) == pytest.approx(3)
    assert left == []


def test_what_cannot_be_had_is_left_out_with_its_reason() -> None:
    """Faults that say why they cannot be done are never planned, and listed."""

    def unavailable(step: FaultStep) -> str | None:
        return "needs nft" if step.kind == "latency" else None

    found, left = choices(profile(KILL, LATENCY), manifest(), unavailable)
    assert {one.candidate.kind for one in found} == {"kill"}
    assert [(one.where, one.reason) for one in left] == [("exchange", "needs nft"), ("bus", "needs nft")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"limits": Limits(components=("risk",))}, "blast radius of the manifest"),
        ({"components": {"risk": Component()}}, "the manifest has no"),
    ],
)
def test_the_blast_radius_of_the_manifest_is_kept(changes: dict[str, Any], reason: str) -> None:
    """What the manifest does not allow, or does not have, is left out, and the rest stays."""
    found, left = choices(profile(KILL), manifest(**changes), anything)
    assert [one.where for one in found] == ["risk"]
    assert {one.where for one in left} == {"primary", "router"}
    assert all(reason in one.reason for one in left)


def test_the_profile_may_narrow_the_blast_radius() -> None:
    """Components outside the profile's own list are left out."""
    found, left = choices(profile(KILL, components=("router",)), manifest(), anything)
    assert [one.where for one in found] == ["router"]
    assert all("blast radius of the profile" in one.reason for one in left)


def test_stand_ins_ends_of_links_and_supervisors_are_one_resource() -> None:
    """Primary and standby, a link and its end, the supervisor and anything at all never break together."""
    candidates = [
        Candidate(kind="kill", components=(name,))
        for name in ("primary", "standby", "router", "risk", "firm")
    ]
    found, _ = choices(profile(*candidates, LATENCY), manifest(), anything)
    at = {one.where: one for one in found}
    assert not apart(at["primary"], [at["standby"]])
    assert not apart(at["exchange"], [at["router"]])
    assert not apart(at["risk"], [at["firm"]])
    assert apart(at["primary"], [at["router"]])
    assert apart(at["bus"], [at["router"]])


def test_faults_without_a_place_share_the_host() -> None:
    """Two kinds of stress of the whole host never come together."""
    found, _ = choices(profile(Candidate(kind="cpu"), Candidate(kind="memory")), manifest(), anything)
    assert not apart(found[0], [found[1]])


def test_nothing_to_choose_from_gives_nothing() -> None:
    """Without a single choice the sequence is empty, not endless."""
    assert list(episodes(7, [], profile(), manifest())) == []


def test_the_first_episodes_of_a_seed_are_these() -> None:
    """A seed is a promise across versions: the sequence of seed 7 does not change unnoticed."""
    found, _ = choices(profile(KILL, LATENCY), manifest(), anything)
    begin = list(itertools.islice(episodes(7, found, profile(KILL, LATENCY), manifest()), 3))
    assert [
        (one.at_s, one.steps[0].kind, one.steps[0].components + one.steps[0].links) for one in begin
    ] == SEVEN


SEVEN = [(5.756, "kill", ("risk",)), (11.964, "kill", ("risk",)), (19.99, "kill", ("primary",))]


def test_a_checkpoint_is_waited_for_as_long_as_the_firm_takes() -> None:
    """The next one comes within 30 s: who waits for less loses a third of the picks."""
    waits = [
        one.trigger.limit_s
        for name in profiles.packaged()
        for one in profiles.load(name).fault
        if one.trigger.event == "checkpoint-written"
    ]
    assert waits
    assert min(waits) > EngineSettings().checkpoint_s


def test_staging_has_every_kind_but_those_that_the_documents_give_a_reason_for() -> None:
    """A new kind of fault is either in it, or stands in docs/chaos.md with why it is not."""
    section = DOCUMENT.read_text(encoding="utf-8").split("### Staging")[1].split("\n## ")[0]
    excused = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    chosen = {one.kind for one in profiles.load("staging").fault}
    built_in = {make().name for make in registry._BUILT_IN}
    assert chosen | excused == built_in
    assert chosen & excused == set()


def test_staging_can_be_had_on_the_reference_firm() -> None:
    """Each candidate finds its place there: no group, link or component of it is missing."""
    firm = manifests.load("paperfirm")
    _, left = choices(profiles.load("staging"), firm, lambda _step: None)
    assert left == []
