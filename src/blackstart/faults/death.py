"""Ending processes all at once, and noticing their death from the kernel: the pidfd becomes readable.

Those of other hosts are signalled and watched by the helper there; only faults that say so reach them
(`Strike(remote=True)`), for all others they cannot be found.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from blackstart.contracts import (
    AsksManagers,
    Clock,
    FaultContext,
    HasHosts,
    HasProcesses,
    Hold,
    KnowsItsOwn,
    Restartable,
    TellsEnds,
)
from blackstart.errors import BlackstartError, FaultError
from blackstart.host import refs
from blackstart.host.death import DeathNotice
from blackstart.model.fault import ProcessRef, Receipt, RemoteRef, Witness

if TYPE_CHECKING:
    import signal
    from collections.abc import Container, Iterable, Mapping, Sequence

    from blackstart.model.manifest import Component, Manifest
    from blackstart.model.scenario import FaultStep


class Deathbed:
    """Watches processes from before they are hit. `noticed` is when the kernel told us of each death."""

    def __init__(self, processes: Mapping[str, ProcessRef], clock: Clock) -> None:
        self.processes = dict(processes)
        self.holds: dict[str, Hold] = {}
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

    @property
    def names(self) -> tuple[str, ...]:
        """The components around whom it stands, those of this host first."""
        return (*self.processes, *self.holds)

    def ref(self, name: str) -> ProcessRef | RemoteRef:
        """Return which process is watched for a component."""
        return self.processes[name] if name in self.processes else self.holds[name].ref

    async def reach(self, target: HasHosts, names: Iterable[str]) -> None:
        """Watch components of other hosts, too. Raises TargetError when one has no process."""
        try:
            for name in names:
                self.holds[name] = await target.hold(name, functools.partial(self._died, name))
        except BlackstartError:
            self.close()
            raise

    async def strike(self, *numbers: signal.Signals, spared: Container[str] = ()) -> tuple[int, int]:
        """Signal all of them, as close together as can be: one signal for all, or one for each in order.

        Returns the instants just before and just after. Those of other hosts follow those of this one;
        `spared` are those of this host that are not signalled.
        """
        chosen = dict(zip(self.names, itertools.cycle(numbers), strict=False))
        aimed = [(notice, chosen[name]) for name, notice in self._notices.items() if name not in spared]
        before = self._clock.now().mono_ns
        for notice, number in aimed:
            notice.signal(number)  # one that ended by itself meanwhile is the witness's to tell
        after = self._clock.now().mono_ns
        if not self.holds:
            return before, after
        there = await asyncio.gather(*(hold.signal(chosen[name]) for name, hold in self.holds.items()))
        spans = [*there, *([(before, after)] if aimed else [])]
        return min(one for one, _ in spans), max(one for _, one in spans)

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
        for hold in self.holds.values():
            hold.close()

    def _died(self, name: str, mono_ns: int) -> None:
        self.noticed[name] = mono_ns
        if len(self.noticed) == len(self.names):
            self._all.set()


class Strike:
    """One blow at the processes of a step: aimed, struck, witnessed, answered by the operator, let go.

    With `remote` also at those of other hosts; else these are refused.
    """

    def __init__(self, *, remote: bool = False) -> None:
        self._remote = remote
        self._bed: Deathbed | None = None

    @property
    def bed(self) -> Deathbed:
        """The watch around the victims, once aimed."""
        assert self._bed is not None, "aimed first"
        return self._bed

    async def aim(self, ctx: FaultContext, step: FaultStep) -> Deathbed:
        """Open handles on the processes, which takes longer than killing them; new ones if somebody ended."""
        self._bed = await aimed(self._bed, ctx, step, remote=self._remote)
        return self._bed

    def receipt(self, fault: str, mechanism: str, source: str, when: tuple[int, int], **data: Any) -> Receipt:
        """Say what was done; `when` are the instants just before and just after."""
        before, after = when
        hosts = sorted({hold.ref.host for hold in self.bed.holds.values()})
        through = f" (by the helper on {', '.join(hosts)})" if hosts else ""
        return Receipt(
            fault=fault,
            mechanism=f"{mechanism}{through}",
            t0_mono_ns=after,
            t0_source=source,
            uncertainty_ns=after - before,
            processes=self.bed.processes,
            remote={name: hold.ref for name, hold in self.bed.holds.items()},
            data=data,
        )

    async def witness(self, receipt: Receipt, *, limit_s: float = 10.0) -> Witness:
        """See `witness`."""
        return await witness(self.bed, receipt.t0_mono_ns, limit_s=limit_s)

    async def gone(self, limit_s: float, after: str) -> None:
        """Wait for the end of all. Raises FaultError naming those that are still there."""
        if not await self.bed.gone(limit_s):
            left = ", ".join(name for name in self.bed.names if name not in self.bed.noticed)
            raise FaultError(f"still running {limit_s:g} s after {after}", where=left)

    async def start_again(
        self, ctx: FaultContext, components: Iterable[str], *, stopped: bool = False
    ) -> None:
        """Start what only Blackstart starts again; see `ours` for `stopped`."""
        chosen = set(components)
        here = {name: one for name, one in self.bed.processes.items() if name in chosen}
        there = [name for name in self.bed.holds if name in chosen]
        await start_again(ctx, restarts(ctx, here, there, stopped=stopped))

    def close(self) -> None:
        """Let the handles go; idempotent."""
        if self._bed is not None:
            self._bed.close()


async def find(ctx: FaultContext, step: FaultStep) -> dict[str, ProcessRef]:
    """Look up the processes of a step's components.

    Raises TargetError when one has none, or runs on another host.
    """
    return await _look(ctx, _named(step))


def _named(step: FaultStep) -> tuple[str, ...]:
    if not step.components:
        raise FaultError("which component?", where=step.kind, hint="`components` of the fault names it")
    return step.components


async def _look(ctx: FaultContext, names: Sequence[str]) -> dict[str, ProcessRef]:
    target = ctx.target
    assert isinstance(target, HasProcesses)
    found = dict(zip(names, await asyncio.gather(*map(target.process, names)), strict=True))
    for name, one in found.items():
        if not refs.alive(one):  # its operator has not heard of its end yet
            raise FaultError("has ended before the fault", where=f"{name} (pid {one.pid})")
    return found


async def around(ctx: FaultContext, components: Iterable[str], *, remote: bool) -> Deathbed:
    """Return a deathbed around components; with `remote` also around those of other hosts."""
    target, names = ctx.target, tuple(components)
    there = [name for name in names if remote and target.manifest.host_of(name) is not None]
    bed = Deathbed(await _look(ctx, [name for name in names if name not in there]), ctx.clock)
    if there:
        assert isinstance(target, HasHosts)
        await bed.reach(target, there)
    return bed


async def aimed(
    bed: Deathbed | None, ctx: FaultContext, step: FaultStep, *, remote: bool = False
) -> Deathbed:
    """Return a deathbed around the living.

    The one from before the trigger, or a new one if somebody ended.
    """
    if bed is not None and not bed.noticed:
        return bed
    if bed is not None:
        bed.close()
    return await around(ctx, _named(step), remote=remote)


async def witness(bed: Deathbed, t0_mono_ns: int, *, limit_s: float = 10.0) -> Witness:
    """Prove the deaths twice.

    The kernel told us by pidfd, and `/proc` no longer shows a live process of that start time.
    """
    told = await bed.gone(limit_s)
    evidence = {name: _evidence(bed, name, process, t0_mono_ns) for name, process in bed.processes.items()}
    for name, hold in bed.holds.items():
        evidence[name] = await _evidence_there(bed, name, hold, t0_mono_ns)
    return Witness(bit=told and all(one["gone_from_proc"] for one in evidence.values()), evidence=evidence)


def _evidence(bed: Deathbed, name: str, process: ProcessRef, t0_mono_ns: int) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "start_ticks": process.start_ticks,
        "noticed_after_ms": _noticed_after_ms(bed, name, t0_mono_ns),
        "gone_from_proc": not refs.alive(process),
    }


async def _evidence_there(bed: Deathbed, name: str, hold: Hold, t0_mono_ns: int) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(hold.ref),
        "noticed_after_ms": _noticed_after_ms(bed, name, t0_mono_ns),
        "gone_from_proc": await hold.state() == "gone",
    }


async def ended_with(ctx: FaultContext, component: str, process: ProcessRef) -> int | None:
    """Return the exit status of a process that has ended, negative for a signal; None when nobody tells."""
    if not isinstance(ctx.target, TellsEnds):
        return None
    return await ctx.target.ended_with(component, process)


def _noticed_after_ms(bed: Deathbed, name: str, t0_mono_ns: int) -> float | None:
    noticed = bed.noticed.get(name)
    return None if noticed is None else (noticed - t0_mono_ns) / 1e6


def ours(manifest: Manifest, components: Iterable[str], *, stopped: bool = False) -> list[str]:
    """Name the processes among them that Blackstart, as the operator, starts again.

    In the order of the manifest; units, containers and components of other hosts by their own names, after
    those. `stopped`: by their managers, which then start none of them again.
    """
    found = [one for one in components if one in manifest.components]
    wanted = {manifest.components[one].process for one in found}
    return [
        *_operated(manifest, wanted),
        *(one for one in found if _asked_to_start(manifest.components[one], stopped=stopped)),
    ]


def _asked_to_start(spec: Component, *, stopped: bool) -> bool:
    return spec.operated or (stopped and spec.managed)


def _operated(manifest: Manifest, wanted: Container[str | None]) -> list[str]:
    return [
        name
        for name, process in manifest.processes.items()
        if name in wanted and process.restart == "blackstart"
    ]


def restarts(
    ctx: FaultContext,
    processes: Mapping[str, ProcessRef],
    remote: Iterable[str] = (),
    *,
    stopped: bool = False,
) -> list[str]:
    """Name the processes that Blackstart starts again: `ours`, and those that are ours behind a role."""
    manifest, target = ctx.target.manifest, ctx.target
    names = set(ours(manifest, processes, stopped=stopped))
    if isinstance(target, KnowsItsOwn):
        names |= {name for one in processes.values() if (name := target.started_as(one)) is not None}
    managed = [one for one in processes if one in manifest.components and manifest.components[one].managed]
    return [*_operated(manifest, names), *ours(manifest, [*managed, *remote], stopped=stopped)]


class Asked(NamedTuple):
    """When and how processes were asked to end."""

    t0_mono_ns: int
    uncertainty_ns: int
    mechanism: str


async def ask_to_end(ctx: FaultContext, bed: Deathbed, numbers: Sequence[signal.Signals]) -> Asked:
    """Ask for an orderly end: a unit or container by its manager, any other process by its signal."""
    components, target = ctx.target.manifest.components, ctx.target
    managed = [name for name in bed.names if name in components and components[name].managed]
    if not managed:
        before, after = await bed.strike(*numbers)
        return Asked(after, after - before, _by_signals(numbers))
    assert isinstance(target, AsksManagers)
    before = ctx.clock.now().mono_ns
    said = list(await asyncio.gather(*(target.ask_stop(name) for name in managed)))
    others = [number for name, number in zip(bed.names, numbers, strict=True) if name not in managed]
    if others:
        await bed.strike(*numbers, spared=managed)
        said.append(_by_signals(others))
    # The manager acts while we still wait for its answer: nothing that follows may come before T0.
    return Asked(before, ctx.clock.now().mono_ns - before, ", ".join(said))


def _by_signals(numbers: Iterable[signal.Signals]) -> str:
    return f"{' and '.join(sorted({number.name for number in numbers}))} by pidfd_send_signal"


async def start_again(ctx: FaultContext, processes: Iterable[str]) -> None:
    """Start processes in order, each as soon as the one before is ready.

    An operator with a `restart_after_s` takes that time from now on: a failover comes first.
    """
    target = ctx.target
    began = ctx.clock.now().mono_ns
    for name in processes:
        assert isinstance(target, Restartable)
        manifest = target.manifest
        described = manifest.processes.get(name) or manifest.components.get(name)
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
