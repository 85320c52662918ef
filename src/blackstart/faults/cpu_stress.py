"""CPU stress: busy processes take the processors away (R18)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from blackstart.faults import company, death, mechanisms
from blackstart.host import cgroups, hog, schedule
from blackstart.host.schedule import Fare
from blackstart.model.fault import Receipt, Witness

if TYPE_CHECKING:
    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_WINDOW_NS = 1_000_000_000
_CALM_NS = 300_000_000
_MUCH_LESS = 0.75
_WAITED = 0.01
"""So much of the time a component must have waited, at the least: who hardly wants to run is not hurt."""
_BUSY = 0.1
_GENTLE = 10
_USUAL_WEIGHT, _MOST_WEIGHT = 100, 10_000


class CpuStress:
    """`workers` busy processes (twice as many as processors) for as long as it lasts.

    Plain hogs hardly hurt a process that sleeps most of the time. So, with components and where a control
    group can be made, these get the least weight there is, or `weight` (1 to 10,000; 100 is everybody's),
    and the hogs are nice: nobody else suffers. `plain` does without, and hurts whoever is there. Witness: by
    the kernel's account the components got less of the time that they wanted, by a quarter at least; without
    components, the hogs ran.
    """

    name = "cpu_stress"

    def __init__(self) -> None:
        self._strike = death.Strike()
        self._company = company.Company()
        self._fares: dict[str, Fare] = {}

    def mechanisms(self, target: Manifest) -> dict[str, str | None]:
        """See `contracts.HasMechanisms`."""
        del target
        return {"weight": cgroups.unavailable("cpu"), "plain": None}

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if (reason := mechanisms.problem(step, self.mechanisms(target))) is not None:
            return reason
        if step.parameters.get("mechanism") == "weight" and not step.components:
            return "whose weight? `components` names them"
        weight = step.parameters.get("weight", 1)
        if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= _MOST_WEIGHT:
            return f"parameters.weight is {weight!r}: a whole number from 1 to {_MOST_WEIGHT}, 100 is usual"
        return death.no_processes(target, step.components) if step.components else None

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Look for a moment at how the components fare without stress."""
        if step.components:
            bed = await self._strike.aim(ctx, step)
            self._fares = _fares(bed)
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _CALM_NS)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Let the hogs go."""
        bed = await self._strike.aim(ctx, step) if step.components else death.Deathbed({}, ctx.clock)
        usual = self._usual(bed)
        mechanism = self._weigh(ctx, step, bed)
        workers = int(step.parameters.get("workers", 2 * (os.cpu_count() or 1)))
        for _ in range(workers):
            self._company.helper(hog, 1000, "cpu")
        await self._company.assemble(ctx, _share(step.parameters.get("weight")))
        before = ctx.clock.now().mono_ns
        for helper in self._company.helpers:
            if self._company.groups:
                os.setpriority(os.PRIO_PROCESS, helper.ref.pid, _GENTLE)
            helper.go()
        after = ctx.clock.now().mono_ns
        return Receipt(
            fault=self.name,
            mechanism=f"{workers} busy processes, {mechanism}",
            t0_mono_ns=after,
            t0_source="the hogs were let go",
            uncertainty_ns=after - before,
            processes=bed.processes,
            undo=tuple(self._company.undos),
            data={"usually_got": usual},
        )

    def _weigh(self, ctx: FaultContext, step: FaultStep, bed: death.Deathbed) -> str:
        """Announce a group of least weight for each component, where that can be had."""
        chosen, why = mechanisms.best(step, self.mechanisms(ctx.target.manifest))
        where = cgroups.hierarchy("cpu")
        if chosen == "plain" or not bed.processes or where is None:
            return f"plain ({why})" if why and bed.processes else "plain"
        for name, one in bed.processes.items():
            self._company.group(where, name, one)
        weight = step.parameters.get("weight")
        told = "the least weight" if weight is None else f"weight {weight}"
        return f"components at {told} (cgroup v{where.version})"

    def _usual(self, bed: death.Deathbed) -> dict[str, float]:
        """Return how much of the processor time that it wanted each component got, before."""
        return {name: now.since(self._fares.get(name, Fare())).got for name, now in _fares(bed).items()}

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Measure for a second: each component must wait, and get much less of what it wants than before."""
        usual = receipt.data["usually_got"]
        hogs = {one.ref.pid: schedule.fare(one.ref.pid) for one in self._company.helpers}
        before = {name: schedule.fare(one.pid) for name, one in receipt.processes.items()}
        began = ctx.clock.now().mono_ns
        await ctx.clock.sleep_until(began + _WINDOW_NS)
        passed = ctx.clock.now().mono_ns - began
        grown = {n: schedule.fare(one.pid).since(before[n]) for n, one in receipt.processes.items()}
        evidence: dict[str, Any] = {
            name: {
                "got": one.got,
                "usually_got": usual[name],
                "ran_ms": one.run_ns / 1e6,
                "waited_ms": one.waited_ns / 1e6,
            }
            for name, one in grown.items()
        }
        run = sum(schedule.fare(pid).since(fare).run_ns for pid, fare in hogs.items()) / passed
        hurt = all(
            one.got < _MUCH_LESS * usual[name] and one.waited_ns >= _WAITED * passed
            for name, one in grown.items()
        )
        return Witness(bit=hurt and run > _BUSY, evidence={**evidence, "hogs_run": run})

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """End the hogs, give everybody their weight back."""
        del ctx, receipt
        await self._company.dismiss()
        self._strike.close()


def _share(weight: int | None) -> dict[str, str]:
    """Write a weight for both versions of control groups; None is the least that each has."""
    shares = 2 if weight is None else max(2, weight * 1024 // _USUAL_WEIGHT)
    return {"cpu.shares": str(shares), "cpu.weight": str(weight or 1)}


def _fares(bed: death.Deathbed) -> dict[str, Fare]:
    return {name: schedule.fare(one.pid) for name, one in bed.processes.items()}
