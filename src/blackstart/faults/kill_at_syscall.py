"""Kill at the n-th call of a system call on a path: a crash point in the midst of the target's code."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.contracts import Operates
from blackstart.errors import FaultError
from blackstart.faults import death, mechanisms
from blackstart.faults.disk import calls
from blackstart.host import seccomp, strace, syscalls
from blackstart.model.fault import LaunchChange, Receipt, Undo, Witness

if TYPE_CHECKING:
    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_CALL_LIMIT_S = 30.0
_ATTACH_LIMIT_NS = 5_000_000_000
_LOOK_NS = 2_000_000


class KillAtSyscall:
    """SIGKILL to the component before its `n`-th `call` (1) on `path` is done, counted from the injection.

    `call`: a system call, a list, or a family (`writes syncs renames opens unlinks sizes`). `path`: a file,
    or with `/` at its end all that is below; with `{run}` and the like; or the place of the manifest's [data]
    that `data` names. It has to come within `limit_s` (30); `operation` asks the target for what makes it.
    `mechanism`: `attach` puts the filter into the running process, `launch` before the target starts;
    `strace` needs no filter, and traps one component on one file.
    """

    name = "kill_at_syscall"

    def __init__(self) -> None:
        self._strike = death.Strike()
        self._supervisor: seccomp.Supervisor | None = None
        self._rule: seccomp.Rule | None = None
        self._killer: strace.Killer | None = None

    def mechanisms(self, target: Manifest) -> dict[str, str | None]:
        """See `contracts.HasMechanisms`."""
        del target
        return {
            "attach": seccomp.unavailable(attach=True),
            "launch": seccomp.unavailable(attach=False),
            "strace": strace.unavailable(),
        }

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if (problem := _wrong(step.parameters)) is not None:
            return problem
        reason = mechanisms.problem(step, self.mechanisms(target))
        return reason if reason is not None else death.no_processes(target, step.components)

    def _way(self, ctx: FaultContext, step: FaultStep) -> str:
        return mechanisms.best(step, self.mechanisms(ctx.target.manifest))[0]

    async def prepare(self, ctx: FaultContext, step: FaultStep) -> LaunchChange:
        """Put the filter in front of the target's processes where it cannot be put into a running one."""
        way = self._way(ctx, step)
        if way == "strace":
            return LaunchChange()
        return await calls.prepare(ctx, _calls(step.parameters), at_launch=way == "launch")

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Put the filter into the running processes; without a rule all their calls pass."""
        bed = await self._strike.aim(ctx, step)
        if self._way(ctx, step) == "strace":
            return
        self._supervisor = await seccomp.supervisor(ctx.folder)
        if self._way(ctx, step) == "attach":
            await calls.attach(ctx, self._supervisor, bed.processes.values(), _calls(step.parameters))

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Lay the trap, and wait until it snaps. Raises FaultError when the call does not come."""
        await self.aim(ctx, step)
        try:
            return await self._snapped(ctx, step)
        except BaseException:
            with contextlib.suppress(TimeoutError):  # the guardian asks the supervisor, too
                await self._take_out()
            raise

    async def _snapped(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        bed, supervisor = self._strike.bed, self._supervisor
        rule = _rule(ctx, step, bed)
        if supervisor is None:
            return await self._by_strace(ctx, step, rule)
        undo = Undo(id=rule.id, action="seccomp", arguments=supervisor.undo(rule.id))
        await ctx.protect([undo])
        self._rule = rule
        await supervisor.put(rule)
        await self._ask_for(ctx, step)
        limit_s = float(step.parameters.get("limit_s", _CALL_LIMIT_S))
        counters = await supervisor.acted(rule.id, limit_s)
        if counters is None or not counters.samples:
            seen = await supervisor.drop(rule.id)
            what = f"only {seen.seen if seen else 0} of {rule.first} calls came within {limit_s:g} s"
            raise FaultError(what, where=", ".join(bed.processes), hint=_hint(rule, bed))
        call = counters.samples[0]
        mechanism = f"SIGKILL at call {rule.first} of {call['call']} by seccomp user notification"
        when = call["before_mono_ns"], call["after_mono_ns"]
        receipt = self._strike.receipt(self.name, mechanism, "the kill call, before the call was done", when)
        data = {"call": call, "seen": counters.seen}
        return msgspec.structs.replace(receipt, undo=(undo,), data=data)

    async def _by_strace(self, ctx: FaultContext, step: FaultStep, rule: seccomp.Rule) -> Receipt:
        """Let strace lie in wait. The kill lies between its stamp of the call and the notice of the death."""
        bed = self._strike.bed
        if len(bed.processes) != 1 or rule.path.endswith("/") or rule.first > strace.MOST:
            what = f"strace traps one component on one file, not a folder, at most {strace.MOST} calls away"
            raise FaultError(what, where=", ".join(bed.processes))
        (name, process), log = *bed.processes.items(), ctx.folder / "fault" / "strace.log"
        self._killer = killer = strace.Killer(process.pid, rule.calls, rule.path, rule.first, log)
        await ctx.protect([killer.undo])
        killer.go()
        deadline = ctx.clock.now().mono_ns + _ATTACH_LIMIT_NS
        while not killer.attached and name not in bed.noticed:
            if ctx.clock.now().mono_ns > deadline or not killer.running:
                await asyncio.to_thread(killer.end)
                raise FaultError("strace cannot attach", where=name, hint="kernel.yama.ptrace_scope?")
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _LOOK_NS)
        await self._ask_for(ctx, step)
        limit_s = float(step.parameters.get("limit_s", _CALL_LIMIT_S))
        if not await bed.gone(limit_s):
            await asyncio.to_thread(killer.end)
            raise FaultError(f"the call did not come within {limit_s:g} s", where=name, hint=_hint(rule, bed))
        await asyncio.to_thread(killer.finish, 2.0)  # its log is whole only then
        call, now = killer.last(), ctx.clock.now()
        entered = now.mono_ns - (now.wall_ns - round(call["wall_s"] * 1e9)) if call else 0
        when = entered, bed.noticed[name]
        mechanism = f"SIGKILL at call {rule.first} by strace"
        receipt = self._strike.receipt(self.name, mechanism, "the notice of the death", when, call=call)
        return msgspec.structs.replace(receipt, undo=(killer.undo,))

    async def _ask_for(self, ctx: FaultContext, step: FaultStep) -> None:
        """Ask the target for what makes the call, where the scenario says so."""
        if "operation" in step.parameters and isinstance(ctx.target, Operates):
            await ctx.target.operation(str(step.parameters["operation"]))

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Prove the death; the kernel's notification of that very call is in the evidence."""
        del ctx
        deaths = await self._strike.witness(receipt)
        return Witness(bit=deaths.bit, evidence={**deaths.evidence, **receipt.data})

    async def operate(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Start again at once what only Blackstart starts."""
        if death.restarts(ctx, receipt.processes):
            await self._strike.gone(10.0, "SIGKILL")
            await self._strike.start_again(ctx, receipt.processes)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Take the rule out; idempotent."""
        del ctx, receipt
        await self._take_out()

    async def _take_out(self) -> None:
        if self._supervisor is not None and self._rule is not None:
            with contextlib.suppress(FaultError):  # the supervisor is gone, and its rules with it
                await self._supervisor.drop(self._rule.id)
            self._rule = None
        if self._killer is not None:
            await asyncio.to_thread(self._killer.end)
        self._strike.close()


def _wrong(parameters: dict[str, Any]) -> str | None:
    if not parameters.get("call"):
        return f"which `call`? A system call, or one of {', '.join(syscalls.FAMILIES)}"
    if "data" in parameters and "path" in parameters:
        return "give `path` or `data`, not both"
    unknown = _calls(parameters) - syscalls.CALLS.keys()
    if unknown:
        return (
            f"unknown system call: {', '.join(sorted(unknown))}; known: {', '.join(sorted(syscalls.CALLS))}"
        )
    return "`n` is at least 1" if int(parameters.get("n", 1)) < 1 else None


def _calls(parameters: dict[str, Any]) -> frozenset[str]:
    return syscalls.named(parameters["call"])


def _rule(ctx: FaultContext, step: FaultStep, bed: death.Deathbed) -> seccomp.Rule:
    path = str(step.parameters.get("path", "")) or _place(ctx.target.manifest, step)
    expand = getattr(ctx.target, "expand", None)
    pids = tuple(one.pid for one in bed.processes.values())
    return seccomp.Rule(
        id=f"kill_at_syscall:{','.join(map(str, pids))}",
        calls=_calls(step.parameters),
        path=expand(path, where="path of kill_at_syscall") if expand and path else path,
        pids=pids,
        first=int(step.parameters.get("n", 1)),
        last=int(step.parameters.get("n", 1)),
        action="kill",
    )


def _place(manifest: Manifest, step: FaultStep) -> str:
    """Return the folder below which the named data lie: their glob up to its first wildcard."""
    data = manifest.data.get(str(step.parameters.get("data", "")))
    if data is None or data.files is None:
        return ""
    return re.split(r"[*?\[]", data.files, maxsplit=1)[0].rpartition("/")[0] + "/"


def _hint(rule: seccomp.Rule, bed: death.Deathbed) -> str:
    """Say what system calls cannot show, if that may be why none came."""
    spots = {spot for one in bed.processes.values() for spot in seccomp.blind_spots(one.pid)}
    hint = f"is {rule.path or 'any file'} touched by {', '.join(sorted(rule.calls))}?"
    return f"{hint} System calls do not show: {'; '.join(sorted(spots))}" if spots else hint
