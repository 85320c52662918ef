"""Pause: SIGSTOP, and SIGCONT when its time is over (R77).

The guardian holds the SIGCONT before the process stands still.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import msgspec

from blackstart.faults import death
from blackstart.host import procs
from blackstart.model.fault import ProcessRef, Receipt, Undo, Witness

if TYPE_CHECKING:
    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep
_WITNESS_LIMIT_NS = 1_000_000_000


class Pause:
    """Every process of the step's components stands still."""

    name = "pause"

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        return death.no_processes(target, step.components)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Stop them; the undo is in the guardian's hands first."""
        processes = await death.find(ctx, step)
        undos = tuple(_undo(name, one) for name, one in processes.items())
        await ctx.protect(undos)
        bed = death.Deathbed(processes, ctx.clock)
        before, after = bed.strike(signal.SIGSTOP)
        bed.close()
        return Receipt(
            fault=self.name,
            mechanism="SIGSTOP by pidfd_send_signal",
            t0_mono_ns=after,
            t0_source="the stop call",
            uncertainty_ns=after - before,
            processes=processes,
            undo=undos,
        )

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Ask the kernel: it shows the state `T` for each of them."""
        deadline = ctx.clock.now().mono_ns + _WITNESS_LIMIT_NS
        states = _states(receipt)
        while set(states.values()) != {"T"} and ctx.clock.now().mono_ns < deadline:
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + 1_000_000)
            states = _states(receipt)
        return Witness(bit=all(state == "T" for state in states.values()), evidence={"states": states})

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Continue; harmless when they run already or are gone."""
        del ctx
        for one in receipt.processes.values():
            found = procs.stat(one.pid)
            if found is not None and found.start_ticks == one.start_ticks:
                procs.send(found, signal.SIGCONT)


def _undo(name: str, process: ProcessRef) -> Undo:
    arguments = msgspec.to_builtins(process)
    return Undo(id=f"pause:{name}:{process.pid}", action="continue", arguments=arguments)


def _states(receipt: Receipt) -> dict[str, str]:
    found = {name: procs.stat(one.pid) for name, one in receipt.processes.items()}
    return {name: one.state if one is not None else "gone" for name, one in found.items()}
