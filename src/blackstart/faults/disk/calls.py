"""Any fault of a component's system calls on its files: they fail, lie or come late (`host.seccomp`)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import TYPE_CHECKING, Any, NamedTuple

from blackstart.contracts import Prepared
from blackstart.errors import FaultError
from blackstart.faults import death
from blackstart.faults.disk import folders
from blackstart.host import seccomp, syscalls
from blackstart.model.fault import LaunchChange, Receipt, Undo, Witness

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from blackstart.contracts import FaultContext
    from blackstart.model.fault import ProcessRef
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_CALL_LIMIT_S = 10.0
_MECHANISMS = ("attach", "launch")
_COMMON = ("call", "path", "first", "last", "limit_s", "mechanism")


class Kind(NamedTuple):
    """What happens to which calls. `delay_ms` and `error` are defaults that a step may change; None: not."""

    name: str
    says: str
    done: str
    calls: tuple[str, ...]
    action: str
    error: str | None = None
    delay_ms: float | None = None


class CallFault:
    """A fault of system calls on files; what becomes of them is its kind."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.name = kind.name
        self.says = kind.says
        self._supervisor: seccomp.Supervisor | None = None
        self._processes: dict[str, ProcessRef] = {}
        self._rules: list[seccomp.Rule] = []
        self._last: dict[str, seccomp.Counters] = {}

    def mechanisms(self, target: Manifest) -> dict[str, str | None]:
        """See `contracts.HasMechanisms`."""
        del target
        return {one: seccomp.unavailable(attach=one == "attach") for one in _MECHANISMS}

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if (problem := _wrong(self.kind, step.parameters)) is not None:
            return problem
        if (reason := seccomp.unavailable(attach=not _at_launch(step))) is not None:
            return reason
        return death.no_processes(target, step.components) or folders.unnamed(target, step)

    async def prepare(self, ctx: FaultContext, step: FaultStep) -> LaunchChange:
        """Put the filter in front of the target's processes, where those that come later are meant too."""
        return await prepare(ctx, self._calls(step), at_launch=_at_launch(step))

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Put the filter into the running processes; without a rule all their calls pass."""
        self._processes = await death.find(ctx, step)
        self._supervisor = await seccomp.supervisor(ctx.folder)
        if not _at_launch(step):
            await attach(ctx, self._supervisor, self._processes.values(), self._calls(step))

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Put the rules in; t0 is the first call that is hit. Raises FaultError when none comes."""
        await self.aim(ctx, step)
        assert self._supervisor is not None
        pids = [one.pid for one in self._processes.values()]
        where = folders.used(pids, folders.state(ctx, step))
        rules = self._written(step, where, () if _at_launch(step) else tuple(pids))
        ids = [one.id for one in rules]
        undo = Undo(id=ids[0], action="seccomp", arguments=self._supervisor.undo(*ids))
        await ctx.protect([undo])
        self._rules = rules
        before = ctx.clock.now().mono_ns
        try:
            for one in rules:
                await self._supervisor.put(one)
            first = await self._first(float(step.parameters.get("limit_s", _CALL_LIMIT_S)))
        except BaseException:
            with contextlib.suppress(FaultError, TimeoutError):  # the guardian asks the supervisor, too
                await self._drop()
            raise
        if first is None:
            await self._drop()
            hint = "; ".join(sorted({spot for pid in pids for spot in seccomp.blind_spots(pid)}))
            what = f"no such call came: {', '.join(sorted(rules[0].calls))}"
            raise FaultError(
                what, where=", ".join(map(str, where)), hint=hint and f"system calls do not show: {hint}"
            )
        return Receipt(
            fault=self.name,
            mechanism=f"seccomp user notification, {'from the start' if _at_launch(step) else 'by ptrace'}",
            t0_mono_ns=first,
            t0_source=f"the first call that was {self.kind.done}",
            uncertainty_ns=max(0, min(1_000_000, first - before)),
            processes=self._processes,
            undo=(undo,),
            data={"folders": [str(one) for one in where], "calls": sorted(rules[0].calls)},
        )

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Count the calls that were hit: told by the process that answers the kernel's notifications."""
        del ctx
        if self._supervisor is not None:
            for one in self._rules:
                self._last[one.id] = await self._supervisor.counters(one.id) or self._last[one.id]
        counters = list(self._last.values())
        hit = sum(one.acted for one in counters)
        samples = sorted((one for each in counters for one in each.samples), key=lambda one: one["mono_ns"])
        evidence = {"calls_seen": sum(one.seen for one in counters), f"calls_{self.kind.done}": hit}
        return Witness(bit=hit > 0, evidence={**evidence, **receipt.data, "first": samples[:4]})

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Take the rules out; idempotent."""
        del ctx, receipt
        await self._drop()

    def _calls(self, step: FaultStep) -> frozenset[str]:
        return syscalls.named(step.parameters.get("call", self.kind.calls))

    def _written(self, step: FaultStep, where: Sequence[Path], pids: tuple[int, ...]) -> list[seccomp.Rule]:
        given = step.parameters
        error = str(given.get("error", self.kind.error)) if self.kind.error else None
        last = given.get("last")
        return [
            seccomp.Rule(
                id=f"{self.name}:{','.join(map(str, pids))}:{number}:{id(self):x}",
                calls=self._calls(step),
                path=f"{one.resolve()}/" if one.is_dir() else str(one),
                pids=pids,
                first=int(given.get("first", 1)),
                last=None if last is None else int(last),
                action=self.kind.action,
                errno=getattr(errno, error) if error else 0,
                delay_ms=0.0
                if self.kind.delay_ms is None
                else float(given.get("delay_ms", self.kind.delay_ms)),
            )
            for number, one in enumerate(where)
        ]

    async def _first(self, limit_s: float) -> int | None:
        """Wait for the first call that a rule acts on; returns when that was."""
        assert self._supervisor is not None
        waiting = [asyncio.ensure_future(self._supervisor.acted(one.id, limit_s)) for one in self._rules]
        try:
            for each in asyncio.as_completed(waiting):
                if (counters := await each) is not None and counters.first_mono_ns is not None:
                    return counters.first_mono_ns
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return None

    async def _drop(self) -> None:
        if self._supervisor is None:
            return
        rules, self._rules = self._rules, []
        for one in rules:
            seen = await self._supervisor.drop(one.id)
            if seen is not None:
                self._last[one.id] = seen


async def prepare(ctx: FaultContext, calls: Iterable[str], *, at_launch: bool) -> LaunchChange:
    """Tell the supervisor which calls will be needed, and put it in front of the start where that is the way.

    Harmless when done again, also while the target runs. Raises FaultError.
    """
    if at_launch and not isinstance(ctx.target, Prepared):
        raise FaultError("its start cannot be changed", where=ctx.target.name)
    supervisor = await seccomp.supervisor(ctx.folder)
    if at_launch:
        return LaunchChange(prefix=await supervisor.prefix(calls))
    await supervisor.expect(calls)
    return LaunchChange()


async def attach(
    ctx: FaultContext, supervisor: seccomp.Supervisor, processes: Iterable[ProcessRef], calls: frozenset[str]
) -> None:
    """Put the filter into running processes. One that is in, and that nobody answers, is owed an end."""
    for one in processes:
        try:
            await supervisor.attach(one.pid, calls)
        except seccomp.UnansweredError:
            undo = Undo(id=f"seccomp:{one.pid}", action="seccomp", arguments=supervisor.undo())
            await ctx.protect([undo])
            raise


def _wrong(kind: Kind, parameters: Mapping[str, Any]) -> str | None:
    """Say what is wrong with the parameters, or None."""
    known = (*_COMMON, *(["error"] if kind.error else []), *(["delay_ms"] if kind.delay_ms else []))
    unknown = [name for name in parameters if name not in known]
    if unknown:
        return f"{kind.name} has no parameter `{unknown[0]}`; known: {', '.join(known)}"
    wanted = parameters.get("mechanism")
    if wanted not in (None, *_MECHANISMS):
        return f"unknown mechanism {wanted!r}: one of {', '.join(_MECHANISMS)}"
    calls = syscalls.named(parameters.get("call", kind.calls)) - syscalls.CALLS.keys()
    if calls:
        return f"unknown system call: {', '.join(sorted(calls))}; known: {', '.join(sorted(syscalls.CALLS))}"
    error = parameters.get("error", kind.error)
    if error is not None and not isinstance(getattr(errno, str(error), None), int):
        return f"unknown error {error!r}: a name like EIO, ENOSPC, EDQUOT"
    first, last = int(parameters.get("first", 1)), parameters.get("last")
    if first < 1 or (last is not None and int(last) < first):
        return f"no such calls: from {first} to {last}"
    return None


def _at_launch(step: FaultStep) -> bool:
    """Say whether the filter has to be there from the start."""
    wanted = step.parameters.get("mechanism")
    return wanted == "launch" or (wanted is None and seccomp.unavailable(attach=True) is not None)
