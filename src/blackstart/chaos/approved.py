"""What a session may come to do at most: the wish that an approval is asked for (R21, R23). Pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from blackstart.chaos.episode import lasts_s
from blackstart.chaos.model import Radius
from blackstart.chaos.plan import choices
from blackstart.errors import ScenarioError
from blackstart.scenario import approved
from blackstart.scenario.approved import Wish

if TYPE_CHECKING:
    from blackstart.chaos.model import Candidate, Orders, Profile
    from blackstart.chaos.plan import Choice
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep


def name(profile: Profile) -> str:
    """Return what an approval calls a profile."""
    return f"profile {profile.name}"


def fingerprint(profile: Profile) -> str:
    """Return the hash of a profile, apart from what an approval limits by itself and options may narrow."""
    radius = msgspec.structs.replace(profile.radius or Radius(), symbols=(), share=None)
    return approved.fingerprint(
        msgspec.structs.replace(profile, interval_s=(0.0, 0.0), components=None, radius=radius)
    )


def wish(orders: Orders, manifest: Manifest, allowed: frozenset[str] | None) -> Wish:
    """Return everything that a session may do; `allowed` are the symbols that it may disturb.

    Raises ScenarioError when it has no end of its own, or nothing of the profile has a place here.
    """
    profile = orders.profile
    if orders.replayed is not None:
        steps = [list(one.steps) for one in orders.replayed]
        begins = [one.at_s for one in orders.replayed]
        interval_s = min((b - a for a, b in itertools.pairwise(begins)), default=profile.interval_s[0])
        at_once = max((sum(map(approved.size, one)) for one in steps), default=0)
        last_s = max((one.at_s + lasts_s(one.steps) for one in orders.replayed), default=0.0)
    else:
        found, left = choices(profile, manifest, lambda _step: None, allowed)
        if not found:
            why = "; ".join(f"{one.kind}: {one.reason}" for one in left)
            raise ScenarioError(f"nothing can be broken: {why}", where=f"profile {profile.name}")
        steps = [_steps(one) for one in found]
        interval_s, at_once = profile.interval_s[0], _at_once(found, profile, manifest)
        if orders.for_s is None:
            hint = "say for how long: --for 15m"
            raise ScenarioError("it has no end, and an approval has one", where="--for", hint=hint)
        last_s = orders.for_s
    return Wish(
        what={name(profile): fingerprint(profile)},
        steps=tuple(step for one in steps for step in one),
        at_once=at_once,
        interval_s=interval_s,
        longest_s=approved.up_and_down_s(manifest) + profile.recovery_limit_s + last_s + tail_s(profile),
    )


def tail_s(profile: Profile) -> float:
    """Return how long it may take, in seconds, from the last moment of chaos until all is at rest."""
    longest = max((_longest(one) for one in profile.fault), default=0.0)
    return longest + profile.recovery_limit_s + profile.settle_s


def _longest(candidate: Candidate) -> float:
    return 0.0 if candidate.duration_s is None else candidate.duration_s[1]


def _steps(one: Choice) -> list[FaultStep]:
    """Return the fault for each symbol that it may be kept to."""
    return [msgspec.structs.replace(one.step(), symbols=(symbol,)) for symbol in one.symbols] or [one.step()]


def _at_once(found: list[Choice], profile: Profile, manifest: Manifest) -> int:
    """Return how many places may be broken together at most."""
    sizes = sorted((approved.size(one.step()) for one in found), reverse=True)
    together = profile.concurrent_faults if profile.overlap > 0 else 1
    most = sum(sizes[:together])
    return max(sizes[0], min(most, manifest.limits.concurrent_faults)) if together > 1 else sizes[0]
