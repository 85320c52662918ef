"""Ending processes all at once, and noticing their death from the kernel: the pidfd becomes readable."""

from __future__ import annotations

import asyncio
import functools
import itertools
from typing import TYPE_CHECKING, Any

from blackstart.contracts import Clock, FaultContext, HasProcesses, KnowsItsOwn, Restartable
from blackstart.errors import FaultError
from blackstart.host import refs
from blackstart.host.death import DeathNotice
from blackstart.model.fault import ProcessRef, Receipt, Witness

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Mapping

    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep


class Deathbed:
    """Watches processes from before they are hit. `noticed` is when the kernel told us of each death."""

    def __init__(self, processes: Mapping[str, ProcessRef], clock: Clock) -> None:
        self.processes = dict(processes)
        self.noticed: dict[str, int] = {}
        self._clock = clock
        self._all = asyncio.Event()
        self._notices: dict[str, DeathNotice] = {}
        for name, process in processes.items():
            try:
                self._notices[name] = DeathNotice(process, clock, functools.partial(self._died, name))
            except ProcessLookupError:
                self.close()
                where = f"{name} (pid {process.pid})"
                raise FaultError("has ended before the fault", where=where) from None

    def strike(self, *numbers: signal.Signals) -> tuple[int, int]:
        """Signal all of them, as close together as can be: one signal for all, or one for each in order.

        Returns the instants just before and just after.
        """
        aimed = list(zip(self._notices.values(), itertools.cycle(numbers), strict=False))
        before = self._clock.now().mono_ns
        for notice, number in aimed:
            notice.signal(number)  # one that ended by itself meanwhile is the witness's to tell
        return before, self._clock.now().mono_ns

    async def gone(self, limit_s: float) -> bool:
        """Wait until all are dead; False after `limit_s`."""
        try:
            async with asyncio.timeout(limit_s):
                await self._all.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Let go of the handles; idempotent."""
        for notice in self._notices.values():
            notice.close()

    def _died(self, name: str, mono_ns: int) -> None:
        self.noticed[name] = mono_ns
        if len(self.noticed) == len(self.processes):
            self._all.set()


class Strike:
    """One blow at the processes of a step: aimed, struck, witnessed, answered by the operator, let go."""

    def __init__(self) -> None:
        self._bed: Deathbed | None = None

    @property
    def bed(self) -> Deathbed:
        """The watch around the victims, once aimed."""
        assert self._bed is not None, "aimed first"
        return self._bed

    async def aim(self, ctx: FaultContext, step: FaultStep) -> Deathbed:
        """Open handles on the processes, which takes longer than killing them; new ones if somebody ended."""
        self._bed = await aimed(self._bed, ctx, step)
        return self._bed

    def receipt(self, fault: str, mechanism: str, source: str, when: tuple[int, int], **data: Any) -> Receipt:
        """Say what was done; `when` are the instants just before and just after."""
        before, after = when
        return Receipt(
            fault=fault,
            mechanism=mechanism,
            t0_mono_ns=after,
            t0_source=source,
            uncertainty_ns=after - before,
            processes=self.bed.processes,
            data=data,
        )

    async def witness(self, receipt: Receipt, *, limit_s: float = 10.0) -> Witness:
        """See `witness`."""
        return await witness(self.bed, receipt.t0_mono_ns, limit_s=limit_s)

    async def gone(self, limit_s: float, after: str) -> None:
        """Wait for the end of all. Raises FaultError naming those that are still there."""
        if not await self.bed.gone(limit_s):
            left = ", ".join(name for name in self.bed.processes if name not in self.bed.noticed)
            raise FaultError(f"still running {limit_s:g} s after {after}", where=left)

    async def start_again(self, ctx: FaultContext, components: Iterable[str]) -> None:
        """Start what only Blackstart starts again."""
        await start_again(ctx, restarts(ctx, {name: self.bed.processes[name] for name in components}))

    def close(self) -> None:
        """Let the handles go; idempotent."""
        if self._bed is not None:
            self._bed.close()


async def find(ctx: FaultContext, step: FaultStep) -> dict[str, ProcessRef]:
    """Look up the processes of a step's components. Raises TargetError when one has none."""
    target = ctx.target
    assert isinstance(target, HasProcesses)
    if not step.components:
        raise FaultError("which component?", where=step.kind, hint="`components` of the fault names it")
    found = await asyncio.gather(*(target.process(name) for name in step.components))
    return dict(zip(step.components, found, strict=True))


