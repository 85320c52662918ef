"""The planner: from seed, manifest and profile to a sequence of disturbances. Same seed, same sequence.

A disturbance is one fault, or several at once. What breaks together never shares a resource, and never goes
beyond the blast radius of manifest and profile. Pure.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.chaos.model import Candidate, Episode, LeftOut
from blackstart.model.scenario import FaultStep, Trigger
from blackstart.scenario import radius, seeds

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from blackstart.chaos.model import Orders, Profile
    from blackstart.model.manifest import Manifest

EACH = "@each"
ANY = "*"
EVERYTHING = "everything"
HOST = "host"
_LATEST_S = 2.0
_FIRST_LIMIT_S = 30.0


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate at one place, and what it takes hold of there; it is kept to one of its `symbols`."""

    candidate: Candidate
    components: tuple[str, ...]
    links: tuple[str, ...]
    weight: float
    resources: frozenset[str]
    symbols: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Say it in words."""
        return " + ".join((*self.components, *self.links)) or "host"

    def step(self) -> FaultStep:
        """Return the fault with everything that is drawn at its lowest: to ask whether it can be had."""
        return FaultStep(
            kind=self.candidate.kind,
            components=self.components,
            links=self.links,
            parameters={name: _lowest(value) for name, value in self.candidate.parameters.items()},
            duration_s=self.candidate.duration_s[0] if self.candidate.duration_s else None,
            symbols=self.symbols[:1],
        )


class Planned:
    """What a session may break, and in which order: drawn from the seed, or as it was recorded."""

    def __init__(
        self,
        found: Sequence[Choice],
        orders: Orders,
        manifest: Manifest,
    ) -> None:
        self._found, self._orders, self._manifest = list(found), orders, manifest

    def steps(self) -> list[FaultStep]:
        """Return every fault that may come, as it is to be prepared for."""
        if self._orders.replayed is not None:
            return [step for one in self._orders.replayed for step in one.steps]
        return [one.step() for one in self._found]

    def leave_out(self, step: FaultStep, reason: str) -> LeftOut | None:
        """Break everything but this; None for a recording, which says what must be done."""
        if self._orders.replayed is not None:
            return None
        gone = next(one for one in self._found if one.step() == step)
        self._found = [one for one in self._found if one.step() != step]
        return LeftOut(kind=step.kind, where=gone.where, reason=reason)

    def __iter__(self) -> Iterator[Episode]:
        """Yield what to do; what was left out before is not among it."""
        orders = self._orders
        if orders.replayed is not None:
            return iter(orders.replayed)
        return episodes(orders.seed, self._found, orders.profile, self._manifest)


def choices(
    profile: Profile,
    manifest: Manifest,
    unavailable: Callable[[FaultStep], str | None],
    allowed: frozenset[str] | None = None,
) -> tuple[list[Choice], list[LeftOut]]:
    """Find every fault that the profile wishes and that can be had; and the others, with the reason.

    `allowed` are the symbols that may be disturbed. A fault that would disturb others must be kept to one.
    """
    found: list[Choice] = []
    left: list[LeftOut] = []
    for candidate in profile.fault:
        for place in _places(candidate, manifest):
            one = _within(place, manifest, allowed)
            reason = _forbidden(one, profile, manifest) or unavailable(one.step())
            if reason is None:
                found.append(one)
            else:
                left.append(LeftOut(kind=candidate.kind, where=one.where, reason=reason))
    return found, left


def _within(one: Choice, manifest: Manifest, allowed: frozenset[str] | None) -> Choice:
    if allowed is None or radius.beyond(manifest, one.step(), allowed) is None:
        return one
    return msgspec.structs.replace(one, symbols=tuple(sorted(allowed)))


def _places(candidate: Candidate, manifest: Manifest) -> list[Choice]:
    spots = [
        (components, links)
        for components in _alternatives(candidate.components, EACH, _each(manifest), manifest)
        for links in _alternatives(candidate.links, ANY, tuple(manifest.links), manifest)
    ]
    return [
        Choice(
            candidate=candidate,
            components=components,
            links=links,
            weight=candidate.weight / len(spots),
            resources=resources(candidate, components, links, manifest),
        )
        for components, links in spots
    ]


def _each(manifest: Manifest) -> tuple[str, ...]:
    return manifest.groups.get("each", tuple(manifest.components))


def _alternatives(
    names: Sequence[str], wild: str, members: Sequence[str], manifest: Manifest
) -> list[tuple[str, ...]]:
    """Return one alternative for each member where the wild card stands; else the names, groups resolved."""
    if wild in names:
        return [(one,) for one in members]
    flat = [
        one
        for name in names
        for one in (manifest.groups.get(name[1:], (name,)) if name[:1] == "@" else (name,))
    ]
    return [tuple(dict.fromkeys(flat))]


def _forbidden(one: Choice, profile: Profile, manifest: Manifest) -> str | None:
    """Say what the blast radius or the manifest has against it."""
    for allowed, what in ((manifest.limits.components, "the manifest"), (profile.components, "the profile")):
        outside = [] if allowed is None else [name for name in one.components if name not in allowed]
        if outside:
            return f"{', '.join(outside)} may not be broken: outside the blast radius of {what}"
    unknown = [name for name in one.components if name not in manifest.components]
    unknown += [name for name in one.links if name not in manifest.links]
    if unknown:
        return f"the manifest has no {', '.join(unknown)}"
    if len(one.components) > manifest.limits.concurrent_faults:
        return f"{len(one.components)} components at once, {manifest.limits.concurrent_faults} allowed"
    return None


def resources(
    candidate: Candidate, components: Sequence[str], links: Sequence[str], manifest: Manifest
) -> frozenset[str]:
    """Name what a fault takes hold of: components, those that stand in for them, links and their ends, data.

    Whoever starts the others again counts as everything; a fault without a place has hold of the host.
    """
    taken = set(components) | {f"link:{name}" for name in links}
    taken |= {end for name in links if name in manifest.links for end in manifest.links[name].components}
    for pair in ("warm", "hot"):
        if taken & set(manifest.groups.get(pair, ())):
            taken.add(f"group:{pair}")
    supervisors = {spec.supervisor for spec in manifest.components.values() if spec.supervisor}
    if taken & supervisors:
        taken.add(EVERYTHING)
    data = candidate.parameters.get("data")
    if isinstance(data, str):
        taken.add(f"data:{data}")
    return frozenset(taken or {HOST})


def apart(one: Choice, others: Iterable[Choice]) -> bool:
    """Say whether a fault shares no resource with any of the others."""
    return all(
        not one.resources & other.resources and EVERYTHING not in one.resources | other.resources
        for other in others
    )


def episodes(seed: int, found: Sequence[Choice], profile: Profile, manifest: Manifest) -> Iterator[Episode]:
    """Yield disturbances without end; how many of them are done is the session's affair."""
    at_s = 0.0
    for number in itertools.count(1) if found else ():
        rng = seeds.stream(seed, f"chaos:{number}", "episode")
        at_s += rng.uniform(*profile.interval_s)
        yield Episode(number=number, at_s=round(at_s, 3), steps=_steps(rng, found, profile, manifest))


