"""Plays every part of a fault's life on its example's target, and tells what came of it: run by `plays`.

`stage.py KIND FOLDER`, in namespaces of its own. One JSON document on standard output, a value for each part.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import msgspec
import sabotage
from looking import Looker

from blackstart.check.analyse import analyse
from blackstart.cli import doctor
from blackstart.contracts import Aimed, Operated, Prepares
from blackstart.engine import before, guard, journal, locks, single, verbs
from blackstart.engine.breakage import Breakage
from blackstart.engine.clocks import SystemClock
from blackstart.engine.conductor import Kit, build_rig, header
from blackstart.engine.recorder import Recorder
from blackstart.engine.trial import RunningTrial, Stop
from blackstart.engine.worker_runner import isolate
from blackstart.errors import BlackstartError
from blackstart.faults import registry
from blackstart.history.writer import HistoryWriter
from blackstart.scenario.plan import plan
from blackstart.target import manifest as manifests
from blackstart.testing.examples import EXAMPLES, trial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from blackstart.model.fault import Receipt, Undo
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep, Plan

PARTS = ("revert", "guardian", "sabotage", "overlap", "at_once", "down")
DOWN = {"line": "mirror", "quotes": "mirror"}
NOWHERE = "nowhere"
operators: set[asyncio.Future[None]] = set()


class Noting(RunningTrial):
    """The trial, which notes what was protected, and when the disk and the guardian had it."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.noted: list[tuple[int, Undo]] = []

    async def protect(self, undos: Iterable[Undo]) -> None:
        """Protect, and see that the undos are on the disk by now."""
        undos = list(undos)
        await super().protect(undos)
        on_disk = {entry["id"] for entry in journal.read(str(self.folder), journal.OWED)}
        now = self.now_ns()
        self.noted += [(now, one) for one in undos if one.id in on_disk]


class Life:
    """One fault on its way, as the engine leads it."""

    def __init__(self, ctx: Noting, step: FaultStep) -> None:
        self.ctx, self.step = ctx, step
        self.fault: Any = registry.make(step.kind)
        self.receipt: Receipt | None = None
        self._operating: asyncio.Future[None] | None = None
        self._others = asyncio.all_tasks()
        self.undos: list[Undo] = []

    async def prepare(self) -> None:
        """See `contracts.Prepares`."""
        if isinstance(self.fault, Prepares):
            self.ctx.target.change_launch(await self.fault.prepare(self.ctx, self.step))  # type: ignore[attr-defined]

    async def inject(self) -> Receipt:
        """Aim and inject; what was protected meanwhile is this fault's."""
        self._others = asyncio.all_tasks()
        already = len(self.ctx.noted)
        try:
            if isinstance(self.fault, Aimed):
                await self.fault.aim(self.ctx, self.step)
            self.receipt = await self.fault.inject(self.ctx, self.step)
        finally:
            noted = [undo for _, undo in self.ctx.noted[already:]]
            self.undos = list({one.id: one for one in noted}.values())  # its limit may be said later
        if isinstance(self.fault, Operated):
            self._operating = asyncio.ensure_future(self.fault.operate(self.ctx, self.receipt))
            operators.add(self._operating)
        return self.receipt

    async def witness(self) -> tuple[bool | None, Any]:
        """Hear the witness."""
        assert self.receipt is not None
        found = await self.fault.witness(self.ctx, self.receipt)
        return found.bit, found.evidence

    async def operated(self) -> None:
        """Wait until the operator has done his part, or could not."""
        if self._operating is not None:
            with contextlib.suppress(BlackstartError):
                await self._operating

    def dismiss(self) -> None:
        """Let the operator wait no longer for what does not come."""
        if self._operating is not None:
            self._operating.cancel()

    async def revert(self) -> None:
        """Take it back, twice."""
        if self.receipt is not None:
            await self.fault.revert(self.ctx, self.receipt)
            await self.fault.revert(self.ctx, self.receipt)

    def hang(self) -> None:
        """Let the tasks that keep a fault in place stand still, as they do when its process hangs."""
        if self.receipt is None or not self.receipt.undo:
            return
        for task in asyncio.all_tasks() - self._others - operators:
            if "/blackstart/faults/" in task.get_coro().cr_code.co_filename:  # type: ignore[union-attr]
                task.cancel()

    @property
    def owed(self) -> list[str]:
        """The undos of the deed itself: a process that was started again has a `kill` that is not meant."""
        ours = {one.id for one in (self.receipt.undo if self.receipt else ())}
        return [one.id for one in self.undos if one.id in ours or one.action != "kill"]


def applied(undos: Iterable[Undo], run: str) -> list[tuple[bool | None, dict[str, Any]]]:
    """Carry undos out ourselves, as the guardian does."""
    return [verbs.begin(one.action, one.arguments, run)() for one in undos]


