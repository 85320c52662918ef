"""Running trials, one after the other or side by side.

One that fails or crashes never keeps the others from running (R43, R45).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import blackstart
from blackstart.check.analyse import analyse
from blackstart.check.fault import LEFT_IN_PLACE
from blackstart.engine import alarm, leftovers, locks, openruns, permit, single
from blackstart.engine import approval as approvals
from blackstart.engine.claim import claimed, shared
from blackstart.engine.conductor import Analyse, Kit
from blackstart.engine.seats import Seats
from blackstart.engine.trial import tell
from blackstart.errors import BlackstartError
from blackstart.model.outcome import Run, Trial
from blackstart.scenario import approved
from blackstart.scenario.plan import folder_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from blackstart.contracts import Progress
    from blackstart.engine.seats import Leave
    from blackstart.model.approval import Grant
    from blackstart.model.instant import Instant
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import Plan

LATEST = "latest"
_HALT_LOOK_NS = 100_000_000

Conduct = Callable[["Plan", "Manifest", Path, Kit, Analyse], Coroutine[Any, Any, Trial]]
"""Runs one trial in a folder and never raises."""


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`runs` is the folder that holds all runs; `seed` is written down, the plans already carry theirs.

    `jobs` trials run side by side; `conduct` runs one of them, here or in a process of its own.
    `approvals` is where those for production lie.
    """

    runs: Path = Path("runs")
    seed: int = 0
    kit: Kit = Kit()
    analyse: Analyse = analyse
    jobs: int = 1
    conduct: Conduct = single.run
    approvals: Path = approvals.PLACE


async def run_suite(manifest: Manifest, plans: Sequence[Plan], options: RunOptions) -> Run:
    """Run `plans` against the target and return everything that was found.

    Ctrl-C ends the running trial ("interrupted") and the run; a second one hurries the closing up. In
    production one trial runs after the other, by an approval, and what runs when that ends is interrupted.
    Raises PermitError, or ScenarioError for a fault that there is not, before anything is started, FaultError
    when an earlier run left something in place, BlackstartError when the runs folder cannot be written.

    A target that is there once is nobody else's meanwhile, and its trials come one after the other.
    """
    production = permit.needed(manifest)
    for plan in plans:
        permit.check_plan(manifest, plan)
        for step in plan.faults:
            options.kit.fault(step.kind)
    if not production:
        with claimed(manifest):
            return await _run_suite(manifest, plans, options, None)
    with claimed(manifest), approvals.alone(options.approvals):
        wish = approved.of_trials(plans, manifest)
        granted = permit.grant(manifest, wish, options.approvals, options.kit.clock.now().wall_ns)
        allowed = [msgspec.structs.replace(plan, approval=granted) for plan in plans]
        one_by_one = msgspec.structs.replace(options, jobs=1)
        return await _run_suite(manifest, allowed, one_by_one, granted)


async def _run_suite(
    manifest: Manifest, plans: Sequence[Plan], options: RunOptions, granted: Grant | None
) -> Run:
    await _clear_leftovers(options)
    began = options.kit.clock.now()
    try:
        folder = new_folder(options.runs, began)
    except OSError as error:
        hint = "give another folder (`--out`) or make room"
        raise BlackstartError(
            f"cannot be written: {error.strerror}", where=str(options.runs), hint=hint
        ) from error
    await _tell(options, "run-started", {"id": folder.name, "folder": str(folder), "trials": len(plans)})
    suite = _Suite(manifest, folder, options, granted)
    with _within_reach(folder), interrupts(suite.interrupt):
        trials = await suite.run(plans)
    ended = options.kit.clock.now()
    run = Run(
        id=folder.name,
        version=blackstart.__version__,
        target=manifest.name,
        target_title=manifest.title,
        seed=options.seed,
        folder=str(folder),
        started_wall_ns=began.wall_ns,
        duration_ns=ended.mono_ns - began.mono_ns,
        trials=tuple(trials),
        interrupted=suite.interrupted,
    )
    await _tell(options, "run-ended", {"run": run})
    return run


