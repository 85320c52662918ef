"""Out of memory: the kernel kills the component (R27)."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.errors import FaultError
from blackstart.faults import company, death, limits, mechanisms
from blackstart.host import cgroups, hog
from blackstart.model.fault import Receipt, Witness

if TYPE_CHECKING:
    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_LIMIT_MB = 64
_LEAST_MB = 32
_SHARES = (0.6, 0.6)
"""What the companions of one group would eat of it.

Two, because the kernel chooses by size, and one would be as large as the group itself: then a component with
`oom_score_adj` 1000 would hardly be ahead. To protect a companion by a lower score takes a privilege
(CAP_SYS_RESOURCE) that even root has not everywhere.
"""
_FIRST_CHOICE = 1000
_FLOOR = 2**29
_KILL_LIMIT_S = 20.0
_LOOK_NS = 500_000
_DEATH_LIMIT_S = 30.0
"""Who has not died of a mere limit by then, of allocations that fail, lives on for all that is known."""


class Oom:
    """The component and companions that eat share a memory cgroup of `limit_mb` (64) until it is full.

    The kernel then kills the component, which has `oom_score_adj` 1000; nobody outside is in danger.
    `mechanism = "rlimit"`, and where there is no such group: the next allocation fails, which is no OOM kill,
    and a component that asks for no more memory lives on: then the trial is UNKNOWN.
    """

    name = "oom"

    def __init__(self) -> None:
        self._strike = death.Strike()
        self._company = company.Company()

    def mechanisms(self, target: Manifest) -> dict[str, str | None]:
        """See `contracts.HasMechanisms`."""
        del target
        return {"cgroup": cgroups.unavailable("memory"), "rlimit": None}

    @property
    def says(self) -> str:
        """What it does here, for `doctor`: by a mere limit, a trial may be UNKNOWN."""
        first = str(type(self).__doc__).splitlines()[0]
        if cgroups.unavailable("memory") is None:
            return first
        return f"{first} Here only allocations fail: who makes none lives on, and the trial is UNKNOWN"

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if (reason := mechanisms.problem(step, self.mechanisms(target))) is not None:
            return reason
        if float(step.parameters.get("limit_mb", _LIMIT_MB)) < _LEAST_MB:
            return f"`limit_mb` is at least {_LEAST_MB}: smaller, the kernel might choose a companion"
        return death.no_processes(target, step.components)

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """See `death.Strike`."""
        await self._strike.aim(ctx, step)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Fill the group until the kernel has killed. Raises FaultError when it does not."""
        bed = await self._strike.aim(ctx, step)
        chosen, why = mechanisms.best(step, self.mechanisms(ctx.target.manifest))
        if chosen == "rlimit":
            return await self._starve(ctx, bed, why)
        limit = round(float(step.parameters.get("limit_mb", _LIMIT_MB)) * 2**20)
        if hog.available() < 2 * limit * len(bed.processes) + _FLOOR:
            raise FaultError("the host itself is short of memory", where=f"limit_mb = {limit >> 20}")
        where = cgroups.hierarchy("memory")
        assert where is not None, "asked just now"
        self._company.others += [
            limits.oom_score(name, one, to=_FIRST_CHOICE) for name, one in bed.processes.items()
        ]
        for name, one in bed.processes.items():
            self._company.group(where, name, one)
        for share in len(bed.processes) * _SHARES:
            self._company.helper(hog, 0, "memory", round(share * limit), _FLOOR)
        await self._company.assemble(ctx, _limits(where, limit))
        try:
            when, counts = await self._fill(ctx, bed)
        except BaseException:
            await self._company.dismiss()
            raise
        mechanism = f"OOM kill in a memory cgroup (v{where.version}) of {limit >> 20} MiB"
        receipt = self._strike.receipt(
            self.name, mechanism, "the cgroup's count of OOM kills", when, **counts
        )
        return msgspec.structs.replace(receipt, undo=tuple(self._company.undos))

    async def _fill(self, ctx: FaultContext, bed: death.Deathbed) -> tuple[tuple[int, int], dict[str, Any]]:
        """Let the companions eat, and end each as soon as the kernel has killed in its group.

        The kill lies between two looks at the counter.
        """
        helpers, count = self._company.helpers, len(_SHARES)
        waiting = {name: helpers[k * count : (k + 1) * count] for k, name in enumerate(bed.processes)}
        for name, companions in waiting.items():
            _first_choice(bed.processes[name].pid)
            for one in companions:
                cgroups.join(self._company.groups[name], one.ref.pid)
                one.go()
        began = before = ctx.clock.now().mono_ns
        first, last, kills = 0, 0, dict.fromkeys(waiting, 0)
        while waiting:
            now = ctx.clock.now().mono_ns
            for name in [one for one in waiting if _kills(self._company.groups[one])]:
                first, last = first or before, now
                kills[name] = _kills(self._company.groups[name])
                for one in waiting.pop(name):
                    one.end()
            if now > began + _KILL_LIMIT_S * 1e9:
                raise FaultError("the kernel did not kill", where=", ".join(waiting))
            before = now
            await ctx.clock.sleep_until(now + _LOOK_NS)
        return (first, last), {"oom_kills": kills}

    async def _starve(self, ctx: FaultContext, bed: death.Deathbed, why: str) -> Receipt:
        """Limit the address space to what is there already."""
        hard = {name: resource.prlimit(one.pid, resource.RLIMIT_AS)[1] for name, one in bed.processes.items()}
        of, found = resource.RLIMIT_AS, bed.processes.items()
        sizes = {name: _size(one.pid) for name, one in found}
        self._company.others += [limits.undo(name, one, of, to=sizes[name]) for name, one in found]
        await self._company.assemble(ctx)
        before = ctx.clock.now().mono_ns
        for name, one in bed.processes.items():
            resource.prlimit(one.pid, of, (sizes[name], hard[name]))
        when = before, ctx.clock.now().mono_ns
        mechanism = f"RLIMIT_AS: allocations fail; no OOM kill{f' ({why})' if why else ''}"
        receipt = self._strike.receipt(self.name, mechanism, "the limit was set", when)
        return msgspec.structs.replace(receipt, undo=tuple(self._company.undos))

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Prove the kernel's kill by the group's own counter, and the deaths.

        Of a mere limit nobody can tell whether an allocation failed, unless the process died of it.
        """
        del ctx
        deaths = await self._strike.witness(receipt, limit_s=_DEATH_LIMIT_S)
        kills = receipt.data.get("oom_kills")
        if kills is None:
            return Witness(bit=True if deaths.bit else None, evidence=deaths.evidence)
        bit = bool(deaths.bit) and all(count >= 1 for count in kills.values())
        return Witness(bit=bit, evidence={**deaths.evidence, "oom_kills": kills})

    async def operate(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Start again what only Blackstart starts."""
        if death.restarts(ctx, receipt.processes) and await self._strike.bed.gone(_DEATH_LIMIT_S):
            await self._strike.start_again(ctx, receipt.processes)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Remove the group; who lives yet is given its limits and its score back by the guardian."""
        del ctx, receipt
        await self._company.dismiss()
        self._strike.close()


def _limits(where: cgroups.Hierarchy, limit: int) -> dict[str, str]:
    """Without swap: what is swapped out is not out of memory."""
    if where.version == 1:
        return {"memory.limit_in_bytes": str(limit), "memory.swappiness": "0"}
    return {"memory.max": str(limit), "memory.swap.max": "0"}


def _kills(folder: Path) -> int:
    found = cgroups.values(folder, "memory.events") or cgroups.values(folder, "memory.oom_control")
    return found.get("oom_kill", 0)


def _first_choice(pid: int) -> None:
    Path(f"/proc/{pid}/oom_score_adj").write_text(str(_FIRST_CHOICE), encoding="utf-8")


def _size(pid: int) -> int:
    """Return the size of a process' address space in bytes."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[0]
    return int(pages) * resource.getpagesize()