def _steps(
    rng: random.Random, found: Sequence[Choice], profile: Profile, manifest: Manifest
) -> tuple[FaultStep, ...]:
    together = [_draw(rng, found)]
    wanted = rng.randint(2, profile.concurrent_faults) if _overlaps(rng, profile) else 1
    while len(together) < wanted:
        room = manifest.limits.concurrent_faults - sum(_size(one) for one in together)
        fitting = [one for one in found if _size(one) <= room and apart(one, together)]
        if not fitting:
            break
        together.append(_draw(rng, fitting))
    steps = [_step(rng, one, manifest.limits.fault_limit_s) for one in together]
    return (steps[0], *(_following(rng, before, step) for before, step in itertools.pairwise(steps)))


def _overlaps(rng: random.Random, profile: Profile) -> bool:
    return rng.random() < profile.overlap and profile.concurrent_faults > 1


def _size(one: Choice) -> int:
    """How much of the manifest's limit a fault uses up."""
    return max(1, len(one.components))


def _draw(rng: random.Random, found: Sequence[Choice]) -> Choice:
    return rng.choices(found, weights=[one.weight for one in found])[0]


def _step(rng: random.Random, one: Choice, limit_s: float) -> FaultStep:
    span = one.candidate.duration_s
    return FaultStep(
        kind=one.candidate.kind,
        components=one.components,
        links=one.links,
        parameters={name: _drawn(rng, value) for name, value in one.candidate.parameters.items()},
        duration_s=None if span is None else min(limit_s, round(rng.uniform(*span), 3)),
        trigger=one.candidate.trigger,
        symbols=(rng.choice(one.symbols),) if one.symbols else (),
    )


def _following(rng: random.Random, before: FaultStep, step: FaultStep) -> FaultStep:
    """Let a fault come while the one before it lasts, or while the target recovers from it."""
    delay_s = round(rng.uniform(0.0, min(_LATEST_S, before.duration_s or 0.5)), 3)
    return msgspec.structs.replace(step, trigger=Trigger(at="delay", delay_s=delay_s, limit_s=_FIRST_LIMIT_S))


def _drawn(rng: random.Random, value: Any) -> Any:
    if _is_span(value):
        low, high = value["min"], value["max"]
        whole = isinstance(low, int) and isinstance(high, int)
        return rng.randint(low, high) if whole else round(rng.uniform(low, high), 3)
    return rng.choice(value["one_of"]) if _is_choice(value) else value


def _lowest(value: Any) -> Any:
    if _is_span(value):
        return value["min"]
    return value["one_of"][0] if _is_choice(value) else value


def _is_span(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"min", "max"}


def _is_choice(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"one_of"}