def longest_first(plan: Plan) -> tuple[float, float]:
    """Order plans by what they take at least, and among the same by what they may take."""
    observe = plan.scenario.observe
    at_least_s = observe.after_s + sum(step.duration_s or 0.0 for step in plan.faults)
    return -at_least_s, -observe.limit_s


class _Suite:
    def __init__(self, manifest: Manifest, folder: Path, options: RunOptions, granted: Grant | None) -> None:
        self._manifest, self._folder, self._options = manifest, folder, options
        self._granted = granted
        now = options.kit.clock.now()
        # Counted by the monotonic clock: to set the wall clock back while it runs gains no time.
        self._end_ns = None if granted is None else now.mono_ns + granted.ends_wall_ns - now.wall_ns
        self._running: dict[asyncio.Task[Trial], Path] = {}
        self._names: set[str] = set()
        self.interrupted = False

    def interrupt(self) -> None:
        """End the running trials; called again, faster."""
        self.interrupted = True
        for task in self._running:
            task.cancel()

    async def run(self, plans: Sequence[Plan]) -> list[Trial]:
        """Run all, `jobs` of them side by side, or those up to the interruption; returned in order.

        Side by side, the one that may take longest begins first: none is left over alone at the end.
        """
        seats = Seats(self._options.jobs)
        numbered = list(enumerate(plans))
        if self._options.jobs > 1:
            numbered.sort(key=lambda pair: longest_first(pair[1]))
        found: dict[int, Trial] = {}

        async def one(index: int, plan: Plan) -> None:
            trial = await self._in_turn(seats, plan, {"index": index, "of": len(plans)})
            if trial is not None:
                found[index] = trial

        watching = [asyncio.ensure_future(work) for work in (self._at_end(), self._at_halt())]
        try:
            await asyncio.gather(*(one(index, plan) for index, plan in numbered))
        finally:
            for task in watching:
                task.cancel()
        return [found[index] for index in sorted(found)]

    async def _at_end(self) -> None:
        """Interrupt what still runs when an approval ends, or a market is about to open."""
        if self._end_ns is not None:
            await self._options.kit.clock.sleep_until(self._end_ns)
            self.interrupt()

    async def _at_halt(self) -> None:
        """End everything when the kill switch is pulled; a trial whose guardian was called ends by itself."""
        clock = self._options.kit.clock
        while not (self._folder / alarm.HALT).exists():
            await clock.sleep_until(clock.now().mono_ns + _HALT_LOOK_NS)
        await self._stop("the kill switch was pulled")
        for task, folder in self._running.items():
            if not (folder / alarm.HALT).exists():
                task.cancel()

    async def _stop(self, why: str) -> None:
        """Begin no further trial."""
        if not self.interrupted:
            self.interrupted = True
            await _tell(self._options, "run-stopped", {"why": why})

    async def _after(self, trial: Trial, folder: Path) -> None:
        """Break nothing more beside what could not be taken back, nor after the kill switch was pulled."""
        stuck = [f.text for check in trial.checks for f in check.findings if f.code == LEFT_IN_PLACE]
        if stuck:
            await self._stop(
                f"{trial.id} left in place: {'; '.join(stuck)}; nothing more is broken beside it"
            )
        elif (folder / alarm.HALT).exists():
            await self._stop(f"{trial.id} was halted")

    def _forbidden(self, plan: Plan) -> str | None:
        """Say why a trial may not begin any more by the approval of this run, or None."""
        if self._granted is None or self._end_ns is None:
            return None
        now = self._options.kit.clock.now()
        now_ns = max(now.wall_ns, self._granted.ends_wall_ns - (self._end_ns - now.mono_ns))
        longest_s = approved.longest_s(plan, self._manifest)
        why = permit.withdrawn(self._granted, self._manifest) or permit.too_late(
            self._granted, longest_s, now_ns
        )
        return None if why is None else f"not-permitted: {why}"

    def _free(self, name: str) -> Path:
        """Return a folder of that name, or one beside it when the same trial was begun before in this run."""
        others = (f"{name}-again-{count}" for count in itertools.count(2))
        chosen = next(one for one in itertools.chain([name], others) if one not in self._names)
        self._names.add(chosen)
        return self._folder / chosen

    async def _in_turn(self, seats: Seats, plan: Plan, place: dict[str, int]) -> Trial | None:
        async with seats.taken(alone=plan.scenario.alone or shared(self._manifest)) as leave:
            if self.interrupted:
                return None
            folder = self._free(folder_name(plan.trial_id))
            figures = {"trial_id": plan.trial_id, "title": plan.scenario.title, "folder": str(folder)}
            await _tell(self._options, "trial-started", {**figures, **place})
            options = self._options
            kit = options.kit
            if options.jobs > 1 and not shared(self._manifest):
                kit = msgspec.structs.replace(kit, progress=_leaving(kit.progress, leave))
            why_not = self._forbidden(plan)
            if why_not is not None:
                trial = single.unknown(plan, self._manifest, folder, kit.clock.now(), why_not)
                await _tell(self._options, "trial-ended", {"trial": trial, **place})
                return trial
            work = options.conduct(plan, self._manifest, folder, kit, options.analyse)
            running = asyncio.ensure_future(work)
            self._running[running] = folder
            trial = await running
            del self._running[running]
            await _tell(self._options, "trial-ended", {"trial": trial, **place})
            await self._after(trial, folder)
            return trial


