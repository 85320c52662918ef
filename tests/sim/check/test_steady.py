"""The load at the failure, from finished histories."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from blackstart.check import steady
from blackstart.check.facts import Facts
from blackstart.model.manifest import Service, WorkloadSpec
from blackstart.model.record import StageReached
from blackstart.model.scenario import Load
from blackstart.model.verdict import Verdict


@pytest.mark.parametrize(
    ("services", "workload", "carrier"),
    [
        ({"orders": Service(source="sql")}, None, "orders"),
        ({"orders": Service(source="probe:ready")}, None, None),
        ({"orders": Service(source="probe:ready")}, WorkloadSpec(), None),
        ({"orders": Service(source="probe:ready"), "acks": Service(source="workload")}, None, None),
        (
            {"orders": Service(source="probe:ready"), "acks": Service(source="workload")},
            WorkloadSpec(),
            "acks",
        ),
    ],
)
def test_a_probe_carries_no_load(
    world: Any, services: dict[str, Service], workload: WorkloadSpec | None, carrier: str | None
) -> None:
    """Only acknowledged writes can stand in for a service that is a probe."""
    manifest = msgspec.structs.replace(world.manifest, services=services, workload=workload)
    assert steady.carrier(manifest, "orders") == carrier


def test_the_yes_of_a_probe_is_not_counted_as_load(world: Any) -> None:
    """400 answers a second to our own questions are UNKNOWN, `no-load`, and no figure."""
    services = {"orders": Service(source="probe:ready")}
    world.manifest = msgspec.structs.replace(world.manifest, services=services)
    facts = Facts(world.history())
    found = steady.check(facts)
    assert found.verdict is Verdict.UNKNOWN
    assert [one.code for one in found.findings] == ["no-load"]
    assert steady.load_per_s(facts) is None


def silent_before_t0(world: Any) -> int:
    """Let the load end 300 ms before t0, as a closing market does; return when."""
    t0 = world.receipt.t0_mono_ns
    end: int = t0 - 300_000_000
    world.service = [one for one in world.service if not end <= one[0] < t0]
    return end


def before_preparation(world: Any, minimum_per_s: float) -> None:
    """Count the load up to the preparation."""
    load = Load(minimum_per_s=minimum_per_s, before="preparation")
    scenario = msgspec.structs.replace(world.plan.scenario, load=load)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)


def test_the_load_may_be_counted_up_to_the_preparation_that_ends_it(world: Any) -> None:
    """A market that closes before the fault takes nothing from the load there was until then."""
    end = silent_before_t0(world)
    assert steady.check(Facts(world.history())).verdict is Verdict.UNKNOWN
    before_preparation(world, 350)
    world.extra = [StageReached(stage="preparing", mono_ns=end)]
    facts = Facts(world.history())
    assert steady.load_per_s(facts) == 400
    assert steady.check(facts).verdict is Verdict.PASS


def test_too_little_load_before_the_preparation_is_unknown_too(world: Any) -> None:
    """The other moment is no way round the minimum, and the reason names it."""
    end = silent_before_t0(world)
    before_preparation(world, 500)
    world.extra = [StageReached(stage="preparing", mono_ns=end)]
    found = steady.check(Facts(world.history()))
    assert found.verdict is Verdict.UNKNOWN
    assert found.findings[0].text == "no load before the preparation (400/s, 500/s required)"


def test_a_preparation_that_never_began_shows_no_load(world: Any) -> None:
    """Without that moment in the history the load is not known."""
    before_preparation(world, 300)
    assert steady.check(Facts(world.history())).verdict is Verdict.UNKNOWN
