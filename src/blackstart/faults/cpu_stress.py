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
_LEAST_WAIT = 0.01
_BUSY = 0.1
_GENTLE = 10


class CpuStress:
    """`workers` busy processes (twice as many as processors) for as long as it lasts.

    Plain hogs hardly hurt a process that sleeps most of the time. So, with components and where a control
    group can be made, these get the least weight there is, and the hogs are nice: nobody else suffers.
    `plain` does without, and hurts whoever is there. Witness: how long the components stood ready and waited,
    by the kernel's account; without components, how much the hogs ran.
    """

    name = "cpu_stress"

    def __init__(self) -> None:
        self._strike = death.Strike()
        self._company = company.Company()
        self._fares: tuple[int, dict[str, Fare]] = (0, {})

    def mechanisms(self) -> dict[str, str | None]:
        """See `contracts.HasMechanisms`."""
        return {"weight": cgroups.unavailable("cpu"), "plain": None}

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if (reason := mechanisms.problem(step, self.mechanisms())) is not None:
            return reason
        if step.parameters.get("mechanism") == "weight" and not step.components:
            return "whose weight? `components` names them"
        return death.no_processes(target, step.components) if step.components else None

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Look at how the components fare without stress."""
        if step.components:
            bed = await self._strike.aim(ctx, step)
            self._fares = ctx.clock.now().mono_ns, _fares(bed)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Let the hogs go."""
        bed = await self._strike.aim(ctx, step) if step.components else death.Deathbed({}, ctx.clock)
        usual = self._usual(ctx, bed)
        mechanism = self._weigh(step, bed)
        workers = int(step.parameters.get("workers", 2 * (os.cpu_count() or 1)))
        for _ in range(workers):
            self._company.helper(hog, 1000, "cpu")
        await self._company.assemble(ctx, {"cpu.shares": "2", "cpu.weight": "1"})
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
            data={"usual_wait": usual},
        )

    def _weigh(self, step: FaultStep, bed: death.Deathbed) -> str:
        """Announce a group of least weight for each component, where that can be had."""
        chosen, why = mechanisms.best(step, self.mechanisms())
        where = cgroups.hierarchy("cpu")
        if chosen == "plain" or not bed.processes or where is None:
            return f"plain ({why})" if why and bed.processes else "plain"
        for name, one in bed.processes.items():
            self._company.group(where, name, one)
        return f"components at the least weight (cgroup v{where.version})"

    def _usual(self, ctx: FaultContext, bed: death.Deathbed) -> dict[str, float | None]:
        """Return the share of the time that each component usually waits; None where nobody looked before."""
        since, fares = self._fares
        passed = ctx.clock.now().mono_ns - since
        return {
            name: now.since(fares[name]).waited_ns / passed if name in fares else None
            for name, now in _fares(bed).items()
        }

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Measure for a second."""
        watched = {name: one.pid for name, one in receipt.processes.items()}
        hogs = {f"hog {one.ref.pid}": one.ref.pid for one in self._company.helpers}
        began = ctx.clock.now().mono_ns
        before = {name: schedule.fare(pid) for name, pid in {**watched, **hogs}.items()}
        await ctx.clock.sleep_until(began + _WINDOW_NS)
        passed = ctx.clock.now().mono_ns - began
        grown = {n: schedule.fare(pid).since(before[n]) for n, pid in {**watched, **hogs}.items()}
        evidence: dict[str, Any] = {
            name: {
                "waits": grown[name].waited_ns / passed,
                "usually": receipt.data["usual_wait"].get(name),
                "runs": grown[name].run_ns / passed,
            }
            for name in watched
        }
        evidence["hogs_run"] = sum(grown[name].run_ns for name in hogs) / passed
        hurt = [
            one["waits"] > max(_LEAST_WAIT, 2 * (one["usually"] or 0))
            for one in map(evidence.get, watched)
            if one
        ]
        return Witness(bit=all(hurt) and evidence["hogs_run"] > _BUSY, evidence=evidence)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """End the hogs, give everybody their weight back."""
        del ctx, receipt
        await self._company.dismiss()
        self._strike.close()


def _fares(bed: death.Deathbed) -> dict[str, Fare]:
    return {name: schedule.fare(one.pid) for name, one in bed.processes.items()}
