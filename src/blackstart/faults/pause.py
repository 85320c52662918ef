"""Pause: processes stand still until their time is over (R77), or by turns, which makes them slow.

What lets them run on is in the guardian's hands before they stand still.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.errors import TargetError
from blackstart.faults import alone, death, mechanisms
from blackstart.faults.company import Company
from blackstart.host import cgroups, duty, procs
from blackstart.model.fault import ProcessRef, Receipt, Undo, Witness

if TYPE_CHECKING:
    from collections.abc import Callable

    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_WITNESS_LIMIT_NS = 1_000_000_000
_TURNS = 3
_PERIOD_MS = 100.0


class Pause:
    """SIGSTOP, or with `mechanism = "freezer"` a frozen control group, of which the parent is told nothing.

    `duty` is the share of the time that they run, in turns of `period_ms` (100). The witness is the kernel:
    the state `T` of each process, or the group's own word that it is frozen.
    """

    name = "pause"
    exclusive = True

    def __init__(self) -> None:
        self._strike = death.Strike(remote=True)
        self._company = Company()

    def mechanisms(self, target: Manifest) -> dict[str, str | None]:
        """See `contracts.HasMechanisms`."""
        del target
        return {"SIGSTOP": None, "freezer": cgroups.unavailable("freezer")}

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        duty_share = step.parameters.get("duty")
        if duty_share is not None and not 0 < float(duty_share) < 1:
            return "`duty` is the share of the time that the process runs: between 0 and 1"
        if duty_share is not None and step.parameters.get("mechanism") == "freezer":
            return "`duty` goes with SIGSTOP"
        if (reason := mechanisms.problem(step, self.mechanisms(target))) is not None:
            return reason
        return death.no_processes(target, step.components)

    def unreachable(self, step: FaultStep) -> str | None:
        """See `contracts.ReachesHosts`: only SIGSTOP itself is sent there."""
        if step.parameters.get("mechanism") == "freezer" or "duty" in step.parameters:
            return "the freezer, and turns, are for components of this host"
        return None

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """See `death.Strike`."""
        await self._strike.aim(ctx, step)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Stop them; the undo is in the guardian's hands first."""
        bed = await self._strike.aim(ctx, step)
        if step.parameters.get("mechanism") != "freezer":
            alone.refuse_stopped(bed.processes)
        if "duty" in step.parameters:
            return await self._slow(ctx, step, bed)
        if step.parameters.get("mechanism") == "freezer":
            return await self._freeze(ctx, bed)
        undos = _continues(bed)
        await ctx.protect(undos)
        when = await bed.strike(signal.SIGSTOP)
        receipt = self._strike.receipt(self.name, "SIGSTOP by pidfd_send_signal", "the stop call", when)
        return msgspec.structs.replace(receipt, undo=undos)

    async def _slow(self, ctx: FaultContext, step: FaultStep, bed: death.Deathbed) -> Receipt:
        """Have a helper stop and continue them by turns."""
        period_ms = float(step.parameters.get("period_ms", _PERIOD_MS))
        run_ms = period_ms * float(step.parameters["duty"])
        names = [f"{one.pid}:{one.start_ticks}" for one in bed.processes.values()]
        helper = self._company.helper(duty, run_ms, period_ms - run_ms, *names)
        self._company.others += _continues(bed)
        await self._company.assemble(ctx)
        before = ctx.clock.now().mono_ns
        helper.go()
        when = before, ctx.clock.now().mono_ns
        mechanism = f"SIGSTOP and SIGCONT by turns: runs {run_ms:g} of every {period_ms:g} ms"
        receipt = self._strike.receipt(self.name, mechanism, "the first stop", when, period_ms=period_ms)
        return msgspec.structs.replace(receipt, undo=tuple(self._company.undos))

    async def _freeze(self, ctx: FaultContext, bed: death.Deathbed) -> Receipt:
        """Move each into a group of its own, and freeze these."""
        where = cgroups.hierarchy("freezer")
        assert where is not None, "asked before: `unavailable`"
        folders = [self._company.group(where, name, one) for name, one in bed.processes.items()]
        await self._company.assemble(ctx)
        before = ctx.clock.now().mono_ns
        for folder in folders:
            cgroups.freeze(folder, frozen=True)
        when = before, ctx.clock.now().mono_ns
        mechanism = f"cgroup v{where.version} freezer"
        receipt = self._strike.receipt(self.name, mechanism, "the freezing of the group", when)
        return msgspec.structs.replace(receipt, undo=tuple(self._company.undos))

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Ask the kernel."""
        if self._company.helpers:
            return await self._by_turns(ctx, receipt)
        groups = self._company.groups
        if groups:
            return await _settled(
                ctx, lambda: {name: cgroups.is_frozen(one) for name, one in groups.items()}, "frozen", True
            )
        return await self._stand(ctx, receipt)

    async def _stand(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """See all of them stand, wherever they are."""
        deadline = ctx.clock.now().mono_ns + _WITNESS_LIMIT_NS
        while True:
            there = {name: await hold.state() for name, hold in self._strike.bed.holds.items()}
            states = {**_states(receipt), **there}
            stand = all(one == "T" for one in states.values())
            if stand or ctx.clock.now().mono_ns > deadline:
                return Witness(bit=stand, evidence={"states": states})
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + 1_000_000)

    async def _by_turns(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """See each of them stand and run."""
        period_ns = int(receipt.data["period_ms"] * 1e6)
        deadline = ctx.clock.now().mono_ns + max(_TURNS * period_ns, _WITNESS_LIMIT_NS)
        seen: dict[str, set[str]] = {name: set() for name in receipt.processes}
        while ctx.clock.now().mono_ns < deadline and not all(map(_both, seen.values())):
            for name, state in _states(receipt).items():
                seen[name].add(state)
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + period_ns // 20)
        evidence = {"states_seen": {name: sorted(states) for name, states in seen.items()}}
        return Witness(bit=all(map(_both, seen.values())), evidence=evidence)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Let them run on; harmless when they run already or are gone."""
        del ctx
        await self._company.dismiss()
        for one in receipt.processes.values():
            found = procs.stat(one.pid)
            if found is not None and found.start_ticks == one.start_ticks:
                procs.send(found, signal.SIGCONT)
        for hold in self._strike.bed.holds.values():
            with contextlib.suppress(TargetError):  # then its helper does it, and the guardian looks
                await hold.signal(signal.SIGCONT)
        self._strike.close()


