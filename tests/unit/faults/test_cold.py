"""A cold restart without anything to wipe is none."""

from __future__ import annotations

from typing import Any

import pytest

from blackstart.faults import registry
from blackstart.model.manifest import Component, Manifest, Process
from blackstart.model.scenario import FaultStep

OURS = Process(command=("x",), restart="blackstart")


@pytest.mark.parametrize(
    ("processes", "component", "reason"),
    [
        (
            {"p": Process(command=("x",), restart="blackstart", state=("{run}/x",))},
            Component(process="p"),
            None,
        ),
        ({"p": OURS}, Component(process="p"), "which state of `p`"),
        (
            {"p": Process(command=("x",), restart="self", state=("{run}/x",))},
            Component(process="p"),
            "not a process that Blackstart",
        ),
        ({"p": OURS}, Component(pid_file="x"), "not a process that Blackstart"),
        ({}, Component(unit="x.service"), "not a process that Blackstart"),
    ],
)
def test_it_is_refused_where_nothing_would_be_wiped(
    processes: dict[str, Process], component: Component, reason: str | None
) -> None:
    """As the first fault of a trial, as a later one and in chaos: before anything is killed."""
    manifest = Manifest(schema=1, name="x", processes=processes, components={"c": component})
    fault: Any = registry.make("cold")
    said = fault.unavailable(manifest, FaultStep(kind="cold", components=("c",)))
    assert (said is None) if reason is None else (reason in said)
