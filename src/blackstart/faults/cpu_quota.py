"""CPU quota: the component gets no more than a few percent of one processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.faults import company, death, mechanisms
from blackstart.faults.pause import Pause
from blackstart.host import cgroups, schedule
from blackstart.model.fault import Receipt, Witness

if TYPE_CHECKING:
    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_PERCENT = 5.0
_PERIOD_MS = 100.0
_LEAST_US = 1000
_WITNESS_LIMIT_NS = 5_000_000_000
_LOOK_NS = 10_000_000


class CpuQuota:
    """A control group gives it `percent` (5) of one processor in each `period_ms` (100).

    Where no group can be made, or with `mechanism = "duty"`, it stands still for the rest of each.
    """

    name = "cpu_quota"
    exclusive = True

    def __init__(self) -> None:
        self._strike = death.Strike()
        self._company = company.Company()
        self._slow: Pause | None = None

    def mechanisms(self, target: Manifest) -> dict[str, str | None]:
        """See `contracts.HasMechanisms`."""
        del target
        return {"cgroup": cgroups.unavailable("cpu"), "duty": None}

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if not 0 < float(step.parameters.get("percent", _PERCENT)) < 100:  # noqa: PLR2004 - percent
            return "`percent` lies between 0 and 100"
        if (reason := mechanisms.problem(step, self.mechanisms(target))) is not None:
            return reason
        return death.no_processes(target, step.components)

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """See `death.Strike`."""
        await self._strike.aim(ctx, step)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Move each component into a group of its own that has the quota already."""
        percent = float(step.parameters.get("percent", _PERCENT))
        period_ms = float(step.parameters.get("period_ms", _PERIOD_MS))
        chosen, why = mechanisms.best(step, self.mechanisms(ctx.target.manifest))
        if chosen == "duty":
            return await self._by_turns(ctx, step, percent, why)
        bed = await self._strike.aim(ctx, step)
        where = cgroups.hierarchy("cpu")
        assert where is not None, "asked just now"
        for name, one in bed.processes.items():
            self._company.group(where, name, one)
        await self._company.assemble(ctx, _limits(where, percent, period_ms))
        when = self._company.joining_mono_ns, ctx.clock.now().mono_ns
        fares = {name: schedule.fare(one.pid) for name, one in bed.processes.items()}
        mechanism = f"cgroup v{where.version} quota: {percent:g} % of one processor"
        receipt = self._strike.receipt(self.name, mechanism, "the move into the group", when, fares=fares)
        return msgspec.structs.replace(receipt, undo=tuple(self._company.undos))

    async def _by_turns(self, ctx: FaultContext, step: FaultStep, percent: float, why: str) -> Receipt:
        self._slow = Pause()
        parameters = {"duty": percent / 100, "period_ms": step.parameters.get("period_ms", _PERIOD_MS)}
        receipt = await self._slow.inject(ctx, msgspec.structs.replace(step, parameters=parameters))
        mechanism = f"{receipt.mechanism}{f' ({why})' if why else ''}"
        return msgspec.structs.replace(receipt, fault=self.name, mechanism=mechanism)

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Ask the kernel how often it held the component back; a component that needs less was not hurt."""
        if self._slow is not None:
            return await self._slow.witness(ctx, receipt)
        deadline = ctx.clock.now().mono_ns + _WITNESS_LIMIT_NS
        while not all(one["nr_throttled"] for one in self._counts().values()) and (
            ctx.clock.now().mono_ns < deadline
        ):
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _LOOK_NS)
        counts = self._counts()
        evidence: dict[str, Any] = {name: {"cpu_stat": counts[name]} for name in receipt.processes}
        for name, one in receipt.processes.items():
            grown = schedule.fare(one.pid).since(schedule.Fare(*receipt.data["fares"][name]))
            evidence[name] |= {"ran_ms": grown.run_ns / 1e6, "waited_ms": grown.waited_ns / 1e6}
        return Witness(bit=all(one["nr_throttled"] for one in counts.values()), evidence=evidence)

    def _counts(self) -> dict[str, dict[str, int]]:
        groups = self._company.groups
        return {n: {"nr_throttled": 0, **cgroups.values(one, "cpu.stat")} for n, one in groups.items()}

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Give them the processor back."""
        if self._slow is not None:
            await self._slow.revert(ctx, receipt)
        await self._company.dismiss()
        self._strike.close()


def _limits(where: cgroups.Hierarchy, percent: float, period_ms: float) -> dict[str, str]:
    period = round(period_ms * 1000)
    quota = max(_LEAST_US, round(period * percent / 100))
    if where.version == 1:
        return {"cpu.cfs_period_us": str(period), "cpu.cfs_quota_us": str(quota)}
    return {"cpu.max": f"{quota} {period}"}
