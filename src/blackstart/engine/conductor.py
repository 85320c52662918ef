"""The life of one trial (DESIGN section 4), from opening the target to the verdict.

    open → steady state → aim → trigger → inject → witness → observe → revert → quiesce → final read → close

Whatever happens on the way, the second half of `conduct` is gone through: everything is reverted and closed,
the history is synced, and only then analysed. A trial never raises because of its target; what went wrong is
a record and becomes a reason.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import psutil

import blackstart
from blackstart.engine import after, before, guard, locks
from blackstart.engine.breakage import Breakages
from blackstart.engine.clocks import SystemClock
from blackstart.engine.oversight import INTERRUPTED, Oversight, keep_flushing
from blackstart.engine.recorder import Recorder
from blackstart.engine.resources import Sampler
from blackstart.engine.trial import Guarding, RunningTrial, Stop
from blackstart.faults import registry
from blackstart.history.view import History, load
from blackstart.history.writer import HistoryWriter
from blackstart.model.outcome import Trial
from blackstart.model.record import Ended, Header, Problem, Reverted
from blackstart.target import rig as local_rig

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.contracts import Clock, Fault, Progress, Rig, RigFactory, Sink
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import Plan

Analyse = Callable[[History], Trial]
StartGuard = Callable[..., Coroutine[Any, Any, Guarding]]
How = Literal["complete", "interrupted", "error"]


class Kit(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial is conducted with; everything has a default, and tests replace it."""

    clock: Clock = SystemClock()
    rig: RigFactory = local_rig.build
    fault: Callable[[str], Fault] = registry.make
    guard: StartGuard = guard.start
    progress: Progress | None = None
    isolation: frozenset[str] = frozenset()


async def conduct(plan: Plan, manifest: Manifest, folder: Path, kit: Kit) -> History:
    """Run one trial in `folder` and return its finished history.

    Cancelling ends the trial early ("interrupted"): it is still reverted and closed; cancelling once more
    hurries that up. Raises OSError when not even the folder can be made, FaultError when there can be no
    guardian.
    """
    folder.mkdir(parents=True)  # noqa: ASYNC240 - before anything runs
    lock = locks.hold(str(folder), locks.OWNER_LOCK)
    assert lock is not None, "the folder is new"
    conductor = Conductor(plan, manifest, folder, kit)
    try:
        return await conductor.run()
    finally:
        locks.release(lock)


class Conductor:
    """One trial on its way."""

    def __init__(self, plan: Plan, manifest: Manifest, folder: Path, kit: Kit) -> None:
        self._plan, self._manifest, self._folder, self._kit = plan, manifest, folder, kit
        self._writer = HistoryWriter(folder)
        self._recorder = Recorder(self._writer, kit.clock)
        self._oversight = Oversight(folder, self._problem)
        self._trial: RunningTrial | None = None
        self._breakages: Breakages | None = None

    async def run(self) -> History:
        """See `conduct`."""
        self._oversight.begin()
        self._recorder(header(self._plan, self._manifest, self._kit))
        self._recorder.flush()
        how = await self._first_half()
        return await self._oversight.to_the_end(self._second_half(how))

    async def _first_half(self) -> How:
        """Go through the trial as far as it gets; says how it ended."""
        stop = await self._oversight.attempt(self._live())
        if stop is None:
            return "complete"
        if stop.code == INTERRUPTED:
            return "interrupted"
        self._problem(stop)
        return "error"

    async def _live(self) -> None:
        trial = await self._set_up()
        trial.rig = build_rig(
            self._kit,
            self._manifest,
            self._folder,
            seed=self._plan.seed,
            sink=trial.record,
            guard=trial.guard,
        )
        self._breakages = breakages = Breakages(trial, self._kit.fault)
        await breakages.prepare()
        await before.open_target(trial)
        self._oversight.watch(trial.rig.watch(before.services(trial), before.interest(trial)))
        self._oversight.job(self._sampler(trial).run())
        await before.start_load(trial)
        await before.steady_state(trial)
        await before.snapshot(trial)
        await breakages.aim()
        await before.await_trigger(trial)
        await breakages.inject()
        await after.observe(trial, breakages)
        await self._oversight.stop_watching()
        await breakages.revert()
        await trial.stage("reverted")
        await after.stop_load(trial)
        await after.read(trial, self._folder)

    async def _set_up(self) -> RunningTrial:
        guardian = await self._kit.guard(self._folder, on_halt=self._oversight.halt)
        kit = self._kit
        self._trial = RunningTrial(
            self._plan,
            self._manifest,
            clock=kit.clock,
            folder=self._folder,
            isolation=kit.isolation,
            recorder=self._recorder,
            guard=guardian,
            progress=kit.progress,
        )
        self._oversight.job(keep_flushing(kit.clock, lambda: self._recorder))
        return self._trial

    def _sampler(self, trial: RunningTrial) -> Sampler:
        return Sampler(trial.target, self._manifest.components, self._folder, self._kit.clock, trial.record)

    def _problem(self, stop: Stop) -> None:
        now = self._kit.clock.now().mono_ns
        self._recorder(Problem(code=stop.code, text=stop.text, mono_ns=now, verdict=stop.verdict))

    async def _second_half(self, how: How) -> History:
        """Revert, stop, close, prove, sync. Nothing here may keep the next step from being done."""
        trial, oversight = self._trial, self._oversight
        if trial is not None:
            await oversight.stop_watching()
            if self._breakages is not None:
                await oversight.closing_step("revert-failed", self._breakages.revert())
            if trial.rig is not None:
                await oversight.close_rig(trial.rig)
            known = {one.undo_id for one in self._recorder.records() if isinstance(one, Reverted)}
            for outcome in await guard.last_undo(trial.guard, str(self._folder), by="conductor", known=known):
                trial.record(outcome)
            await trial.stage("closed")
        await oversight.end_jobs()
        return self._conclude(how)

    def _conclude(self, how: How) -> History:
        ended = Ended(mono_ns=self._kit.clock.now().mono_ns, how=how)
        self._recorder(ended)
        self._recorder.sync()
        if self._writer.error is not None:
            return self._conclude_full(ended)
        self._writer.close()
        return load(self._folder)

    def _conclude_full(self, ended: Ended) -> History:
        """Get the last words onto a full disk; the analysis sees all that was recorded."""
        last = (
            Problem(code="disk-full", text=str(self._writer.error), mono_ns=ended.mono_ns),
            msgspec.structs.replace(ended, how="error"),
        )
        self._writer.last_words(*last)
        self._writer.close()
        return History.of([*self._recorder.records()[:-1], *last], self._folder)


def build_rig(kit: Kit, manifest: Manifest, folder: Path, *, seed: int, sink: Sink, guard: Guarding) -> Rig:
    """Make what stands around the target; nothing is started yet."""
    return kit.rig(manifest, run_dir=folder, seed=seed, clock=kit.clock, sink=sink, protect=guard.protect)


def header(plan: Plan, manifest: Manifest, kit: Kit) -> Header:
    """Return the first record of a history."""
    host = {
        "wall_ns": kit.clock.now().wall_ns,
        "isolation": sorted(kit.isolation),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpus": psutil.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "python": sys.version.split()[0],
    }
    return Header(plan=plan, manifest=manifest, version=blackstart.__version__, host=host)
