"""Damage between death and restart: nobody alive may hold the data, and nobody may start what died too early.

Whoever starts the components again (`supervisor` in their manifest entry) is stopped by SIGSTOP, the
components are killed, their data are damaged, and the supervisor goes on, to find them dead as it would have.
How long it stood still is told in the receipt: by so much the target noticed the death later.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import msgspec

from blackstart.contracts import HasProcesses
from blackstart.errors import FaultError
from blackstart.faults import death
from blackstart.host import procs
from blackstart.model.fault import ProcessRef, Undo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_END_LIMIT_S = 10.0
_LOOK_NS = 500_000


class Standstill:
    """One killing with a damage in it."""

    def __init__(self) -> None:
        self.bed: death.Deathbed | None = None
        self.held: dict[str, ProcessRef] = {}
        self.undos: tuple[Undo, ...] = ()

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Look the victims and their supervisors up."""
        self.bed = await death.aimed(self.bed, ctx, step)
        self.held = await _supervisors(ctx, step)

    async def kill_and(
        self, ctx: FaultContext, step: FaultStep, damage: Callable[[], Awaitable[None]]
    ) -> tuple[int, int, int]:
        """Hold, kill, wait for the deaths, damage, let go.

        Returns the instants before and after the kill, and when the supervisors ran on.
        """
        await self.aim(ctx, step)
        assert self.bed is not None
        self.undos = tuple(_undo(name, one) for name, one in self.held.items())
        await ctx.protect(self.undos)
        try:
            await self._hold(ctx)
            before, after = await self.bed.strike(signal.SIGKILL)
            if not await self.bed.gone(_END_LIMIT_S):
                raise FaultError("still there after SIGKILL", where=", ".join(self.bed.processes))
            await damage()
        finally:
            self.let_go()
        return before, after, ctx.clock.now().mono_ns

    async def _hold(self, ctx: FaultContext) -> None:
        deadline = ctx.clock.now().mono_ns + 1_000_000_000
        for name, one in self.held.items():
            _send(one, signal.SIGSTOP)
            while (found := procs.stat(one.pid)) is not None and not found.stopped:
                if ctx.clock.now().mono_ns > deadline:
                    raise FaultError("does not stop", where=name)
                await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _LOOK_NS)

    def let_go(self) -> None:
        """Let the supervisors run on; idempotent."""
        for one in self.held.values():
            _send(one, signal.SIGCONT)

    def close(self) -> None:
        """Let the handles go, too."""
        self.let_go()
        if self.bed is not None:
            self.bed.close()


def impossible(manifest: Manifest, step: FaultStep) -> str | None:
    """Say why nobody could stand between death and restart, or None."""
    if not step.components:
        return "damage between death and restart needs components to kill"
    problem = death.no_processes(manifest, step.components)
    if problem is not None:
        return problem
    for name in death.members(manifest, step.components):
        spec = manifest.components.get(name)
        if spec is None:
            continue
        process = manifest.processes.get(spec.process) if spec.process else None
        if spec.managed and spec.restart != "blackstart":
            return f"`{name}` is started again by its manager, whom nobody can stop: damage it while it runs"
        if (
            not spec.managed
            and spec.supervisor is None
            and (process is None or process.restart != "blackstart")
        ):
            return f"nobody says who starts `{name}` again: give `supervisor` in [components.{name}]"
    return None


async def _supervisors(ctx: FaultContext, step: FaultStep) -> dict[str, ProcessRef]:
    target, components = ctx.target, ctx.target.manifest.components
    assert isinstance(target, HasProcesses)
    names = dict.fromkeys(
        spec.supervisor for one in step.components if (spec := components.get(one)) and spec.supervisor
    )
    return {name: await target.process(name) for name in names if name not in step.components}


def _undo(name: str, process: ProcessRef) -> Undo:
    return Undo(id=f"hold:{name}:{process.pid}", action="continue", arguments=msgspec.to_builtins(process))


def _send(process: ProcessRef, number: signal.Signals) -> None:
    found = procs.stat(process.pid)
    if found is not None and found.start_ticks == process.start_ticks:
        procs.send(found, number)