def _leaving(progress: Progress | None, leave: Leave) -> Progress:
    """Pass on what a trial tells. Once everything is reverted it leaves its seat to the next one.

    Nothing that comes then is timed: the load ends, the books are read at rest, the target is closed, the
    trial judged. `closed` is for trials that end before they break anything.
    """

    async def told(event: str, figures: Mapping[str, Any]) -> None:
        await tell(progress, event, figures)
        if event == "stage" and figures["stage"] in ("reverted", "closed"):
            await leave()

    return told


@contextmanager
def _within_reach(folder: Path) -> Iterator[None]:
    """Let the kill switch find the suite also between two trials, when no guardian watches."""
    lock = locks.hold(str(folder), locks.OWNER_LOCK)
    openruns.note(str(folder))
    try:
        yield
    finally:
        openruns.strike(str(folder))
        if lock is not None:
            locks.release(lock)


async def _clear_leftovers(options: RunOptions) -> None:
    """Take back what earlier runs, killed together with their guardians, left behind."""
    for folder, outcomes in await asyncio.to_thread(leftovers.clear, options.runs):
        await _tell(options, "leftovers", {"folder": str(folder), "outcomes": outcomes})


def new_folder(runs: Path, now: Instant) -> Path:
    """Make `runs/YYYYMMDD-HHMMSS-xxxx` and point `runs/latest` to it."""
    moment = _stamp(now.wall_ns)
    runs.mkdir(parents=True, exist_ok=True)
    folder = (runs / f"{moment}-{os.urandom(2).hex()}").resolve()
    folder.mkdir()
    pointer = runs / f".{folder.name}"
    try:
        pointer.symlink_to(folder.name)
        pointer.replace(runs / LATEST)
    except OSError:
        pointer.unlink(missing_ok=True)  # a file system without links, or somebody's own folder of that name
    return folder


def _stamp(wall_ns: int) -> str:
    return dt.datetime.fromtimestamp(wall_ns // 10**9, tz=dt.UTC).strftime("%Y%m%d-%H%M%S")


@contextmanager
def interrupts(interrupt: Callable[[], None]) -> Iterator[None]:
    """Take Ctrl-C, SIGTERM and SIGHUP as the wish to end.

    Elsewhere than in the main thread the caller cancels.
    """
    loop = asyncio.get_running_loop()
    taken = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        try:
            loop.add_signal_handler(number, interrupt)
        except (RuntimeError, ValueError, NotImplementedError):
            continue
        taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


async def _tell(options: RunOptions, event: str, figures: dict[str, Any]) -> None:
    await tell(options.kit.progress, event, figures)
