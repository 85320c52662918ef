"""The blast radius by symbol: what is in it, what is kept to it, and whether anything else is disturbed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from blackstart.chaos import radius
from blackstart.chaos.model import Candidate, Profile, Radius
from blackstart.chaos.plan import choices, episodes
from blackstart.chaos.radius import Watch
from blackstart.engine import permit
from blackstart.errors import PermitError
from blackstart.faults import damage, registry
from blackstart.model.data import Region
from blackstart.model.manifest import Component, Limits, Link, Manifest, Service
from blackstart.model.record import ServiceBatch
from blackstart.model.scenario import FaultStep, Objectives, Plan, Scenario
from blackstart.scenario.radius import beyond, touched

NS = 1_000_000_000
ALL = ("ALFA", "BRAVO", "CHARLIE", "DELTA")


def manifest(**changes: Any) -> Manifest:
    """Return a target with four symbols, of whose two engines the second serves all."""
    settings: dict[str, Any] = {
        "schema": 1,
        "name": "firm",
        "environment": "test",
        "symbols": ALL,
        "components": {
            "one": Component(process="p", symbols=("ALFA", "BRAVO")),
            "all": Component(process="p"),
        },
        "links": {"exchange": Link(symbols=("CHARLIE",))},
        "services": {"orders": Service(source="oracle", event="order_accepted", symbol="symbol")},
        **changes,
    }
    return Manifest(**settings)


def profile(*faults: Candidate, **changes: Any) -> Profile:
    """Return a profile whose radius is ALFA, if nothing else is said."""
    settings = {"radius": Radius(symbols=("ALFA",)), **changes}
    return Profile(name="x", title="x", environments=("test",), schedule="-", fault=faults, **settings)


def step(kind: str = "kill", **settings: Any) -> FaultStep:
    """Return a fault."""
    return FaultStep(kind=kind, **settings)


def test_a_fault_disturbs_what_its_components_serve() -> None:
    """Those of all its components and links; all, where one does not say; its own, where it has some."""
    assert touched(manifest(), step(components=("one",))) == {"ALFA", "BRAVO"}
    assert touched(manifest(), step(components=("one",), links=("exchange",))) == {"ALFA", "BRAVO", "CHARLIE"}
    assert touched(manifest(), step(components=("one", "all"))) is None
    assert touched(manifest(), step()) is None
    assert touched(manifest(), step(components=("all",), symbols=("DELTA",))) == {"DELTA"}


def test_what_goes_beyond_is_named() -> None:
    """The symbols outside are named, or that nobody can tell."""
    assert beyond(manifest(), step(components=("one",)), ALL) is None
    assert beyond(manifest(), step(components=("one",)), ("ALFA",)) == "kill disturbs BRAVO"
    assert (
        beyond(manifest(), step(components=("all",)), ALL)
        == "kill disturbs every symbol, or nobody can tell which"
    )


def test_the_manifest_limits_scenarios_too() -> None:
    """A trial that would disturb a symbol outside `limits.symbols` is refused with status 3."""
    limited = manifest(limits=Limits(symbols=("ALFA", "BRAVO")))

    def plan(fault: FaultStep) -> Plan:
        scenario = Scenario(id="S", title="s", requirement="R", fault=fault, objectives=Objectives(rto_ms=1))
        return Plan(
            trial_id="S", scenario=scenario, components=fault.components, service="orders", seed=1, replay="-"
        )

    permit.check_plan(limited, plan(step(components=("one",))))
    with pytest.raises(PermitError, match="every symbol"):
        permit.check_plan(limited, plan(step(components=("all",))))


def test_without_a_limit_there_is_no_radius() -> None:
    """Neither profile nor manifest says anything: everything may be disturbed, whoever can tell or not."""
    assert radius.allowed(profile(radius=None), manifest(symbols=()), 7) is None


def test_profile_and_manifest_limit_together() -> None:
    """Only what both allow; a share is drawn from the seed, always the same, and never nothing."""
    limited = manifest(limits=Limits(symbols=("BRAVO", "ALFA")))
    assert radius.allowed(profile(radius=None), limited, 7) == {"ALFA", "BRAVO"}
    assert radius.allowed(profile(), limited, 7) == {"ALFA"}
    half = profile(radius=Radius(share=0.5))
    drawn = {radius.allowed(half, manifest(), seed) for seed in range(40)}
    assert radius.allowed(half, manifest(), 7) == radius.allowed(half, manifest(), 7)
    assert {len(one or ()) for one in drawn} == {2}
    assert len(drawn) > 1
    few = radius.allowed(profile(radius=Radius(share=0.01)), manifest(), 7)
    assert few is not None
    assert len(few) == 1


@pytest.mark.parametrize(
    ("changes", "wanted", "told"),
    [
        ({"symbols": ()}, Radius(symbols=("ALFA",)), "names no `symbols`"),
        ({"services": {"orders": Service(source="oracle")}}, Radius(share=0.5), "has no `symbol`"),
        ({}, Radius(symbols=("ZULU",)), "does not trade ZULU"),
        (
            {"limits": Limits(symbols=("BRAVO",))},
            Radius(symbols=("ALFA",)),
            "no symbol is in",
        ),
    ],
)
def test_a_radius_that_cannot_be_kept_is_refused(changes: dict[str, Any], wanted: Radius, told: str) -> None:
    """Where symbols cannot be told apart nothing is broken at all, and the reason is told."""
    with pytest.raises(PermitError, match=told):
        radius.allowed(profile(radius=wanted), manifest(**changes), 7)


def test_only_what_stays_in_the_radius_is_chosen() -> None:
    """A component that serves a symbol outside is left out; one that serves the radius may be broken."""
    kill = Candidate(kind="kill", components=("one",)), Candidate(kind="kill", components=("all",))

    def ask(one: FaultStep) -> str | None:
        return registry.unavailable(registry.make(one.kind), manifest(), one)

    found, left = choices(profile(*kill), manifest(), ask, frozenset(("ALFA", "BRAVO")))
    assert [one.where for one in found] == ["one"]
    assert [(one.where, "hits all symbols alike" in one.reason) for one in left] == [("all", True)]


def test_what_can_be_kept_to_a_symbol_is_kept_to_one_of_the_radius() -> None:
    """Each time one of them is drawn; without a radius no symbol is named."""
    flip = Candidate(kind="flip_memory_bits", parameters={"data": "positions"})
    inside = frozenset(("ALFA", "BRAVO"))

    def ask(one: FaultStep) -> str | None:
        fault: Any = registry.make(one.kind)
        return fault.selective(one) if one.symbols else None

    found, left = choices(profile(flip), manifest(), ask, inside)
    assert left == []
    planned = episodes(7, found, profile(flip), manifest())
    drawn = {next(planned).steps[0].symbols for _ in range(20)}
    assert drawn == {("ALFA",), ("BRAVO",)}
    free, _ = choices(profile(flip), manifest(), ask)
    assert next(episodes(7, free, profile(flip), manifest())).steps[0].symbols == ()


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (step("kill", components=("all",), symbols=("ALFA",)), "hits all symbols alike"),
        (step("flip_memory_bits", parameters={"value": "x"}, symbols=("ALFA",)), "by `data`"),
        (
            step("flip_file_bits", parameters={"data": "d", "between": True}, symbols=("ALFA",)),
            "killed in between",
        ),
        (step("misbehave", parameters={"action": "freeze"}, symbols=("ALFA",)), "to a message alone"),
        (step("misbehave", parameters={"action": "delay"}, symbols=("ALFA",)), "chosen by an event"),
        (step("flip_memory_bits", parameters={"data": "d"}, symbols=("ZULU",)), "does not trade ZULU"),
    ],
)
def test_a_fault_that_cannot_be_kept_to_symbols_says_why(one: FaultStep, told: str) -> None:
    """In a session as in a scenario it is not to be had then."""
    assert told in (registry.unavailable(registry.make(one.kind), manifest(), one) or "")


def test_damage_is_done_only_to_places_of_the_symbols() -> None:
    """Those whose name begins with the symbol's, and not with a longer one."""

    class Target:
        name = "firm"

        async def regions(self, name: str, *, place: str = "") -> list[Region]:
            names = ("ALFA.quantity", "ALFA2.quantity", "BRAVO.quantity")
            return [Region(path=name, length=8, name=one) for one in names if place in one]

    ctx: Any = SimpleNamespace(target=Target())

    def found(*symbols: str) -> list[str]:
        one = step("flip_memory_bits", parameters={"data": "positions"}, symbols=symbols)
        return [region.name for region in asyncio.run(damage.regions(ctx, one))]

    assert found("ALFA") == ["ALFA.quantity"]
    assert found("BRAVO", "ALFA2") == ["ALFA2.quantity", "BRAVO.quantity"]
    assert len(found()) == 3


