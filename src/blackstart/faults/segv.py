"""Segmentation fault: the process dereferences null, and its core dump is kept (R26)."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.errors import FaultError
from blackstart.faults import death, limits, mechanisms
from blackstart.host import cores, ptrace
from blackstart.host.finishing import finished
from blackstart.model.fault import Receipt, Witness

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.contracts import FaultContext
    from blackstart.model.fault import ProcessRef, Undo
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_END_LIMIT_S = 60.0
_DUMP_LIMIT_S = 2.0
_NO_LIMIT = "the process's hard limit on core dumps (RLIMIT_CORE) is 0, and we may not raise it"


class Segv:
    """A jump to address 0, put into the running process by ptrace; where that is forbidden, SIGSEGV is sent.

    `mechanism` chooses: `null` or `signal`. T0 is the moment the process was let go; its death is noticed
    only when the core dump is written.
    """

    name = "segv"

    def __init__(self) -> None:
        self._strike = death.Strike()
        self._places: dict[str, cores.Place] = {}
        self._collected: set[str] = set()

    def mechanisms(self, target: Manifest) -> dict[str, str | None]:
        """See `contracts.HasMechanisms`."""
        del target
        return {"null": ptrace.unavailable(), "signal": None}

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if (reason := mechanisms.problem(step, self.mechanisms(target))) is not None:
            return reason
        return death.no_processes(target, step.components)

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """See `death.Strike`."""
        await self._strike.aim(ctx, step)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Allow core dumps, then crash the step's components."""
        bed = await self._strike.aim(ctx, step)
        undos = await self._protect(ctx, bed)
        for name, process in bed.processes.items():
            try:
                self._places[name] = place = cores.place(process.pid)
                if not cores.allow(process.pid) and place.folder is not None:
                    self._places[name] = cores.Place(None, reason=_NO_LIMIT)
            except (OSError, ValueError) as error:
                self._places[name] = cores.Place(None, reason=f"cannot be allowed: {error}")
        mechanism, when = await self._crash(ctx, step.parameters.get("mechanism"), bed)
        receipt = self._strike.receipt(self.name, mechanism, "the process was let go at address 0", when)
        return msgspec.structs.replace(receipt, undo=undos)

    async def _protect(self, ctx: FaultContext, bed: death.Deathbed) -> tuple[Undo, ...]:
        """See that who survives gets its limit on core dumps back."""
        undos = []
        for name, process in bed.processes.items():
            with contextlib.suppress(OSError):  # neither can it be raised then
                undos.append(limits.undo(name, process, resource.RLIMIT_CORE))
        await ctx.protect(undos)
        return tuple(undos)

    async def _crash(
        self, ctx: FaultContext, wanted: str | None, bed: death.Deathbed
    ) -> tuple[str, tuple[int, int]]:
        why = "asked for" if wanted == "signal" else ptrace.unavailable()
        if why is None:
            try:
                folder = ctx.folder / "fault"
                return "null dereference by ptrace", await asyncio.to_thread(self._jump, bed, folder)
            except FaultError as error:
                if wanted == "null" or any(name in bed.noticed for name in bed.processes):
                    raise
                why = error.what
        return f"SIGSEGV by pidfd_send_signal ({why})", await bed.strike(signal.SIGSEGV)

    def _jump(self, bed: death.Deathbed, folder: Path) -> tuple[int, int]:
        """Crash each in a folder of ours, if its dump follows it: it may not be able to write to its own."""
        jumps = []
        for name, process in bed.processes.items():
            place, own = self._places[name], folder / f"dump.{name}"
            if place.follows:
                own.mkdir(parents=True, exist_ok=True)
            jumps.append(ptrace.jump_to_null(process.pid, str(own.resolve()) if place.follows else ""))
            if jumps[-1].moved:
                self._places[name] = place._replace(folder=own)
        return jumps[0].before_mono_ns, jumps[-1].after_mono_ns

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Prove the deaths, and by its core dump, that of that very pid, that each died by SIGSEGV.

        Where no dump can be had here, the death that followed is the witness, and the evidence says why.
        """
        deaths = await self._strike.witness(receipt, limit_s=_END_LIMIT_S)
        evidence: dict[str, Any] = {}
        doubts = []
        for name, process in receipt.processes.items():
            core = await self._collect(ctx, name, process)
            status = await death.ended_with(ctx, name, process) if deaths.bit else None
            evidence[name] = {**deaths.evidence[name], "status": status, "core": core}
            if (doubt := _doubt(core, status, expected=self._places[name].folder is not None)) is not None:
                doubts.append(f"{name}: {doubt}")
        if not deaths.bit or not doubts:
            return Witness(bit=deaths.bit, evidence=evidence)
        return Witness(bit=None, evidence={**evidence, "why": "; ".join(doubts)})

    async def operate(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Start again what only Blackstart starts, once the dump is written."""
        if death.restarts(ctx, receipt.processes):
            await self._strike.gone(_END_LIMIT_S, "the segmentation fault")
            await self._strike.start_again(ctx, receipt.processes)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Fetch the dumps that no witness came to fetch, and let the handles go."""
        left = {name: one for name, one in receipt.processes.items() if name not in self._collected}
        if left and await self._strike.bed.gone(_DUMP_LIMIT_S):
            for name, process in left.items():
                await self._collect(ctx, name, process)
        self._strike.close()

    async def _collect(self, ctx: FaultContext, name: str, process: ProcessRef) -> dict[str, Any]:
        """Move its dump into the trial's folder, whoever waits for it."""
        kept = ctx.folder / "fault" / f"core.{name}.{process.pid}"
        self._collected.add(name)
        return await finished(asyncio.to_thread(cores.collect, self._places[name], process.pid, kept))


def _doubt(core: dict[str, Any], status: int | None, *, expected: bool) -> str | None:
    """Say why a death may have been no segmentation fault; None when it was one, for all that can be seen."""
    if core["collected"]:
        number = core["signal"]
        return None if number == signal.SIGSEGV else f"its core dump says that it died of signal {number}"
    if expected:
        return str(core["why"])
    core["instead"] = "no core dump can be had here: the death that followed is the witness"
    return None if status in (None, -signal.SIGSEGV) else f"it ended with status {status}, not by SIGSEGV"