def _continues(bed: death.Deathbed) -> tuple[Undo, ...]:
    here = (
        Undo(id=f"pause:{name}:{one.pid}", action="continue", arguments=msgspec.to_builtins(one))
        for name, one in bed.processes.items()
    )
    return (*here, *(hold.undo() for hold in bed.holds.values()))


async def _settled(
    ctx: FaultContext, look: Callable[[], dict[str, Any]], what: str, wanted: object
) -> Witness:
    """Look until all are as wanted, for a second."""
    deadline = ctx.clock.now().mono_ns + _WITNESS_LIMIT_NS
    found = look()
    while any(one != wanted for one in found.values()) and ctx.clock.now().mono_ns < deadline:
        await ctx.clock.sleep_until(ctx.clock.now().mono_ns + 1_000_000)
        found = look()
    return Witness(bit=all(one == wanted for one in found.values()), evidence={what: found})


def _both(states: set[str]) -> bool:
    return "T" in states and bool(states & {"R", "S", "D"})


def _states(receipt: Receipt) -> dict[str, str]:
    return {name: _state(one) for name, one in receipt.processes.items()}


def _state(process: ProcessRef) -> str:
    found = procs.stat(process.pid)
    return found.state if found is not None and found.start_ticks == process.start_ticks else "gone"