def events(symbol: str, *moments_s: float) -> ServiceBatch:
    """Return events of a symbol."""
    return ServiceBatch(service="orders", events=[(round(one * NS), symbol, 0) for one in moments_s])


def test_silence_outside_is_seen_while_a_fault_is_in_place() -> None:
    """Longer than the limit, counted from the fault at the earliest; told once; not before, nor after."""
    watch = Watch(["BRAVO", "CHARLIE"], 2.0)
    watch(events("BRAVO", 9.0))
    watch(events("CHARLIE", 9.5))
    assert watch.disturbed(20 * NS) == []
    watch.begin(10 * NS)
    watch(events("CHARLIE", 11.0, 12.0))
    assert watch.disturbed(12 * NS) == []
    assert watch.disturbed(round(12.1 * NS)) == [("BRAVO", pytest.approx(2.1))]
    assert watch.disturbed(round(12.2 * NS)) == []
    silent = watch.end(13 * NS)
    assert silent == {"BRAVO": pytest.approx(3000), "CHARLIE": pytest.approx(1000)}
    assert watch.disturbed(20 * NS) == []


def test_who_is_silent_before_a_fault_is_named() -> None:
    """A symbol without events could be disturbed and nobody would see it; those inside are not looked at."""
    watch = Watch(["BRAVO", "CHARLIE"], 2.0)
    assert watch.quiet(10 * NS) == ["BRAVO", "CHARLIE"]
    watch(events("ALFA", 9.9))
    watch(events("BRAVO", 9.0))
    assert watch.quiet(10 * NS) == ["CHARLIE"]
    assert watch.quiet(12 * NS) == ["BRAVO", "CHARLIE"]


def test_a_step_with_symbols_survives_being_recorded() -> None:
    """A recording names them, so that a replay is kept to them, too."""
    one = step("flip_memory_bits", symbols=("ALFA",))
    assert msgspec.json.decode(msgspec.json.encode(one), type=FaultStep) == one
