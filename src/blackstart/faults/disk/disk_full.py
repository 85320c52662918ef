"""A full disk (R28): the component's state lies on a small file system, which is filled while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.errors import FaultError
from blackstart.faults import death
from blackstart.faults.disk import folders
from blackstart.faults.disk.calls import CallFault, Kind
from blackstart.host import mounts, namespaces, refs, seccomp
from blackstart.model.fault import LaunchChange, Receipt, Undo, Witness

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_NAME = "disk_full"
_SIZE_MB = 64
_LAST = 1 << 20  # so much is filled at last, within a millisecond: then it is known when the disk was full
_KEEP_NS = 10_000_000
_WITNESS_LIMIT_NS = 2_000_000_000
_MECHANISMS = ("tmpfs", "seccomp")
_INJECTED = Kind(
    name=_NAME,
    says="",
    done="refused",
    calls=("writes", "sizes"),
    action="errno",
    error="ENOSPC",
)


class DiskFull:
    """No room is left on the disk of the component's state, whatever it removes, until that is taken back.

    `size_mb` (64): the disk's size. `path`: folders other than the manifest's `state`. `mechanism`: `tmpfs`,
    a file system in memory over each of them, in the trial's own mounts and from before the target starts;
    `seccomp`: where there are none, writes and whatever else takes room are refused.
    """

    name = _NAME

    def __init__(self) -> None:
        self._mounted: dict[Path, int] = {}
        self._ballast: list[mounts.Ballast] = []
        self._keeping: asyncio.Task[None] | None = None
        self._injected: CallFault | None = None
        self._freed = 0

    def mechanisms(self, target: Manifest) -> dict[str, str | None]:
        """See `contracts.HasMechanisms`."""
        return {
            "tmpfs": _no_mounts(target),
            "seccomp": seccomp.unavailable(attach=False),
        }

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if (problem := _wrong(step.parameters)) is not None:
            return problem
        if (
            problem := death.no_processes(target, step.components) or folders.unnamed(target, step)
        ) is not None:
            return problem
        wanted = step.parameters.get("mechanism")
        reason = _no_mounts(target)
        if wanted != "seccomp" and reason is None:
            return None
        other = (
            CallFault(_INJECTED).unavailable(target, _as_calls(step)) if wanted != "tmpfs" else "not wanted"
        )
        return other and f"tmpfs: {reason}; seccomp: {other}"

    async def prepare(self, ctx: FaultContext, step: FaultStep) -> LaunchChange:
        """Put a small file system over each state folder; the target does not run yet.

        What lies there from before, in a session of several faults, is used again. Raises FaultError.
        """
        if step.parameters.get("mechanism") == "seccomp" or "files" not in ctx.isolation:
            self._injected = CallFault(_INJECTED)
            return await self._injected.prepare(ctx, _as_calls(step))
        size = int(float(step.parameters.get("size_mb", _SIZE_MB)) * (1 << 20))
        number = namespaces.identity(namespaces.FILES)
        for path in folders.state(ctx, step):
            path.mkdir(parents=True, exist_ok=True)
            if mounts.mounted(str(path)):
                _same_size(path, size)
                self._mounted[path] = path.stat().st_dev
                continue
            arguments = {"path": str(path), "namespace": number}
            await ctx.protect([Undo(id=f"mount:{path}", action="unmount", arguments=arguments)])
            try:
                mounts.tmpfs(str(path), size)
            except OSError as error:
                raise FaultError(str(error.strerror), where=str(path)) from error
            self._mounted[path] = path.stat().st_dev
        return LaunchChange()

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Only the injected errors have something to prepare."""
        if self._injected is not None:
            await self._injected.aim(ctx, _as_calls(step))

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Fill the disks on which the component has files; t0 is when no room is left."""
        if self._injected is not None:
            return await self._injected.inject(ctx, _as_calls(step))
        processes = await death.find(ctx, step)
        paths = folders.used([one.pid for one in processes.values()], [*self._mounted])
        try:
            for path in paths:
                self._ballast.append(mounts.Ballast(str(path)))
                self._refuse_other(path, self._ballast[-1])
            undos = tuple(_undo(one) for one in self._ballast)
            await ctx.protect(undos)
            filled = sum(one.fill(leave=_LAST) for one in self._ballast)
            before = ctx.clock.now().mono_ns
            filled += sum(one.fill() for one in self._ballast)
        except OSError as error:
            self._empty()
            raise FaultError(f"cannot be filled: {error.strerror}", where=str(paths[0])) from error
        except BaseException:
            self._empty()
            raise
        after = ctx.clock.now().mono_ns
        self._keeping = asyncio.ensure_future(self._keep(ctx))
        return Receipt(
            fault=self.name,
            mechanism="tmpfs of limited size, filled by a file without a name",
            t0_mono_ns=after,
            t0_source="the file system says that no room is left",
            uncertainty_ns=after - before,
            processes=processes,
            undo=undos,
            data={"folders": [str(one) for one in paths], "filled_bytes": filled},
        )

    def _refuse_other(self, path: Path, ballast: mounts.Ballast) -> None:
        """Raise FaultError unless it lies on the small file system: the host's disk is never filled."""
        there = os.fstat(ballast.descriptor).st_dev == self._mounted[path]
        if not there or not mounts.mounted(str(path)):
            raise FaultError("its small file system is there no longer", where=str(path))

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Ask the file system, and write something ourselves, which must get ENOSPC."""
        if self._injected is not None:
            return await self._injected.witness(ctx, receipt)
        paths = receipt.data["folders"]
        deadline = ctx.clock.now().mono_ns + _WITNESS_LIMIT_NS
        while not (full := all(mounts.refused(one) for one in paths)) and ctx.clock.now().mono_ns < deadline:
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _KEEP_NS)
        evidence = {one: {"free_bytes": mounts.free_bytes(one), "own_write_refused": full} for one in paths}
        return Witness(bit=full, evidence=evidence)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Give the room back; idempotent. The file system itself stays until the target has ended."""
        if self._injected is not None:
            await self._injected.revert(ctx, receipt)
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
            self._keeping = None
        self._empty()

    async def _keep(self, ctx: FaultContext) -> None:
        """Take at once what the target frees: on a full disk others are as hungry."""
        while True:
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _KEEP_NS)
            with contextlib.suppress(OSError):
                self._freed += sum(one.fill() for one in self._ballast)

    def _empty(self) -> None:
        while self._ballast:
            self._ballast.pop().close()


