"""Clean shutdown: the stop signal, the end, then a start by the operator (R24). Nothing may be lost."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from blackstart.faults import death
from blackstart.model.fault import Witness

if TYPE_CHECKING:
    from blackstart.contracts import FaultContext
    from blackstart.model.fault import Receipt
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_END_LIMIT_S = 60.0


class Terminate:
    """Each process's own stop signal (SIGTERM, unless its manifest names another) through pidfds.

    Units and containers are stopped by their managers, as by `systemctl stop` and `docker stop`. T0 is the
    call, because from there on the system goes down.
    """

    name = "terminate"

    def __init__(self) -> None:
        self._strike = death.Strike(remote=True)
        self._statuses: asyncio.Task[dict[str, int | None]] | None = None

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
        """Ask the step's components to end."""
        bed = await self._strike.aim(ctx, step)
        numbers = [stop_signal(ctx.target.manifest, name) for name in bed.names]
        asked = await death.ask_to_end(ctx, bed, numbers)
        when = (asked.t0_mono_ns - asked.uncertainty_ns, asked.t0_mono_ns)
        return self._strike.receipt(self.name, asked.mechanism, "the call that asked for the stop", when)

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Prove the ends: a system that ignores the signal was not shut down.

        How each ended is in the evidence, where its parent or its manager tells us; `check.ending` judges it.
        """
        deaths = await self._strike.witness(receipt, limit_s=_END_LIMIT_S)
        if not deaths.bit:
            return deaths
        statuses = await self._ends(ctx, receipt)
        evidence = {name: {**one, "status": statuses.get(name)} for name, one in deaths.evidence.items()}
        return Witness(bit=True, evidence=evidence)

    async def _ends(self, ctx: FaultContext, receipt: Receipt) -> dict[str, int | None]:
        """Ask once how they ended: a manager forgets it with the next start."""
        if self._statuses is None:
            self._statuses = asyncio.ensure_future(_all_ends(ctx, receipt))
        return await asyncio.shield(self._statuses)

    async def operate(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Start again as soon as everything has ended."""
        await self._strike.gone(_END_LIMIT_S, "the stop signal")
        await self._ends(ctx, receipt)
        await self._strike.start_again(ctx, receipt.hit, stopped=True)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Nothing stays in place; only the handles are let go."""
        del ctx, receipt
        self._strike.close()


async def _all_ends(ctx: FaultContext, receipt: Receipt) -> dict[str, int | None]:
    asked = (death.ended_with(ctx, name, process) for name, process in receipt.processes.items())
    return dict(zip(receipt.processes, await asyncio.gather(*asked), strict=True))


def stop_signal(manifest: Manifest, component: str) -> signal.Signals:
    """Return what asks the component's process to end: `stop_signal` of the process that it is."""
    spec = manifest.components.get(component)
    process = manifest.processes.get(spec.process) if spec and spec.process else None
    if spec and spec.stop_signal:
        return signal.Signals[f"SIG{spec.stop_signal}"]
    return signal.Signals[f"SIG{process.stop_signal}"] if process else signal.SIGTERM
