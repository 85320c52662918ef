"""CPU stress: busy processes take the processors away (R18)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from blackstart.faults import company, death, mechanisms
from blackstart.host import cgroups, hog, schedule
from blackstart.model.fault import Receipt, Witness

if TYPE_CHECKING:
    from blackstart.contracts import FaultContext
    from blackstart.host.schedule import Fare
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_WINDOW_NS = 1_000_000_000
_LOOK_NS = 300_000_000
_LOOKS = 10
_STARVED = 0.5
"""Who got less than this of what it wanted, before, was starved by others: look again, `_LOOKS` in all."""
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
    components, the hogs ran. A busy host may starve a component before the stress does: it is looked at until
    the host is calm, for three seconds at most, and where it never was, nobody can tell who took the time.
    """

    name = "cpu_stress"

    def __init__(self) -> None:
        self._strike = death.Strike()
        self._company = company.Company()
        self._usual: dict[str, Fare] = {}

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
        """Look at how the components fare without stress, until a moment when nobody else starves them."""
        if not step.components:
            return
        bed = await self._strike.aim(ctx, step)
        for _ in range(_LOOKS):
            before = _fares(bed)
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _LOOK_NS)
            self._usual = {name: now.since(before[name]) for name, now in _fares(bed).items()}
            if not any(map(_starved, self._usual.values())):
                break

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Let the hogs go."""
        bed = await self._strike.aim(ctx, step) if step.components else death.Deathbed({}, ctx.clock)
        usual = {name: self._usual.get(name, now) for name, now in _fares(bed).items()}
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
            data={
                "usually_got": {name: one.got for name, one in usual.items()},
                "starved_before": sorted(name for name, one in usual.items() if _starved(one)),
            },
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
        evidence |= {"hogs_run": run, "starved_before": receipt.data["starved_before"]}
        if run <= _BUSY or hurt or not receipt.data["starved_before"]:
            return Witness(bit=hurt and run > _BUSY, evidence=evidence)
        return Witness(bit=None, evidence=evidence)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """End the hogs, give everybody their weight back."""
        del ctx, receipt
        await self._company.dismiss()
        self._strike.close()


def _share(weight: int | None) -> dict[str, str]:
    """Write a weight for both versions of control groups; None is the least that each has."""
    shares = 2 if weight is None else max(2, weight * 1024 // _USUAL_WEIGHT)
    return {"cpu.shares": str(shares), "cpu.weight": str(weight or 1)}


def _starved(look: Fare) -> bool:
    """Tell whether others took the time of a component, in a look of `_LOOK_NS`."""
    return look.got < _STARVED and look.waited_ns >= _WAITED * _LOOK_NS


def _fares(bed: death.Deathbed) -> dict[str, Fare]:
    return {name: schedule.fare(one.pid) for name, one in bed.processes.items()}
