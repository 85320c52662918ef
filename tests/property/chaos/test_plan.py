"""Whatever the profile: the planner is deterministic, and keeps every limit."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from blackstart.chaos.model import Candidate, Profile
from blackstart.chaos.plan import choices, episodes
from blackstart.model.manifest import Component, Limits, Link, Manifest

if TYPE_CHECKING:
    from blackstart.chaos.model import Episode
    from blackstart.chaos.plan import Choice
    from blackstart.model.scenario import FaultStep

NAMES = ("primary", "standby", "router", "risk", "feed", "firm")
LOOKED_AT = 25

manifests = st.builds(
    lambda concurrent, allowed, limit: Manifest(
        schema=1,
        name="firm",
        environment="test",
        components={name: Component(supervisor=None if name == "firm" else "firm") for name in NAMES},
        groups={"each": NAMES[:5], "warm": ("primary", "standby")},
        links={"exchange": Link(ports=("1",), components=("router",)), "bus": Link(ports=("2",))},
        limits=Limits(concurrent_faults=concurrent, components=allowed, fault_limit_s=limit),
    ),
    st.integers(1, 4),
    st.none() | st.sets(st.sampled_from(NAMES), min_size=1).map(lambda names: tuple(sorted(names))),
    st.floats(1.0, 120.0),
)
candidates = st.lists(
    st.builds(
        lambda kind, place, span, weight: Candidate(
            kind=kind,
            components=place[0],
            links=place[1],
            parameters={"delay_ms": {"min": 100, "max": 500}},
            duration_s=span,
            weight=weight,
        ),
        st.sampled_from(("kill", "pause", "latency", "cpu")),
        st.sampled_from(((("@each",), ()), (("@warm",), ()), ((), ("*",)), ((), ()), (("firm",), ()))),
        st.none() | st.tuples(st.floats(0.1, 5.0), st.floats(5.0, 300.0)),
        st.floats(0.1, 10.0),
    ),
    min_size=1,
    max_size=6,
)
profiles = st.builds(
    lambda faults, overlap, concurrent, low, more: Profile(
        name="p",
        title="p",
        environments=("test",),
        schedule="-",
        fault=tuple(faults),
        overlap=overlap,
        concurrent_faults=concurrent,
        interval_s=(low, low + more),
    ),
    candidates,
    st.floats(0.0, 1.0),
    st.integers(1, 4),
    st.floats(0.5, 60.0),
    st.floats(0.0, 60.0),
)


def planned(seed: int, profile: Profile, manifest: Manifest) -> tuple[list[Choice], list[Episode]]:
    """Plan the first episodes."""
    found, _ = choices(profile, manifest, lambda _step: None)
    return found, list(itertools.islice(episodes(seed, found, profile, manifest), LOOKED_AT))


@given(st.integers(0, 2**63), profiles, manifests)
def test_the_same_seed_gives_the_same_sequence(seed: int, profile: Profile, manifest: Manifest) -> None:
    """Planned twice, it is equal to the last parameter."""
    assert planned(seed, profile, manifest) == planned(seed, profile, manifest)


@given(st.integers(0, 2**63), profiles, manifests)
def test_moments_keep_the_interval(seed: int, profile: Profile, manifest: Manifest) -> None:
    """From one disturbance to the next it is never shorter or longer than the interval says."""
    _, found = planned(seed, profile, manifest)
    low, high = profile.interval_s
    moments = [0.0, *(one.at_s for one in found)]
    assert all(low - 0.01 <= later - earlier <= high + 0.01 for earlier, later in itertools.pairwise(moments))


@given(st.integers(0, 2**63), profiles, manifests)
def test_limits_are_kept(seed: int, profile: Profile, manifest: Manifest) -> None:
    """Never too many faults or components at once, none outside the blast radius, none for too long."""
    limits = manifest.limits
    for episode in planned(seed, profile, manifest)[1]:
        assert 1 <= len(episode.steps) <= max(1, profile.concurrent_faults)
        assert sum(max(1, len(step.components)) for step in episode.steps) <= limits.concurrent_faults
        for step in episode.steps:
            assert limits.components is None or set(step.components) <= set(limits.components)
            assert step.duration_s is None or step.duration_s <= limits.fault_limit_s
            assert 100 <= step.parameters["delay_ms"] <= 500


@given(st.integers(0, 2**63), profiles, manifests)
def test_no_two_faults_share_a_resource(seed: int, profile: Profile, manifest: Manifest) -> None:
    """What breaks together has nothing in common: no part, no stand-in, no end of a link, not the host."""
    _, planning = planned(seed, profile, manifest)
    for episode in planning:
        for one, other in itertools.combinations(episode.steps, 2):
            assert not taken(one) & taken(other)
            assert "firm" not in one.components + other.components


def taken(step: FaultStep) -> set[str]:
    """Say in the words of this firm what a fault has hold of."""
    held = {"engines" if name in ("primary", "standby") else name for name in step.components}
    held |= {f"link {name}" for name in step.links}
    held |= {"router"} if "exchange" in step.links else set()
    return held or {"host"}
