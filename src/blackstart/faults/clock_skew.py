"""A wall clock that is wrong (R18): it jumps, or runs too fast or too slow, in one component only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from blackstart.errors import FaultError
from blackstart.faults import death
from blackstart.host import refs, vdso
from blackstart.host.finishing import finished
from blackstart.model.fault import Receipt, Undo, Witness

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.contracts import FaultContext
    from blackstart.model.fault import ProcessRef
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_OFFSET_S = 10.0
_WITNESS_LIMIT_NS = 10_000_000_000
_LOOK_NS = 50_000_000
_SLACK_NS = 1_000_000  # between the base of the drift and t0


class ClockSkew:
    """The components' wall clock jumps by `offset_s`, and from then on drifts by `drift_ppm`; theirs alone.

    Monotonic clocks go on as they are. Without parameters: ten seconds ahead. The host's clock is never
    touched.
    """

    name = "clock_skew"
    exclusive = True

    def __init__(self) -> None:
        self._prepared: dict[str, tuple[ProcessRef, vdso.Skew]] = {}
        self._offset_ns = 0
        self._drift_ppb = 0

    def mechanisms(self, target: Manifest) -> dict[str, str | None]:
        """See `contracts.HasMechanisms`."""
        del target
        return {"vdso": vdso.unavailable()}

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if (problem := _wrong(step.parameters)) is not None:
            return problem
        return vdso.unavailable() or death.no_processes(target, step.components)

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Put our code into the processes; nobody jumps there yet."""
        for name, ref in (await death.find(ctx, step)).items():
            if name not in self._prepared or self._prepared[name][0] != ref:
                self._prepared[name] = ref, await asyncio.to_thread(vdso.prepare, ref.pid)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Let the clocks jump, one component after the other; t0 is when the last one has."""
        await self.aim(ctx, step)
        self._offset_ns, self._drift_ppb = _wanted(step.parameters)
        undos = tuple(_undo(ref, skew) for ref, skew in self._prepared.values())
        await ctx.protect(undos)
        spans = []
        try:
            for _, skew in self._prepared.values():
                moved = _move(skew, self._offset_ns, self._drift_ppb)
                spans.append(await finished(asyncio.to_thread(moved)))
        except BaseException:
            await self._restore()
            raise
        return Receipt(
            fault=self.name,
            mechanism="vDSO patched by ptrace",
            t0_mono_ns=spans[-1][1],
            t0_source="the code was exchanged",
            uncertainty_ns=spans[-1][1] - spans[0][0],
            processes={name: ref for name, (ref, _) in self._prepared.items()},
            undo=undos,
            data={"offset_s": self._offset_ns / 1e9, "drift_ppm": self._drift_ppb / 1e3},
        )

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Have each process read its clock as its program does, and compare it with the host's."""
        deadline, pause_ns = ctx.clock.now().mono_ns + _WITNESS_LIMIT_NS, _LOOK_NS
        while True:
            found = {
                name: await asyncio.to_thread(self._look, ref, receipt.t0_mono_ns, ctx)
                for name, ref in receipt.processes.items()
            }
            bit = all(one.get("as_wanted", False) for one in found.values())
            if bit or ctx.clock.now().mono_ns > deadline or not self._drift_ppb:
                return Witness(bit=bit, evidence=found)
            # Each look stops the process for some milliseconds: a slow drift is not waited for by many.
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + pause_ns)
            pause_ns *= 2

    def _look(self, ref: ProcessRef, t0_mono_ns: int, ctx: FaultContext) -> dict[str, Any]:
        if not refs.alive(ref):
            return {"pid": ref.pid, "ended": True}
        began = ctx.clock.now().mono_ns
        reading = vdso.read(ref.pid)
        lasted = ctx.clock.now().mono_ns - t0_mono_ns, began - t0_mono_ns
        drifts = sorted(one * self._drift_ppb // 1_000_000_000 for one in lasted)
        least, most = reading.ahead_ns
        slack = _SLACK_NS if self._drift_ppb else 0
        close = least <= self._offset_ns + drifts[1] + slack and most >= self._offset_ns + drifts[0] - slack
        evidence = {"pid": ref.pid, "ahead_at_least_ms": least / 1e6, "ahead_at_most_ms": most / 1e6}
        return {**evidence, "as_wanted": close and not least <= 0 <= most}

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Put the original code back; idempotent. Whoever looks next sees the true time."""
        del ctx, receipt
        await self._restore()

    async def _restore(self) -> None:
        for ref, skew in self._prepared.values():
            if refs.alive(ref):
                try:
                    await asyncio.to_thread(vdso.restore, ref.pid, skew.places)
                except (FaultError, OSError):
                    if refs.alive(ref):
                        raise
            await asyncio.to_thread(vdso.restore_heirs, ref.start_ticks, skew.places)


def _move(skew: vdso.Skew, offset_ns: int, drift_ppb: int) -> Any:
    return lambda: vdso.apply(skew, offset_ns=offset_ns, drift_ppb=drift_ppb)


def _undo(ref: ProcessRef, skew: vdso.Skew) -> Undo:
    places = [list(one) for one in skew.places]
    arguments = {"pid": ref.pid, "start_ticks": ref.start_ticks, "places": places}
    return Undo(id=f"clock:{ref.pid}:{ref.start_ticks}", action="clock", arguments=arguments)


def _wanted(parameters: Mapping[str, Any]) -> tuple[int, int]:
    """Return the offset in ns, and the drift in parts of 10^9."""
    drift = float(parameters.get("drift_ppm", 0.0))
    offset = float(parameters.get("offset_s", 0.0 if drift else _OFFSET_S))
    return round(offset * 1e9), round(drift * 1e3)


def _wrong(parameters: Mapping[str, Any]) -> str | None:
    unknown = parameters.keys() - {"offset_s", "drift_ppm"}
    if unknown:
        return f"clock_skew has no parameter `{min(unknown)}`; known: offset_s, drift_ppm"
    for name, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"parameters.{name} is {value!r}: a number, and which way is its sign"
    return None if any(_wanted(parameters)) else "neither offset nor drift: nothing would be wrong"
