"""What acts on processes of this host is never given one of another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.errors import TargetError
from blackstart.faults import death, registry
from blackstart.model.manifest import Component, Host, Manifest, Process
from blackstart.model.scenario import FaultStep
from blackstart.target.local import LocalTarget

if TYPE_CHECKING:
    from pathlib import Path

REACHING = {"kill", "terminate", "crash_loop", "pause"}

MANIFEST = Manifest(
    schema=1,
    name="t",
    environment="test",
    processes={"main": Process(command=("true",))},
    hosts={"vm1": Host(address="vm1")},
    components={
        "here": Component(process="main"),
        "there": Component(host="vm1", pid_file="/run/x.pid", start=("x",)),
    },
)


class Clock:
    """Nobody asks for the time here."""


async def protect(_undos: object) -> None:
    """Nothing is started here."""


def target(tmp_path: Path) -> LocalTarget:
    """Make a target that is not open."""
    clock: Any = Clock()
    return LocalTarget(MANIFEST, run_dir=tmp_path, seed=1, clock=clock, sink=lambda _: None, protect=protect)


@pytest.mark.parametrize("kind", sorted(set(registry.known()) - REACHING))
def test_a_fault_that_acts_on_this_host_is_refused_for_another(kind: str) -> None:
    """Every kind but the few that go through the helper says why, before anything is broken."""
    step = FaultStep(kind=kind, components=("there",))
    reason = registry.unavailable(registry.make(kind), MANIFEST, step)
    assert reason is not None
    assert "`there` runs on host `vm1`" in reason


@pytest.mark.parametrize("kind", sorted(REACHING))
def test_a_fault_that_goes_through_the_helper_is_not_refused(kind: str) -> None:
    """Signals reach other hosts."""
    step = FaultStep(kind=kind, components=("there",))
    assert registry.unavailable(registry.make(kind), MANIFEST, step) is None


@pytest.mark.parametrize("parameters", [{"mechanism": "freezer"}, {"duty": 0.5}])
def test_what_a_pause_cannot_do_there_is_refused(parameters: dict[str, Any]) -> None:
    """The freezer and the turns are for this host, though a plain pause is not."""
    step = FaultStep(kind="pause", components=("there",), parameters=parameters)
    reason = registry.unavailable(registry.make("pause"), MANIFEST, step)
    assert reason is not None
    assert "vm1" in reason


def test_one_of_each_on_another_host_does_not_cost_the_others_their_trials() -> None:
    """A scenario for each component fits as long as it can be done to one; one for both does not."""
    fault = registry.make("segv")
    assert registry.unavailable(fault, MANIFEST, FaultStep(kind="segv", components=("@each",))) is None
    assert registry.unavailable(fault, MANIFEST, FaultStep(kind="segv", components=("here", "there")))


def test_a_component_of_another_host_has_no_process_here(tmp_path: Path) -> None:
    """Whoever asks for its process is told so: a pid of that host is somebody else here."""
    with pytest.raises(TargetError, match="runs on host `vm1`"):
        asyncio.run(target(tmp_path).process("there"))


def test_who_does_not_ask_for_other_hosts_gets_none(tmp_path: Path) -> None:
    """Also a fault that forgot to refuse: its victims are looked up where only this host's are found."""

    class Context:
        clock = Clock()

        def __init__(self) -> None:
            self.target = target(tmp_path)

    context: Any = Context()
    step = FaultStep(kind="x", components=("there",))
    for looking in (death.find(context, step), death.Strike().aim(context, step)):
        with pytest.raises(TargetError, match="runs on host `vm1`"):
            asyncio.run(looking)  # type: ignore[arg-type]
