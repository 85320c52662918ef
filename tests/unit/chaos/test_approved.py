"""What a session may do at most, as an approval is asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from blackstart.chaos import approved, log, profiles, programme
from blackstart.chaos.model import Candidate, Episode, Orders, Profile, Radius
from blackstart.engine import permit
from blackstart.errors import PermitError, ScenarioError
from blackstart.model.approval import Approval, Grant
from blackstart.model.manifest import Component, Limits, Manifest, Process
from blackstart.model.scenario import FaultStep

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.scenario.approved import Wish

NS = 1_000_000_000
MANIFEST = Manifest(
    schema=1,
    name="firm",
    environment="production",
    components={"a": Component(process="e"), "b": Component(process="e")},
    processes={"e": Process(command=("true",))},
    limits=Limits(components=("a",)),
)
PROFILE = Profile(
    name="careful",
    title="-",
    environments=("production",),
    schedule="-",
    approval=True,
    fault=(
        Candidate(kind="pause", components=("@each",), duration_s=(1.0, 4.0)),
        Candidate(kind="kill", components=("a",)),
    ),
    for_s=60.0,
    interval_s=(10.0, 20.0),
    recovery_limit_s=5.0,
    settle_s=2.0,
)


def wish(profile: Profile = PROFILE, manifest: Manifest = MANIFEST, **orders: Any) -> Wish:
    """Return what a session of a minute may do."""
    settings = {"for_s": 60.0, **orders}
    return approved.wish(Orders(target="t", profile=profile, seed=7, **settings), manifest, None)


def test_everything_that_may_be_drawn_is_wished() -> None:
    """Each fault at each place within the limits of manifest and profile, and none outside."""
    found = wish()
    assert [(step.kind, step.components) for step in found.steps] == [("pause", ("a",)), ("kill", ("a",))]
    assert (found.at_once, found.interval_s) == (1, 10.0)
    assert found.longest_s == pytest.approx(30 + 10 + 60 + 5 + 60 + (4 + 5 + 2)), "with all its limits"
    wide = msgspec.structs.replace(MANIFEST, limits=Limits())
    assert len(wish(manifest=wide).steps) == 3
    two = msgspec.structs.replace(PROFILE, concurrent_faults=2, overlap=0.5)
    assert wish(two, wide).at_once == 2
    narrow = msgspec.structs.replace(PROFILE, components=("b",))
    with pytest.raises(ScenarioError, match="nothing can be broken"):
        wish(narrow)


def test_a_session_without_an_end_is_refused() -> None:
    """An approval has one."""
    with pytest.raises(ScenarioError, match="it has no end"):
        wish(for_s=None)


def test_a_replay_wishes_what_it_holds() -> None:
    """Its own faults, as close and as many together as they were, however long it takes."""
    kill, pause = (
        FaultStep(kind="kill", components=("a",)),
        FaultStep(kind="pause", components=("b",), duration_s=3.0),
    )
    replayed = (
        Episode(number=1, at_s=10.0, steps=(kill,)),
        Episode(number=2, at_s=14.0, steps=(kill, pause)),
    )
    found = wish(replayed=replayed, for_s=None)
    assert found.steps == (kill, kill, pause)
    assert (found.at_once, found.interval_s) == (2, 4.0)
    assert found.longest_s == pytest.approx(wish().longest_s - 60.0 + 17.0)


def test_options_that_narrow_keep_the_approval_and_a_changed_profile_does_not() -> None:
    """Components, symbols and the interval are limited by the approval itself; all else is the profile's."""
    first = approved.fingerprint(PROFILE)
    for same in (
        {"components": ("a",)},
        {"interval_s": (1.0, 1.0)},
        {"radius": Radius(symbols=("ALFA",))},
    ):
        assert approved.fingerprint(msgspec.structs.replace(PROFILE, **same)) == first
    for other in (
        {"load_share": 0.5},
        {"recovery_limit_s": 6.0},
        {"fault": PROFILE.fault[:1]},
        {"radius": Radius(silent_s=9.0)},
    ):
        assert approved.fingerprint(msgspec.structs.replace(PROFILE, **other)) != first


def test_whoever_needs_an_approval_is_asked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Production by its environment, any other by its profile; everybody else is not asked."""
    asked: list[str] = []

    def grant(manifest: Manifest, *_: Any, **__: Any) -> None:
        asked.append(str(manifest.environment))

    monkeypatch.setattr(permit, "grant", grant)
    free = msgspec.structs.replace(PROFILE, approval=False)
    staging = msgspec.structs.replace(MANIFEST, environment="staging")
    for profile, manifest in ((PROFILE, MANIFEST), (free, MANIFEST), (PROFILE, staging), (free, staging)):
        orders = Orders(target="t", profile=profile, seed=7, for_s=1.0)
        programme.granted(orders, manifest, tmp_path, 0)
    assert asked == ["production", "production", "staging"]


def test_the_shipped_profile_for_production_is_for_nothing_else() -> None:
    """It needs an approval, has an end, and one fault at a time."""
    profile = profiles.load("production")
    profiles.check(profile, MANIFEST)
    with pytest.raises(PermitError, match="is for production"):
        profiles.check(profile, msgspec.structs.replace(MANIFEST, environment="staging"))
    hot = msgspec.structs.replace(MANIFEST, groups={"hot": ("a",)})
    found = wish(profile, hot, for_s=profile.for_s)
    assert (found.at_once, found.interval_s) == (1, 180.0)
    assert [(step.kind, step.components) for step in found.steps] == [("kill", ("a",))]


def granted() -> Grant:
    """Make one that ends at second 1000."""
    approval = Approval(
        target="firm",
        manifest_sha256="",
        what={},
        kinds=(),
        from_wall_ns=0,
        until_wall_ns=1000 * NS,
        markets=(),
        margin_s=0,
        reason="",
    )
    return Grant(
        approval=approval,
        sha256="",
        signers=(),
        used_by="",
        used_wall_ns=0,
        ends_wall_ns=1000 * NS,
        opens={},
        place="",
    )


def test_the_last_fault_leaves_time_for_its_recovery() -> None:
    """Nothing is broken that could not be over by the end: its length, recovery and books before that."""
    orders = Orders(target="t", profile=PROFILE, seed=7, not_after_wall_ns=2000 * NS)
    assert programme.by_approval(orders, granted()).not_after_wall_ns == 989 * NS
    earlier = msgspec.structs.replace(orders, not_after_wall_ns=500 * NS)
    assert programme.by_approval(earlier, granted()).not_after_wall_ns == 500 * NS
    assert programme.by_approval(orders, None) == orders


def test_an_approval_is_not_replayed(tmp_path: Path) -> None:
    """A recording of a session in production asks for an approval of its own."""
    step = FaultStep(kind="kill", components=("a",))
    episode = Episode(number=1, at_s=1.0, steps=(step,))
    orders = Orders(target="t", profile=PROFILE, seed=7, replayed=(episode,), approval=granted())
    log.write(tmp_path / log.RECORDING, orders)
    assert log.load_orders(tmp_path / log.RECORDING).approval == granted()
    assert log.load_recording(tmp_path).approval is None
