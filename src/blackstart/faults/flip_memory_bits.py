"""Bit flips in memory: shared memory and mapped files by layout, private memory by value (R39, R40, R63)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.contracts import FaultContext, HasProcesses
from blackstart.errors import FaultError
from blackstart.faults import damage, death
from blackstart.host import bits, memory, ptrace
from blackstart.model.fault import ProcessRef, Receipt, Undo, Witness

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from blackstart.faults.damage import Patch
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")


class FlipMemoryBits:
    """Random bits turn in shared memory (pwrite) or in a process (process_vm_writev, `/proc/PID/mem`).

    `parameters.bits` (1) of them, by the trial's seed.
    `data` names places of the manifest's [data]; one of them is drawn (`places` says how many). `value`
    (text) or `hex` (bytes) is looked for in the memory of the step's component; one copy is hit, or all with
    `copies = "all"`.
    """

    name = "flip_memory_bits"

    def __init__(self) -> None:
        self._seen: list[dict[str, Any]] = []

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if "data" in step.parameters:
            return damage.unnamed(target, step)
        if not _value(step):
            return "parameters: `data` (a name of the manifest's [data]), `value` or `hex` is missing"
        if len(death.members(target, step.components)) != 1:
            return "a value is looked for in the memory of exactly one component"
        return death.no_processes(target, step.components) or ptrace.irreversible()

    def selective(self, step: FaultStep) -> str | None:
        """See `contracts.Selective`."""
        return damage.selective(step)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Flip, and read back at once by another way: the target may heal it within milliseconds."""
        rng = damage.randomness(ctx, step)
        if "data" in step.parameters:
            patches = await _shared(ctx, step, rng)
            await damage.protect(ctx, step, patches)
            return self._strike(ctx, lambda: self._write_shared(patches))
        process, hits = await _private(ctx, step, rng)
        await ctx.protect(_undo(process, *hit) for hit in hits)
        return self._strike(ctx, lambda: self._write_private(process, hits))

    def _strike(self, ctx: FaultContext, write: Callable[[], str]) -> Receipt:
        before = ctx.clock.now().mono_ns
        mechanism = write()
        after = ctx.clock.now().mono_ns
        return Receipt(
            fault=self.name,
            mechanism=mechanism,
            t0_mono_ns=after,
            t0_source="the write call",
            uncertainty_ns=after - before,
            data={"damage": self._seen},
        )

    def _write_shared(self, patches: list[Patch]) -> str:
        for patch in patches:
            damage.apply([patch], sync=False)
            self._seen += damage.seen([patch], disk=False)
        return "pwrite into the mapped file"

    def _write_private(self, process: ProcessRef, hits: list[tuple[int, bytes, bytes]]) -> str:
        how = ""
        for address, before, after in hits:
            how = memory.write(process.pid, address, after)
            now = memory.read(process.pid, address, len(after))
            found, wanted = bits.differing(before, now), bits.differing(before, after)
            one = {"address": hex(address), "bits": found, "wanted": wanted, "bit": found == wanted > 0}
            self._seen.append({"pid": process.pid, **one})
        return how

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Tell what was read back."""
        del ctx, receipt
        bit = bool(self._seen) and all(one["bit"] for one in self._seen)
        return Witness(bit=bit, evidence={"damage": self._seen})

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Nothing is lifted: healing is the target's (see `faults.damage`)."""


async def _shared(ctx: FaultContext, step: FaultStep, rng: random.Random) -> list[Patch]:
    found = await damage.regions(ctx, step)
    count = int(step.parameters.get("places", 1))
    return damage.flips(damage.drawn(found, count, rng), step, rng)


async def _private(
    ctx: FaultContext, step: FaultStep, rng: random.Random
) -> tuple[ProcessRef, list[tuple[int, bytes, bytes]]]:
    """Find the value in the process: `(address, before, after)` of each copy that will be hit."""
    assert isinstance(ctx.target, HasProcesses)
    process, value = await ctx.target.process(step.components[0]), _value(step)
    try:
        places = memory.find(process.pid, value)
    except OSError as error:
        raise FaultError(f"its memory cannot be read: {error.strerror}", where=step.components[0]) from None
    if not places:
        raise FaultError(f"{value!r} is nowhere in its memory", where=step.components[0])
    chosen = places if step.parameters.get("copies") == "all" else [rng.choice(places)]
    count, bit = int(step.parameters.get("bits", 1)), step.parameters.get("bit")
    one = None if bit is None else int(bit)
    drawn = [(place, bits.draw(len(value), count, rng, bit=one)) for place in chosen]
    return process, [(place, value, bits.flipped(value, which)) for place, which in drawn]


def _undo(process: ProcessRef, address: int, before: bytes, after: bytes) -> Undo:
    arguments = {"address": address, "before": before.hex(), "after": after.hex()}
    return Undo(
        id=f"memory:{process.pid}:{address:x}",
        action="restore_memory",
        arguments={**msgspec.to_builtins(process), **arguments},
    )


def _value(step: FaultStep) -> bytes:
    given = step.parameters.get("hex")
    if isinstance(given, str):
        return bytes.fromhex(given) if _HEX.fullmatch(given) else b""
    return str(step.parameters.get("value", "")).encode()
