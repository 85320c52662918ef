"""Stop a service and hold it down although somebody would start it again: database, broker (R8, R9, R30).

What is started too early is stopped by SIGSTOP, not killed: a server killed in the midst of its start may
leave a half-written lock file behind (PostgreSQL does) and never come up again. That would be another fault.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import msgspec

from blackstart.contracts import FaultContext, HasProcesses
from blackstart.errors import BlackstartError, FaultError
from blackstart.faults import death
from blackstart.faults.terminate import stop_signal
from blackstart.host import procs, refs
from blackstart.model.fault import Receipt, Undo, Witness

if TYPE_CHECKING:
    from blackstart.model.fault import ProcessRef
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_LOOK_NS = 5_000_000
_END_LIMIT_S = 30.0
_DEFAULT_S = 3.0
_SLACK_S = 1.0
_HANDING_NS = 500_000_000
"""So long before its undo expires nobody is stopped any more: handing it over takes time."""


class StopService:
    """The stop signal, or SIGKILL (`how = "kill"`); what starts again is held by SIGSTOP.

    For `duration_s` (3 s), at most the manifest's `fault_limit_s`. It runs on when the time is over. One that
    only Blackstart starts is started then.
    """

    name = "stop_service"

    def __init__(self) -> None:
        self._bed: death.Deathbed | None = None
        self._holding: asyncio.Task[None] | None = None
        self._held: dict[int, ProcessRef] = {}
        self._started = False
        self._over = False

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if not step.components:
            return "which components are to be stopped?"
        return death.no_processes(target, step.components)

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Open handles on the processes before the trigger."""
        self._bed = await death.aimed(self._bed, ctx, step)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Ask them to end, or kill them, and begin to hold them down."""
        self._bed = bed = await death.aimed(self._bed, ctx, step)
        kill = step.parameters.get("how") == "kill"
        asked = await _struck(bed) if kill else await _asked(ctx, bed)
        restart = death.ours(ctx.target.manifest, step.components, stopped=not kill)
        held = {name: one for name, one in bed.processes.items() if not _is_ours(ctx, name, restart)}
        duration_s = min(step.duration_s or _DEFAULT_S, ctx.target.manifest.limits.fault_limit_s)
        end_ns = asked.t0_mono_ns + round((duration_s + _SLACK_S) * 1e9)
        self._holding = asyncio.ensure_future(self._hold_down(ctx, held, end_ns))
        return Receipt(
            fault=self.name,
            mechanism=f"{asked.mechanism}{', then SIGSTOP to what starts again' if held else ''}",
            t0_mono_ns=asked.t0_mono_ns,
            t0_source="the kill call" if kill else "the call that asked for the stop",
            uncertainty_ns=asked.uncertainty_ns,
            processes=bed.processes,
            data={"restart": restart, "duration_s": duration_s},
        )

    async def _hold_down(self, ctx: FaultContext, held: dict[str, ProcessRef], end_ns: int) -> None:
        """Stop every later process of the components as soon as it is seen, its undo handed over first.

        That has an end, too: minutes later it would wake a process that another fault has stopped by then.
        """
        while held and not self._over and ctx.clock.now().mono_ns < end_ns - _HANDING_NS:
            for name, first in held.items():
                found = await _present(ctx, name)
                if found is not None and found != first and found.pid not in self._held:
                    await ctx.protect([_undo(name, found, end_ns)])
                    self._held[found.pid] = found
                    if ctx.clock.now().mono_ns < end_ns:  # else its undo is over, and nobody would wake it
                        _signal(found, signal.SIGSTOP)
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _LOOK_NS)

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Prove the ends; a service that ignores the signal was not stopped."""
        del ctx
        assert self._bed is not None
        return await death.witness(self._bed, receipt.t0_mono_ns, limit_s=_END_LIMIT_S)

    async def operate(self, ctx: FaultContext, receipt: Receipt) -> None:
        """When the time is over, let it start; start it where that is our part."""
        assert self._bed is not None
        if not await self._bed.gone(_END_LIMIT_S):
            raise FaultError("does not end", where=", ".join(self._bed.processes))
        await ctx.clock.sleep_until(receipt.t0_mono_ns + round(receipt.data["duration_s"] * 1e9))
        await self.revert(ctx, receipt)
        failed = self._holding.exception() if self._holding is not None and self._holding.done() else None
        if failed is not None:
            where = ", ".join(self._bed.processes)
            raise FaultError(f"could not be held down: {failed}", where=where) from failed

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Hold it down no longer, and start what only Blackstart starts; idempotent."""
        self._over = True
        try:
            if self._holding is not None:
                await asyncio.wait([self._holding])  # it is not cancelled with us, and may have failed
        finally:
            for one in self._held.values():
                _signal(one, signal.SIGCONT)
        if self._bed is not None:
            self._bed.close()
        if not self._started:
            await death.start_again(ctx, receipt.data["restart"])
            self._started = True


def _undo(name: str, process: ProcessRef, end_ns: int) -> Undo:
    arguments = msgspec.to_builtins(process)
    return Undo(
        id=f"held:{name}:{process.pid}", action="continue", arguments=arguments, expires_mono_ns=end_ns
    )


def _signal(process: ProcessRef, number: signal.Signals) -> None:
    found = procs.stat(process.pid)
    if found is not None and found.start_ticks == process.start_ticks:
        procs.send(found, number)


async def _present(ctx: FaultContext, component: str) -> ProcessRef | None:
    """Look up the component's process; None while there is none."""
    target = ctx.target
    assert isinstance(target, HasProcesses)
    try:
        found = await target.process(component)
    except BlackstartError:
        return None
    return found if refs.alive(found) else None


def _is_ours(ctx: FaultContext, component: str, restart: list[str]) -> bool:
    spec = ctx.target.manifest.components.get(component)
    return spec is not None and (spec.process in restart or (spec.managed and component in restart))


async def _struck(bed: death.Deathbed) -> death.Asked:
    before, after = await bed.strike(signal.SIGKILL)
    return death.Asked(after, after - before, "SIGKILL by pidfd_send_signal")


async def _asked(ctx: FaultContext, bed: death.Deathbed) -> death.Asked:
    numbers = [stop_signal(ctx.target.manifest, name) for name in bed.names]
    return await death.ask_to_end(ctx, bed, numbers)
