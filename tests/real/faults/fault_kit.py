"""What tests of faults share: a context around live processes, and one fault carried out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from blackstart.engine.clocks import SystemClock
from blackstart.engine.verbs import begin
from blackstart.errors import TargetError
from blackstart.faults import registry
from blackstart.host import procs
from blackstart.model.fault import ProcessRef, Undo, Witness
from blackstart.model.manifest import Component, Manifest, Process
from blackstart.model.scenario import FaultStep, Objectives, Plan, Scenario

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from blackstart.model.record import Record


class Context:
    """Implements FaultContext, and the target in it, around live processes."""

    name = "here"
    oracle = None
    isolation: frozenset[str] = frozenset()

    def __init__(
        self,
        processes: dict[str, subprocess.Popen[bytes]],
        state: Sequence[Path] = (),
        folder: Path | None = None,
    ) -> None:
        self.processes, self.state, self.folder = processes, state, folder
        self.manifest = Manifest(
            schema=1,
            name="here",
            processes={name: Process(command=("x",)) for name in processes},
            components={name: Component(process=name) for name in processes},
        )
        self.clock = SystemClock()
        self.protected: list[Undo] = []
        self.started: list[str] = []
        self.waits = True
        """Whether this context tells how its processes ended; they are its own."""
        scenario = Scenario(
            id="X", title="x", requirement="R1", fault=FaultStep(kind="x"), objectives=Objectives(rto_ms=1)
        )
        self.plan = Plan(
            trial_id="X", scenario=scenario, components=tuple(processes), service="s", seed=1, replay="-"
        )

    @property
    def target(self) -> Any:
        """This very object."""
        return self

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def protect(self, undos: Iterable[Undo]) -> None:
        """Note the undos."""
        self.protected += undos

    def record(self, record: Record) -> None:
        """Nobody records here."""

    def recorded(self) -> Sequence[Record]:
        """Nothing was recorded."""
        return ()

    async def process(self, component: str) -> ProcessRef:
        """Look the process up."""
        pid = self.processes[component].pid
        found = procs.stat(pid)
        if found is None:
            raise TargetError("has ended", where=component)
        return ProcessRef(pid, found.start_ticks)

    async def ended_with(self, component: str, ref: ProcessRef) -> int | None:
        """Wait for a child, as its parent does."""
        assert self.processes[component].pid == ref.pid
        return self.processes[component].wait(10) if self.waits else None

    def undo(self) -> None:
        """Do what the guardian would, the newest first, and see it verified."""
        for verify in [begin(one.action, one.arguments, "-") for one in reversed(self.protected)]:
            verified, evidence = verify()
            assert verified, evidence

    async def start(self, process: str) -> None:
        """Note the start, and that the state was gone by then."""
        assert not any(path.exists() for path in self.state)
        self.started.append(process)

    def state_paths(self, _process: str) -> Sequence[Path]:
        """Name what a cold restart wipes."""
        return self.state


async def carry_out(name: str, ctx: Any, **parameters: Any) -> tuple[Any, Witness]:
    """Aim, inject, let the operator work, and hear the witness."""
    fault: Any = registry.make(name)
    step = FaultStep(kind=name, components=tuple(ctx.processes), parameters=parameters)
    if hasattr(fault, "aim"):
        await fault.aim(ctx, step)
    receipt = await fault.inject(ctx, step)
    operating = asyncio.ensure_future(fault.operate(ctx, receipt)) if hasattr(fault, "operate") else None
    witness = await fault.witness(ctx, receipt)
    if operating is not None:
        await operating
    await fault.revert(ctx, receipt)
    await fault.revert(ctx, receipt)
    return receipt, witness