class Stage:
    """One target, on which all parts are played one after the other."""

    def __init__(self, ctx: Noting, look: Looker) -> None:
        self.ctx, self.look = ctx, look
        self.step = ctx.plan.faults[0]
        self.lives = [Life(ctx, self.step) for _ in range(6)]

    async def undone(self, *lives: Life) -> dict[str, Any]:
        """Have the guardian carry the undos out, and then do the same once more ourselves."""
        ids = [one for life in lives for one in life.owed]
        outcomes = await self.ctx.guard.undo(ids) if ids else []
        newest_first = [one for life in lives for one in life.undos if one.id in ids][::-1]
        again = await asyncio.to_thread(applied, newest_first, str(self.ctx.folder))
        return {
            "undos": ids,
            "told": [one.undo_id for one in outcomes],
            "failed": [one.undo_id for one in outcomes if one.verified is not True],
            "again_failed": [evidence for verified, evidence in again if not verified],
        }

    async def revert(self) -> dict[str, Any]:
        """Inject, witness, revert twice, have the undos carried out: the way of every trial."""
        life = self.lives[0]
        receipt = await life.inject()
        began = receipt.t0_mono_ns - receipt.uncertainty_ns
        noted = {one.id: moment for moment, one in reversed(self.ctx.noted)}
        bit, evidence = await life.witness()
        await life.operated()
        await life.revert()
        return {
            "mechanism": receipt.mechanism,
            "receipt_undos": [one.id for one in receipt.undo],
            "not_before": [one.id for one in receipt.undo if not noted.get(one.id, began + 1) <= began],
            "protected": len(life.undos),
            "bit": bit,
            "evidence": evidence,
            **await self.undone(life),
        }

    async def guardian(self) -> dict[str, Any]:
        """Inject, and let the guardian alone take it back; the revert that comes late does no harm."""
        life = self.lives[1]
        receipt = await life.inject()
        bit, evidence = await life.witness()
        life.hang()
        owed = [entry["id"] for entry in journal.owed(str(self.ctx.folder))]
        found = {"not_on_record": sorted(set(life.owed) - set(owed)), "bit": bit, "evidence": evidence}
        found |= await self.undone(life)
        await life.operated()
        found["left"] = await self.look.left()
        await life.revert()
        return {**found, "undo_count": len(receipt.undo)}

    async def sabotage(self) -> dict[str, Any]:
        """Inject with the deed left out: the witness must not say that it bit."""
        life = self.lives[2]
        with sabotage.of(self.step.kind):
            try:
                await life.inject()
            except BlackstartError as error:
                return {"refused": error.render(), **await self.undone(life)}
            bit, evidence = await life.witness()
            life.dismiss()
        await life.revert()
        return {"bit": bit, "evidence": evidence, **await self.undone(life)}

    async def overlap(self) -> dict[str, Any]:
        """Twice on one resource, taken back in order, the newer first."""
        one, two = self.lives[3], self.lives[4]
        refused = await self._both(one, two)
        for life in (two, one):
            await life.operated()
            await life.revert()
        return {"refused": refused, **await self.undone(one, two)}

    async def at_once(self) -> dict[str, Any]:
        """Twice on one resource, taken back by the guardian alone, in the order of its journal."""
        one, two = Life(self.ctx, self.step), Life(self.ctx, self.step)
        if isinstance(one.fault, Prepares):
            one, two = self.lives[3], self.lives[5]
        refused = await self._both(one, two)
        for life in (one, two):
            life.hang()
        found = await self.undone(one, two)
        for life in (one, two):
            await life.operated()
        found["left"] = await self.look.left()
        for life in (one, two):
            await life.revert()
        return {"refused": refused, **found}

    async def _both(self, one: Life, two: Life) -> str:
        """Inject both as the engine does; returns why the second was refused."""
        first, second = (Breakage(self.ctx, life.fault, self.step, k) for k, life in enumerate((one, two)))
        first.receipt = await one.inject()
        try:
            second.refuse_overlap([first])
            await two.inject()
        except Stop as stop:
            return stop.text
        except BlackstartError as error:
            return error.render()
        return ""

    async def down(self) -> dict[str, Any]:
        """Inject with the component dead: a clear word, or nothing bites."""
        life, name = Life(self.ctx, self.step), self.victim
        await self.look.end(name)
        try:
            await life.inject()
            bit, evidence = await life.witness()
            found = {"bit": bit, "evidence": evidence}
        except BlackstartError as error:
            found = {"refused": error.render()}
        await life.revert()
        found |= await self.undone(life)
        await self.look.start(name)
        return {"name": name, **found}

    @property
    def victim(self) -> str:
        """The process without which there is nothing to break."""
        chosen = self.step.components or tuple(DOWN[one] for one in self.step.links) or ("exchange",)
        return chosen[0]


