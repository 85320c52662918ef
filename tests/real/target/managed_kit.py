"""What tests of units and containers share: one fault on an open target, and an owner that can be killed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from target_kit import Clock, Notes

from blackstart.engine import verbs
from blackstart.faults import registry
from blackstart.host import procs
from blackstart.model.manifest import Component, Manifest
from blackstart.model.scenario import FaultStep
from blackstart.target import managed
from blackstart.target.local import LocalTarget

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from blackstart.model.fault import Receipt, Undo, Witness
    from blackstart.model.record import Record

# Opens a target under a real guardian, carries a fault out until it is in place, and waits to be killed: RUN,
# unit or container, its name, the fault, whose manager.
OWNER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from managed_kit import Context, described
    from blackstart.engine import guard, locks
    from blackstart.faults import registry
    from blackstart.model.scenario import FaultStep

    async def main(run, key, name, kind, manager):
        run.mkdir()
        lock = locks.hold(str(run), locks.OWNER_LOCK)
        guardian = await guard.start(run)
        spec = {key: name} | ({"manager": manager} if key == "unit" else {})
        ctx = Context(described(main=spec), run, protect=guardian.protect)
        await ctx.target.open()
        fault = registry.make(kind)
        receipt = await fault.inject(ctx, FaultStep(kind=kind, components=("main",)))
        await fault.witness(ctx, receipt)
        print("broken", flush=True)
        await asyncio.sleep(600)

    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
    """
)


def described(**components: Mapping[str, Any]) -> Manifest:
    """Return a manifest with these components, as the loader hands it out."""
    specs = {name: Component(**spec) for name, spec in components.items()}
    return managed.resolve(Manifest(schema=1, name="m", environment="test", components=specs))


class Context:
    """Implements FaultContext around a target that is really there."""

    oracle = None
    plan: Any = None
    isolation: frozenset[str] = frozenset()

    def __init__(self, manifest: Manifest, folder: Path, protect: Any = None) -> None:
        self.notes, self.clock, self.folder = Notes(), Clock(), folder
        self._protect = protect or self.notes.protect
        self.target = LocalTarget(
            manifest, run_dir=folder, seed=1, clock=self.clock, sink=self.record, protect=self.protect
        )

    async def protect(self, undos: Iterable[Undo]) -> None:
        """Hand undos over."""
        await self._protect(undos)

    def record(self, record: Record) -> None:
        """Keep a record."""
        self.notes.records.append(record)

    def recorded(self) -> Sequence[Record]:
        """Return what was recorded."""
        return self.notes.records

    async def carry_out(
        self, kind: str, *, duration_s: float | None = None, **parameters: Any
    ) -> tuple[Receipt, Witness]:
        """Break the component `main`, let the operator work, hear the witness, take it back."""
        fault: Any = registry.make(kind)
        step = FaultStep(kind=kind, components=("main",), duration_s=duration_s, parameters=parameters)
        receipt = await fault.inject(self, step)
        operating = asyncio.ensure_future(fault.operate(self, receipt)) if hasattr(fault, "operate") else None
        witness = await fault.witness(self, receipt)
        if operating is not None:
            await operating
        await fault.revert(self, receipt)
        return receipt, witness

    def last_undo(self) -> list[tuple[bool | None, dict[str, Any]]]:
        """Do what the guardian does at the end of a trial."""
        return [verbs.begin(one.action, one.arguments, "-")() for one in self.notes.undos]


def killed_while_broken(owner: Owner, pid: int) -> None:
    """See that the fault is in place on that process, and kill who holds it."""
    try:
        assert owner.broken()
        found = procs.stat(pid)
        assert found is None or found.dead or found.state == "T"
    finally:
        owner.kill()


def waits(pid: int) -> bool:
    """Say whether a process lives and sleeps, as one does that waits for work."""
    now = procs.stat(pid)
    return now is not None and now.state == "S"


class Owner:
    """A Blackstart that holds a fault, and can be killed with it."""

    def __init__(self, run: Path, key: str, name: str, kind: str, *, manager: str = "user") -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "XDG_STATE_HOME": str(run.parent / "state"),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(run), key, name, kind, manager],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def broken(self) -> bool:
        """Wait until its fault is in place."""
        assert self.process.stdout is not None
        return self.process.stdout.readline() == "broken\n"

    def kill(self) -> None:
        """End it as nothing can be prepared for."""
        self.process.kill()
        self.process.communicate()