async def aimed(bed: Deathbed | None, ctx: FaultContext, step: FaultStep) -> Deathbed:
    """Return a deathbed around the living.

    The one from before the trigger, or a new one if somebody ended.
    """
    if bed is not None and not bed.noticed:
        return bed
    if bed is not None:
        bed.close()
    return Deathbed(await find(ctx, step), ctx.clock)


async def witness(bed: Deathbed, t0_mono_ns: int, *, limit_s: float = 10.0) -> Witness:
    """Prove the deaths twice.

    The kernel told us by pidfd, and `/proc` no longer shows a live process of that start time.
    """
    told = await bed.gone(limit_s)
    evidence = {name: _evidence(bed, name, process, t0_mono_ns) for name, process in bed.processes.items()}
    return Witness(bit=told and all(one["gone_from_proc"] for one in evidence.values()), evidence=evidence)


def _evidence(bed: Deathbed, name: str, process: ProcessRef, t0_mono_ns: int) -> dict[str, Any]:
    noticed = bed.noticed.get(name)
    return {
        "pid": process.pid,
        "start_ticks": process.start_ticks,
        "noticed_after_ms": None if noticed is None else (noticed - t0_mono_ns) / 1e6,
        "gone_from_proc": not refs.alive(process),
    }


def ours(manifest: Manifest, components: Iterable[str]) -> list[str]:
    """Name the processes among them that Blackstart, as the operator, starts again.

    In the order of the manifest.
    """
    wanted = {manifest.components[one].process for one in components if one in manifest.components}
    return [
        name
        for name, process in manifest.processes.items()
        if name in wanted and process.restart == "blackstart"
    ]


def restarts(ctx: FaultContext, processes: Mapping[str, ProcessRef]) -> list[str]:
    """Name the processes that Blackstart starts again: `ours`, and those that are ours behind a role."""
    manifest, target = ctx.target.manifest, ctx.target
    names = set(ours(manifest, processes))
    if isinstance(target, KnowsItsOwn):
        names |= {name for one in processes.values() if (name := target.started_as(one)) is not None}
    return [
        name
        for name, process in manifest.processes.items()
        if name in names and process.restart == "blackstart"
    ]


async def start_again(ctx: FaultContext, processes: Iterable[str]) -> None:
    """Start processes in order, each as soon as the one before is ready.

    An operator with a `restart_after_s` takes that time from now on: a failover comes first.
    """
    target = ctx.target
    began = ctx.clock.now().mono_ns
    for name in processes:
        assert isinstance(target, Restartable)
        described = target.manifest.processes.get(name)
        if described is not None and described.restart_after_s:
            await ctx.clock.sleep_until(began + round(described.restart_after_s * 1e9))
        await target.start(name)


def members(manifest: Manifest, components: Iterable[str]) -> list[str]:
    """Replace groups by their members, as a plan has them."""
    return [
        one
        for name in components
        for one in (manifest.groups.get(name[1:], ()) if name.startswith("@") else (name,))
    ]


def no_processes(manifest: Manifest, components: Iterable[str]) -> str | None:
    """Say which component is no process that could be hit, or None."""
    for name in components:
        if not name.startswith("@") and name not in manifest.components:
            return f"`{name}` is not a component of {manifest.name}"
    return None if manifest.components else "the manifest names no components"
