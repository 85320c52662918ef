"""The load at the failure, from finished histories."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from blackstart.check import steady
from blackstart.check.facts import Facts
from blackstart.model.manifest import Service, WorkloadSpec
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
