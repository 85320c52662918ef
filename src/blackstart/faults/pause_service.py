"""Pause a whole service: every process of it stands still, connections stay open and silent (R8, R9, R77)."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import msgspec

from blackstart.faults import alone, death
from blackstart.host import procs
from blackstart.model.fault import ProcessRef, Receipt, Undo, Witness

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_WITNESS_LIMIT_NS = 1_000_000_000


class PauseService:
    """SIGSTOP to each process of the components and to all their descendants, the first ones first."""

    name = "pause_service"
    exclusive = True

    def __init__(self) -> None:
        self._stopped: dict[int, procs.Stat] = {}

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if not step.components:
            return "which components are to be paused?"
        return death.no_processes(target, step.components)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Stop them, each undo in the guardian's hands first, until nobody is left who could fork."""
        processes = await death.find(ctx, step)
        alone.refuse_stopped(processes)
        undos: list[Undo] = []
        before = after = ctx.clock.now().mono_ns
        try:
            while new := self._unknown(processes.values()):
                added = [_undo(one) for one in new]
                await ctx.protect(added)
                undos += added
                before = ctx.clock.now().mono_ns if not self._stopped else before
                for one in new:
                    procs.send(one, signal.SIGSTOP)
                    self._stopped[one.pid] = one
                after = ctx.clock.now().mono_ns
        except BaseException:
            self._let_run()
            raise
        return Receipt(
            fault=self.name,
            mechanism=f"SIGSTOP to {len(self._stopped)} processes",
            t0_mono_ns=after,
            t0_source="the stop call",
            uncertainty_ns=after - before,
            processes=processes,
            undo=tuple(undos),
        )

    def _unknown(self, leaders: Iterable[ProcessRef]) -> list[procs.Stat]:
        """Find who belongs to them and is not stopped yet; the leaders come first, for they fork."""
        found = {}
        for leader in leaders:
            family = procs.family(leader.pid, leader.start_ticks)
            found.update({one.pid: one for one in sorted(family, key=lambda one: one.pid != leader.pid)})
        return [one for one in found.values() if one.pid not in self._stopped]

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Ask the kernel: it shows the state `T` for each that still is."""
        del receipt
        deadline = ctx.clock.now().mono_ns + _WITNESS_LIMIT_NS
        while (running := self._running()) and ctx.clock.now().mono_ns < deadline:
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + 1_000_000)
        evidence = {"stopped": sorted(set(self._stopped) - set(running)), "running": running}
        return Witness(bit=not running and bool(self._stopped), evidence=evidence)

    def _running(self) -> list[int]:
        now = {pid: procs.stat(pid) for pid in self._stopped}
        return [pid for pid, one in now.items() if one is not None and not one.stopped and not one.dead]

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Let them run on, children first; harmless when they run already or are gone."""
        del ctx, receipt
        self._let_run()

    def _let_run(self) -> None:
        for one in reversed(list(self._stopped.values())):
            procs.send(one, signal.SIGCONT)


def _undo(one: procs.Stat) -> Undo:
    process = ProcessRef(one.pid, one.start_ticks)
    return Undo(
        id=f"pause:{one.pid}:{one.start_ticks}", action="continue", arguments=msgspec.to_builtins(process)
    )
