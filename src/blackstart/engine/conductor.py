"""The life of one trial (DESIGN section 4), from opening the target to the verdict.

    open → steady state → aim → trigger → inject → witness → observe → revert → quiesce → final read → close

Whatever happens on the way, the second half of `conduct` is gone through: everything is reverted and closed,
the history is synced, and only then analysed. A trial never raises because of its target; what went wrong is
a record and becomes a reason.
"""

from __future__ import annotations

import asyncio
import errno
import platform
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import psutil

import blackstart
from blackstart.engine import after, before, guard, journal
from blackstart.engine.breakage import Breakages
from blackstart.engine.clocks import SystemClock
from blackstart.engine.recorder import BATCH_NS, Recorder
from blackstart.engine.resources import Sampler
from blackstart.engine.trial import Guarding, RunningTrial, Stop
from blackstart.errors import BlackstartError
from blackstart.faults import registry
from blackstart.history.view import History, load
from blackstart.history.writer import HistoryWriter
from blackstart.model.outcome import Trial
from blackstart.model.record import Ended, Header, Problem, Reverted
from blackstart.target import rig as local_rig

if TYPE_CHECKING:
    from blackstart.contracts import Clock, Fault, Progress, RigFactory
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import Plan

Analyse = Callable[[History], Trial]
StartGuard = Callable[..., Coroutine[Any, Any, Guarding]]
How = Literal["complete", "interrupted", "error"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSE_LIMIT_S = 60.0
_WATCH_LIMIT_S = 3.0


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
    lock = journal.hold(str(folder), journal.OWNER_LOCK)
    assert lock is not None, "the folder is new"
    conductor = Conductor(plan, manifest, folder, kit)
    try:
        return await conductor.run()
    finally:
        journal.release(lock)


class Conductor:
    """One trial on its way."""

    def __init__(self, plan: Plan, manifest: Manifest, folder: Path, kit: Kit) -> None:
        self._plan, self._manifest, self._folder, self._kit = plan, manifest, folder, kit
        self._writer = HistoryWriter(folder)
        self._recorder = Recorder(self._writer, kit.clock)
        self._trial: RunningTrial | None = None
        self._breakages: Breakages | None = None
        self._background: list[asyncio.Task[None]] = []
        self._watching: asyncio.Task[None] | None = None
        self._main: asyncio.Task[Any] | None = None
        self._stop: Stop | None = None
        self._hurry = asyncio.Event()
        self._closing = False

    async def run(self) -> History:
        """See `conduct`."""
        self._main = asyncio.current_task()
        self._recorder(header(self._plan, self._manifest, self._kit))
        self._recorder.flush()
        how = await self._first_half()
        self._closing = True
        finishing = asyncio.ensure_future(self._second_half(how))
        while not finishing.done():
            try:
                await asyncio.shield(finishing)
            except asyncio.CancelledError:
                _uncancel()
                self._hurry.set()
        return finishing.result()

    async def _first_half(self) -> How:
        """Go through the trial as far as it gets; says how it ended."""
        try:
            await self._live()
        except Stop as stop:
            self._problem(self._stop or stop)
        except asyncio.CancelledError:
            _uncancel()
            if self._stop is None:
                return "interrupted"
            self._problem(self._stop)
        except BlackstartError as error:
            self._problem(self._stop or Stop("target-failed", error.render()))
        except OSError as error:
            self._os_error(error)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not keep the target broken
            self._bug(error)
        else:
            return "complete"
        return "error"

    async def _live(self) -> None:
        trial = await self._set_up()
        trial.rig = self._rig(trial)
        self._breakages = breakages = Breakages(trial, self._kit.fault)
        await breakages.prepare()
        await before.open_target(trial)
        self._watching = self._job(trial.rig.watch(before.services(trial), before.interest(trial)))
        self._job(self._sampler(trial).run())
        await before.start_load(trial)
        await before.steady_state(trial)
        await before.snapshot(trial)
        await breakages.aim()
        await before.await_trigger(trial)
        await breakages.inject()
        await after.observe(trial, breakages)
        await self._stop_watching()
        await breakages.revert()
        await trial.stage("reverted")
        await after.stop_load(trial)
        await after.read(trial, self._folder)

    async def _set_up(self) -> RunningTrial:
        guardian = await self._kit.guard(self._folder, on_halt=self._halt)
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
        self._job(self._keep_flushing())
        return self._trial

    def _rig(self, trial: RunningTrial) -> Any:
        return self._kit.rig(
            self._manifest,
            run_dir=self._folder,
            seed=self._plan.seed,
            clock=self._kit.clock,
            sink=trial.record,
            protect=trial.guard.protect,
        )

    def _sampler(self, trial: RunningTrial) -> Sampler:
        return Sampler(trial.target, self._manifest.components, self._folder, self._kit.clock, trial.record)

    async def _keep_flushing(self) -> None:
        """Hand records to the kernel every 50 ms, and stop the trial when the disk is full."""
        while True:
            await self._kit.clock.sleep_until(self._kit.clock.now().mono_ns + BATCH_NS)
            self._recorder.flush()
            if self._writer.error is not None:
                raise Stop("disk-full", f"{self._writer.path}: {self._writer.error.strerror}")

    def _job(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in the background; when it fails, the trial stops for that reason."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._job_done)
        self._background.append(task)
        return task

    def _job_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, OSError) and error.errno in _FULL:
            error = Stop("disk-full", str(error))
        elif not isinstance(error, Stop):
            what = (
                error.render() if isinstance(error, BlackstartError) else f"{type(error).__name__}: {error}"
            )
            error = Stop("lost-sight", what)
        self._stop_because(error)

    def _halt(self, why: str) -> None:
        """Stop, because somebody pulled the kill switch or the guardian died."""
        words = {
            "halted": "the kill switch was pulled",
            "guardian-lost": "the guardian died: nothing may stay broken without it",
        }
        self._stop_because(Stop(why, words.get(why, why)))

    def _stop_because(self, stop: Stop) -> None:
        if self._stop is None and self._main is not None:
            self._stop = stop
            if self._closing and stop.code == "guardian-lost":
                self._problem(stop)  # nothing is left to end early, and there is no reason to hurry
            elif asyncio.current_task() is not self._main:  # which is told by an exception of its own
                self._main.cancel()

    def _problem(self, stop: Stop) -> None:
        now = self._kit.clock.now().mono_ns
        self._recorder(Problem(code=stop.code, text=stop.text, mono_ns=now, verdict=stop.verdict))

    def _os_error(self, error: OSError) -> None:
        if error.errno in _FULL:
            self._problem(Stop("disk-full", str(error)))
        else:
            self._bug(error)

    def _bug(self, error: Exception) -> None:
        text = "".join(traceback.format_exception(error))
        place = self._folder / "bug.txt"
        try:
            place.write_text(text, encoding="utf-8")
        except OSError:
            place = Path("(could not be written)")
        self._problem(
            Stop("engine-error", f"{type(error).__name__}: {error} (a bug in Blackstart; traceback: {place})")
        )

    async def _second_half(self, how: How) -> History:
        """Revert, stop, close, prove, sync. Nothing here may keep the next step from being done."""
        trial = self._trial
        if trial is not None:
            await self._stop_watching()
            if self._breakages is not None:
                await self._unless_hurried("revert-failed", self._breakages.revert())
            if trial.rig is not None:
                if trial.rig.workload is not None:
                    await self._unless_hurried("close-failed", trial.rig.workload.stop())
                await self._unless_hurried("close-failed", trial.rig.target.close())
            await self._last_undo(trial)
            await trial.stage("closed")
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=_WATCH_LIMIT_S)
        return self._conclude(how)

    async def _stop_watching(self) -> None:
        """End the watchers while the service still runs: later silence is our own doing."""
        if self._watching is None or self._watching.done():
            return
        self._watching.cancel()
        _, left = await asyncio.wait([self._watching], timeout=_WATCH_LIMIT_S)
        if left:
            text = f"the watchers did not stop within {_WATCH_LIMIT_S:g} s"
            self._problem(Stop("watch-failed", text))

    async def _last_undo(self, trial: RunningTrial) -> None:
        """Have the guardian take back whatever is still owed, and let it go."""
        try:
            for outcome in await trial.guard.undo():
                trial.record(outcome)
        except BlackstartError:
            for outcome in self._without_guardian():
                trial.record(outcome)
        await trial.guard.close()

    def _without_guardian(self) -> list[Reverted]:
        """Tell what the guardian took back before it went (`halt`), and take back the rest."""
        folder, known = (
            str(self._folder),
            {one.undo_id for one in self._recorder.records() if isinstance(one, Reverted)},
        )
        told = [entry for entry in journal.read(folder, journal.PAID) if entry["id"] not in known]
        return [
            guard.reverted(one) for one in [*told, *journal.pay(folder, journal.owed(folder), by="conductor")]
        ]

    async def _unless_hurried(self, code: str, work: Coroutine[Any, Any, object]) -> None:
        """Do one closing step.

        Drop it when the user is in a hurry or it takes too long: the guardian does the rest.
        """
        task = asyncio.ensure_future(work)
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait([task, hurry], timeout=_CLOSE_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=1.0)
        error = task.exception() if task.done() and not task.cancelled() else None
        if error is not None:
            what = (
                error.render() if isinstance(error, BlackstartError) else f"{type(error).__name__}: {error}"
            )
            self._problem(Stop(code, what))

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


def _uncancel() -> None:
    """Take note of a cancellation, so that the trial can close in peace."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


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