def _undo(ballast: mounts.Ballast) -> Undo:
    own = refs.reference(os.getpid())
    assert own is not None, "this process runs"
    arguments: dict[str, Any] = {
        "pid": own.pid,
        "start_ticks": own.start_ticks,
        "descriptor": ballast.descriptor,
        "inode": ballast.inode,
        "folder": ballast.folder,
    }
    return Undo(id=f"ballast:{ballast.folder}", action="ballast", arguments=arguments)


def _same_size(path: Path, size: int) -> None:
    """Raise FaultError when the file system there is another than is wanted: its size is fixed."""
    room = os.statvfs(path)
    if abs(room.f_blocks * room.f_frsize - size) > room.f_frsize:
        there = f"{room.f_blocks * room.f_frsize / (1 << 20):g} MB"
        raise FaultError(
            f"has a small file system already, of {there}", where=str(path), hint="one `size_mb`"
        )


def _no_mounts(target: Manifest) -> str | None:
    if "files" not in target.isolation:
        return f'no mounts of its own: {target.name} does not say isolation = ["files"]'
    return namespaces.unavailable(namespaces.FILES)


def _wrong(parameters: dict[str, Any]) -> str | None:
    wanted, size = parameters.get("mechanism"), parameters.get("size_mb", _SIZE_MB)
    if wanted not in (None, *_MECHANISMS):
        return f"unknown mechanism {wanted!r}: one of {', '.join(_MECHANISMS)}"
    unknown = parameters.keys() - {"mechanism", "size_mb", "path"}
    if unknown:
        return f"{_NAME} has no parameter `{min(unknown)}`; known: mechanism, path, size_mb"
    return None if isinstance(size, int | float) and size > 0 else f"`size_mb` is {size!r}"


def _as_calls(step: FaultStep) -> FaultStep:
    """Make it a step for injected errors: they go by folder, and whoever comes after is meant too."""
    kept = {key: value for key, value in step.parameters.items() if key == "path"}
    return msgspec.structs.replace(step, parameters={**kept, "mechanism": "launch"})
