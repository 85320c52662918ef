"""Memory pressure: a companion holds a share of the host's memory, or of the component's group (R18)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackstart.errors import FaultError
from blackstart.faults import company, death
from blackstart.host import cgroups, hog
from blackstart.model.fault import Receipt, Witness

if TYPE_CHECKING:
    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_SHARE = 0.5
_GROUP_SHARE = 0.95
_GROUP_MB = 256
_HOST_MB = 4096
_FLOOR = 2**30
_REACHED = 0.98
_WITNESS_LIMIT_NS = 20_000_000_000
_LOOK_NS = 10_000_000


class MemoryPressure:
    """Without components: `share` (0.5) of what the host has available, at most `limit_mb` (4096).

    With components (memory cgroup, root): each is moved into a group of `limit_mb` (256) with a companion
    that fills `share` (0.95) of it; what they allocate or read from now on has only the rest. The companion
    never takes the host below 1 GiB available, is the first whom the kernel would kill, and dies with us.
    """

    name = "memory_pressure"

    def __init__(self) -> None:
        self._strike = death.Strike()
        self._company = company.Company()
        self._empty: dict[int, int] = {}

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if not 0 < float(step.parameters.get("share", _SHARE)) < 1:
            return "`share` lies between 0 and 1"
        if not step.components:
            return None
        reason = cgroups.unavailable("memory")
        return reason if reason is not None else death.no_processes(target, step.components)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Let the companions eat. Raises FaultError where the host has too little to spare."""
        bed = await self._strike.aim(ctx, step) if step.components else death.Deathbed({}, ctx.clock)
        grouped = bool(bed.processes)
        limit = round(float(step.parameters.get("limit_mb", _GROUP_MB if grouped else _HOST_MB)) * 2**20)
        share = float(step.parameters.get("share", _GROUP_SHARE if grouped else _SHARE))
        spare = hog.available() - _FLOOR
        size = round(limit * share) if grouped else round(min(limit, hog.available() * share))
        if size * max(1, len(bed.processes)) > spare:
            raise FaultError(
                f"{size >> 20} MiB would leave the host less than {_FLOOR >> 20} MiB",
                where=self.name,
                hint="a smaller `share` or `limit_mb`",
            )
        where = cgroups.hierarchy("memory") if grouped else None
        for name, one in bed.processes.items():
            assert where is not None, "asked before: `unavailable`"
            self._company.group(where, name, one)
        for _ in bed.processes or ("host",):
            self._company.helper(hog, 1000, "memory", size, _FLOOR)
        available = hog.available()
        await self._company.assemble(ctx, {"memory.limit_in_bytes": str(limit), "memory.max": str(limit)})
        before = ctx.clock.now().mono_ns
        for helper, folder in zip(self._company.helpers, self._company.groups.values(), strict=False):
            cgroups.join(folder, helper.ref.pid)
        self._empty = {one.ref.pid: _resident(one.ref.pid) for one in self._company.helpers}
        for helper in self._company.helpers:
            helper.go()
        after = ctx.clock.now().mono_ns
        what = f"of a memory cgroup (v{where.version}) of {limit >> 20} MiB" if where else "of the host"
        return Receipt(
            fault=self.name,
            mechanism=f"a companion holds {size >> 20} MiB {what}",
            t0_mono_ns=after,
            t0_source="the companion was let go",
            uncertainty_ns=after - before,
            processes=bed.processes,
            undo=tuple(self._company.undos),
            data={"size": size, "available_before": available},
        )

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Ask the kernel how much the companions hold, how full the groups are, what the host has left."""
        wanted = receipt.data["size"] * _REACHED
        deadline = ctx.clock.now().mono_ns + _WITNESS_LIMIT_NS
        while (
            any(size < wanted for size in self._held().values())
            and all(one.running for one in self._company.helpers)
            and ctx.clock.now().mono_ns < deadline
        ):
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _LOOK_NS)
        held = self._held()
        evidence: dict[str, Any] = {
            "held_bytes": held,
            "companions_killed": sum(not one.running for one in self._company.helpers),
            "available_before": receipt.data["available_before"],
            "available_now": hog.available(),
            "groups": {name: _usage(folder) for name, folder in self._company.groups.items()},
            "pressure": _pressure(),
        }
        return Witness(bit=all(size >= wanted for size in held.values()), evidence=evidence)

    def _held(self) -> dict[str, int]:
        """Return what each companion has in memory besides itself."""
        return {str(pid): _resident(pid) - empty for pid, empty in self._empty.items()}

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """End the companions, remove the groups."""
        del ctx, receipt
        await self._company.dismiss()
        self._strike.close()


def _resident(pid: int) -> int:
    """Return how many bytes of a process are in memory; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def _usage(folder: Path) -> dict[str, str]:
    names = (
        "memory.usage_in_bytes",
        "memory.limit_in_bytes",
        "memory.failcnt",
        "memory.current",
        "memory.max",
    )
    return {n: (folder / n).read_text(encoding="utf-8").strip() for n in names if (folder / n).exists()}


def _pressure() -> str:
    """Return the kernel's own measure of stalls for want of memory, where it keeps one."""
    file = Path("/proc/pressure/memory")
    return file.read_text(encoding="utf-8").strip() if file.exists() else ""
