"""Abrupt kill: SIGKILL to one or many processes at the same moment (R1, R2, R4, R25, R33)."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from blackstart.faults import death

if TYPE_CHECKING:
    from blackstart.contracts import FaultContext
    from blackstart.model.fault import Receipt, Witness
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep


class Kill:
    """SIGKILL through pidfds opened beforehand.

    T0 is the call itself: death notices lag by the memory to be freed.
    """

    name = "kill"

    def __init__(self) -> None:
        self._strike = death.Strike(remote=True)

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        return death.no_processes(target, step.components)

    def unreachable(self, step: FaultStep) -> str | None:
        """See `contracts.ReachesHosts`."""
        del step
        return None

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """See `death.Strike`."""
        await self._strike.aim(ctx, step)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Kill the step's components. The deed needs no undo: every process has one from its start."""
        bed = await self._strike.aim(ctx, step)
        when = await bed.strike(signal.SIGKILL)
        return self._strike.receipt(self.name, "SIGKILL by pidfd_send_signal", "the kill call", when)

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """See `death.witness`."""
        del ctx
        return await self._strike.witness(receipt)

    async def operate(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Start again at once what only Blackstart starts."""
        if death.restarts(ctx, receipt.processes, receipt.remote):
            await self._strike.gone(10.0, "SIGKILL")
            await self._strike.start_again(ctx, receipt.hit)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Nothing stays in place after a kill; only the handles are let go."""
        del ctx, receipt
        self._strike.close()