async def play(kind: str, folder: Path, isolation: frozenset[str]) -> dict[str, Any]:
    """Play all parts."""
    manifest = manifests.load(EXAMPLES[kind].target)
    (planned,) = plan(trial(kind), manifest, seed=7)
    found: dict[str, Any] = {"wrong": await wrong(planned, manifest, folder / "wrong", isolation)}
    found["forbidden"] = forbidden(planned, manifest)
    found["unavailable"] = registry.make(kind).unavailable(manifest, planned.faults[0])
    if found["unavailable"] is None:
        found |= await on_stage(planned, manifest, folder / "stage", isolation)
    return found


async def on_stage(plan: Plan, manifest: Manifest, folder: Path, isolation: frozenset[str]) -> dict[str, Any]:
    """Open the target, play, close it; after each part the stage must look as before."""
    folder.mkdir(parents=True)  # noqa: ASYNC240 - nothing else runs yet
    lock = locks.hold(str(folder), locks.OWNER_LOCK)
    guardian = await guard.start(folder)
    recorder = Recorder(HistoryWriter(folder), SystemClock())
    recorder(header(plan, manifest, Kit(isolation=isolation)))
    ctx = Noting(
        plan,
        manifest,
        clock=SystemClock(),
        folder=folder,
        isolation=isolation,
        recorder=recorder,
        guard=guardian,
        progress=None,
    )
    ctx.rig = build_rig(Kit(), manifest, folder, seed=7, sink=ctx.record, guard=guardian)
    look = Looker(ctx)
    stage = Stage(ctx, look)
    found: dict[str, Any] = {}
    try:
        for life in stage.lives:
            await life.prepare()
        await ctx.target.open()
        watching = asyncio.ensure_future(ctx.rig.watch(before.services(ctx), before.interest(ctx)))
        if manifest.oracle is not None:
            await before.start_load(ctx)
        await look.begin()
        for name in PARTS:
            found[name] = await part(getattr(stage, name), look)
        watching.cancel()
        await asyncio.wait([watching])
    finally:
        if ctx.rig.workload is not None:
            with contextlib.suppress(BlackstartError):  # what it lost with the exchange is not asked here
                await ctx.rig.workload.stop()
        found["after"] = [
            one.undo_id
            for one in await guard.last_undo(guardian, str(folder), by="test")
            if one.verified is False
        ]
        await ctx.target.close()
        locks.release(lock)
    return found


async def part(doing: Callable[[], Awaitable[dict[str, Any]]], look: Looker) -> dict[str, Any]:
    """Play one part; what is left of it is told, and so is a mistake."""
    try:
        async with asyncio.timeout(40):
            found = await doing()
    except Exception:  # noqa: BLE001 - the test shows it
        found = {"mistake": traceback.format_exc()}
    left = found.pop("left", {}) or await look.left()
    return {**found, "left": left}


async def wrong(plan: Plan, manifest: Manifest, folder: Path, isolation: frozenset[str]) -> dict[str, Any]:
    """Ask for what is not there: the reason, and what a whole trial makes of it."""
    step, manifest = mistaken(plan.faults[0], manifest)
    mistake = msgspec.structs.replace(plan, steps=(step,), components=step.components)
    outcome = await single.run(mistake, manifest, folder, Kit(isolation=isolation), analyse)
    reason = registry.make(step.kind).unavailable(manifest, step)
    return {"reason": reason, "verdict": outcome.verdict, "reasons": list(outcome.reasons)}


def mistaken(step: FaultStep, manifest: Manifest) -> tuple[FaultStep, Manifest]:
    """Name a component, link or data that the manifest does not have, or take its exchange away."""
    if manifest.oracle is not None:
        return step, msgspec.structs.replace(manifest, oracle=None)
    if "data" in step.parameters:
        return msgspec.structs.replace(step, parameters={**step.parameters, "data": NOWHERE}), manifest
    if step.links:
        return msgspec.structs.replace(step, links=(NOWHERE,)), manifest
    return msgspec.structs.replace(step, components=(NOWHERE,)), manifest


def forbidden(plan: Plan, manifest: Manifest) -> dict[str, Any]:
    """Ask the fault, and doctor, on a host that forbids everything that can be forbidden."""
    step = plan.faults[0]
    with contextlib.ExitStack() as stack:
        for place in sabotage.HOST:
            stack.enter_context(mock.patch(place, return_value=sabotage.WHY))
        reason = registry.make(step.kind).unavailable(manifest, step)
        told = doctor._fault(step.kind, manifests.load())
    return {"reason": reason, "doctor": told.state, "hint": told.hint}


def main(kind: str, folder: Path) -> None:
    """Run as a process."""
    isolation = isolate(manifests.load(EXAMPLES[kind].target))
    print(json.dumps(asyncio.run(play(kind, folder, isolation)), default=str))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
