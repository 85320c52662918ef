"""Abrupt kill: SIGKILL to one or many processes at the same moment (R1, R2, R4, R25, R33)."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from blackstart.faults import death
from blackstart.model.fault import Receipt, Witness

if TYPE_CHECKING:
    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep


class Kill:
    """SIGKILL through pidfds opened beforehand.

    T0 is the call itself: death notices lag by the memory to be freed.
    """

    name = "kill"

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
        """Kill the step's components. The deed needs no undo: every process has one from its start."""
        self._bed = bed = await death.aimed(self._bed, ctx, step)
        before, after = bed.strike(signal.SIGKILL)
        return Receipt(
            fault=self.name,
            mechanism="SIGKILL by pidfd_send_signal",
            t0_mono_ns=after,
            t0_source="the kill call",
            uncertainty_ns=after - before,
            processes=bed.processes,
            data={"restart": death.ours(ctx.target.manifest, step.components)},
        )

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """See `death.witness`."""
        del ctx
        assert self._bed is not None
        return await death.witness(self._bed, receipt.t0_mono_ns)

    async def operate(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Start again at once what only Blackstart starts."""
        assert self._bed is not None
        if receipt.data["restart"] and await self._bed.gone(10.0):
            await death.start_again(ctx, receipt.data["restart"])

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Nothing stays in place after a kill; only the handles are let go."""
        del ctx, receipt
        if self._bed is not None:
            self._bed.close()
