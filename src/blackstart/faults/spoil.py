"""What all faults that damage files have in common: with the target running, or between death and restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.contracts import Restartable
from blackstart.faults import damage, death
from blackstart.faults.standstill import Standstill, impossible
from blackstart.model.fault import Receipt, Witness

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from blackstart.contracts import FaultContext
    from blackstart.faults.damage import Patch
    from blackstart.model.data import Region
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep


class Spoil:
    """Damages the places of `parameters.data`; its kinds say how (`patches`).

    With `parameters.between = true` the step's components are killed first, and the damage is done before
    anybody starts them again.
    """

    name = "spoil"
    mechanism = ""

    def __init__(self) -> None:
        self._still = Standstill()
        self._done: list[Patch] = []
        self._seen: list[dict[str, Any]] = []

    def patches(self, found: Sequence[Region], step: FaultStep, rng: random.Random) -> list[Patch]:
        """Say what becomes of the places."""
        raise NotImplementedError

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        return damage.unnamed(target, step) or (impossible(target, step) if _between(step) else None)

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Open handles on the processes before the trigger."""
        if _between(step):
            await self._still.aim(ctx, step)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Damage, and look at once by another way whether it is there."""

        async def spoil() -> None:
            await self._spoil(ctx, step)

        if _between(step):
            await damage.regions(ctx, step)  # raises where there is nothing to damage: nobody dies for it
            before, after, released = await self._still.kill_and(ctx, step, spoil)
            assert self._still.bed is not None
            receipt = Receipt(
                fault=self.name,
                mechanism=f"SIGKILL, then {self.mechanism} before the restart",
                t0_mono_ns=after,
                t0_source="the kill call",
                uncertainty_ns=after - before,
                processes=self._still.bed.processes,
                undo=self._still.undos,
                data={
                    "restart": death.ours(ctx.target.manifest, step.components),
                    "held": sorted(self._still.held),
                    "held_ms": (released - before) / 1e6,
                },
            )
        else:
            before = ctx.clock.now().mono_ns
            await spoil()
            after = ctx.clock.now().mono_ns
            receipt = Receipt(
                fault=self.name,
                mechanism=self.mechanism,
                t0_mono_ns=after,
                t0_source="the write call",
                uncertainty_ns=after - before,
            )
        return msgspec.structs.replace(receipt, data={**receipt.data, "damage": self._seen})

    async def _spoil(self, ctx: FaultContext, step: FaultStep) -> None:
        found = await damage.regions(ctx, step)
        self._done = self.patches(found, step, damage.randomness(ctx, step))
        await damage.protect(ctx, step, self._done)
        damage.apply(self._done)
        self._seen = damage.seen(self._done)

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Prove the damage as it was read back, and the deaths where something was killed."""
        bit = bool(self._seen) and all(one["bit"] for one in self._seen)
        evidence: dict[str, Any] = {"damage": self._seen}
        if self._still.bed is not None and receipt.processes:
            deaths = await death.witness(self._still.bed, receipt.t0_mono_ns)
            evidence |= {"deaths": deaths.evidence, "held_ms": receipt.data["held_ms"]}
            bit = bit and deaths.bit is True
        del ctx
        return Witness(bit=bit, evidence=evidence)

    async def operate(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Start again what only Blackstart starts."""
        if receipt.data.get("restart") and isinstance(ctx.target, Restartable):
            await death.start_again(ctx, receipt.data["restart"])

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Nobody stands still any more; damaged bytes are not put back here (see `faults.damage`)."""
        del ctx, receipt
        self._still.close()


def _between(step: FaultStep) -> bool:
    return bool(step.parameters.get("between", False))
