"""Clean shutdown: the stop signal, the end, then a start by the operator (R24). Nothing may be lost."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from blackstart.errors import FaultError
from blackstart.faults import death
from blackstart.model.fault import Receipt, Witness

if TYPE_CHECKING:
    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_END_LIMIT_S = 60.0


class Terminate:
    """Each process's own stop signal (SIGTERM, unless its manifest names another) through pidfds.

    T0 is the call, because from there on the system goes down.
    """

    name = "terminate"

    def __init__(self) -> None:
        self._bed: death.Deathbed | None = None

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        return death.no_processes(target, step.components)

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Open handles on the processes before the trigger.

        Looking them up takes longer than killing them.
        """
        self._bed = await death.aimed(self._bed, ctx, step)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Ask the step's components to end."""
        self._bed = bed = await death.aimed(self._bed, ctx, step)
        numbers = [stop_signal(ctx.target.manifest, name) for name in bed.processes]
        before, after = bed.strike(*numbers)
        names = " and ".join(sorted({number.name for number in numbers}))
        return Receipt(
            fault=self.name,
            mechanism=f"{names} by pidfd_send_signal",
            t0_mono_ns=after,
            t0_source="the call that asked for the stop",
            uncertainty_ns=after - before,
            processes=bed.processes,
            data={"restart": death.ours(ctx.target.manifest, step.components)},
        )

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Prove the ends: a system that ignores the signal was not shut down."""
        del ctx
        assert self._bed is not None
        return await death.witness(self._bed, receipt.t0_mono_ns, limit_s=_END_LIMIT_S)

    async def operate(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Start again as soon as everything has ended."""
        assert self._bed is not None
        if not await self._bed.gone(_END_LIMIT_S):
            left = [name for name in self._bed.processes if name not in self._bed.noticed]
            raise FaultError(f"still running {_END_LIMIT_S:g} s after the stop signal", where=", ".join(left))
        await death.start_again(ctx, receipt.data["restart"])

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Nothing stays in place; only the handles are let go."""
        del ctx, receipt
        if self._bed is not None:
            self._bed.close()


def stop_signal(manifest: Manifest, component: str) -> signal.Signals:
    """Return what asks the component's process to end: `stop_signal` of the process that it is."""
    spec = manifest.components.get(component)
    process = manifest.processes.get(spec.process) if spec and spec.process else None
    if spec and spec.stop_signal:
        return signal.Signals[f"SIG{spec.stop_signal}"]
    return signal.Signals[f"SIG{process.stop_signal}"] if process else signal.SIGTERM
