"""Running trials one after the other.

One that fails or crashes never keeps the others from running (R43, R45).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import os
import signal
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import blackstart
from blackstart.check.analyse import analyse
from blackstart.engine import leftovers, permit
from blackstart.engine.conductor import Analyse, Kit, conduct
from blackstart.engine.trial import tell
from blackstart.errors import BlackstartError
from blackstart.model.outcome import Rpo, Rto, Run, Trial
from blackstart.model.verdict import Verdict
from blackstart.scenario.plan import folder_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blackstart.model.instant import Instant
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import Plan

LATEST = "latest"


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`runs` is the folder that holds all runs; `seed` is written down, the plans already carry theirs."""

    runs: Path = Path("runs")
    seed: int = 0
    kit: Kit = Kit()
    analyse: Analyse = analyse


async def run_suite(manifest: Manifest, plans: Sequence[Plan], options: RunOptions) -> Run:
    """Run `plans` against the target and return everything that was found.

    Ctrl-C ends the running trial ("interrupted") and the run; a second one hurries the closing up. Raises
    PermitError before anything is started, BlackstartError when the runs folder cannot be written.
    """
    permit.check(manifest)
    for plan in plans:
        permit.check_plan(manifest, plan)
    await _clear_leftovers(options)
    began = options.kit.clock.now()
    try:
        folder = _new_folder(options.runs, began)
    except OSError as error:
        hint = "give another folder (`--out`) or make room"
        raise BlackstartError(
            f"cannot be written: {error.strerror}", where=str(options.runs), hint=hint
        ) from error
    await _tell(options, "run-started", {"id": folder.name, "folder": str(folder), "trials": len(plans)})
    suite = _Suite(manifest, folder, options)
    with _interrupts(suite.interrupt):
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


class _Suite:
    def __init__(self, manifest: Manifest, folder: Path, options: RunOptions) -> None:
        self._manifest, self._folder, self._options = manifest, folder, options
        self._running: asyncio.Task[Trial] | None = None
        self.interrupted = False

    def interrupt(self) -> None:
        """End the running trial; called again, faster."""
        self.interrupted = True
        if self._running is not None:
            self._running.cancel()

    async def run(self, plans: Sequence[Plan]) -> list[Trial]:
        """Run all, or those up to the interruption."""
        trials: list[Trial] = []
        for index, plan in enumerate(plans):
            if self.interrupted:
                break
            figures = {
                "trial_id": plan.trial_id,
                "title": plan.scenario.title,
                "index": index,
                "of": len(plans),
            }
            folder = _free(self._folder / folder_name(plan.trial_id))
            await _tell(self._options, "trial-started", {**figures, "folder": str(folder)})
            self._running = asyncio.ensure_future(self._one(plan, folder))
            trial = await self._running
            trials.append(trial)
            await _tell(self._options, "trial-ended", {"trial": trial, "index": index, "of": len(plans)})
        return trials

    async def _one(self, plan: Plan, folder: Path) -> Trial:
        began = self._options.kit.clock.now()
        try:
            history = await conduct(plan, self._manifest, folder, self._options.kit)
            return self._options.analyse(history)
        except asyncio.CancelledError:
            return _unknown(plan, self._manifest, folder, began, "interrupted")
        except BlackstartError as error:
            return _unknown(plan, self._manifest, folder, began, error.render())
        except OSError as error:
            reason = "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "run-folder"
            return _unknown(plan, self._manifest, folder, began, f"{reason}: {error}")
        except Exception as error:  # noqa: BLE001 - R45: one trial never stops the others
            _keep_traceback(folder, error)
            return _unknown(
                plan, self._manifest, folder, began, f"engine-error: {type(error).__name__}: {error}"
            )


def _free(folder: Path) -> Path:
    """Return the folder, or one beside it when the same trial has been run before in this run."""
    numbered = (folder.with_name(f"{folder.name}-again-{count}") for count in range(2, 10_000))
    return folder if not folder.exists() else next(one for one in numbered if not one.exists())


def _unknown(plan: Plan, manifest: Manifest, folder: Path, began: Instant, reason: str) -> Trial:
    """Make the result of a trial that did not even get a history: nothing is known."""
    return Trial(
        id=plan.trial_id,
        scenario=plan.scenario.id,
        title=plan.scenario.title,
        requirement=plan.scenario.requirement,
        target=manifest.name,
        verdict=Verdict.UNKNOWN,
        reasons=(reason,),
        seed=plan.seed,
        replay=plan.replay,
        fault=None,
        rto=Rto(),
        rpo=Rpo(),
        validation={},
        checklist=(),
        started_wall_ns=began.wall_ns,
        folder=str(folder),
    )


def _keep_traceback(folder: Path, error: Exception) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bug.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return  # the reason in the result says what there is to say


async def _clear_leftovers(options: RunOptions) -> None:
    """Take back what earlier runs, killed together with their guardians, left behind."""
    for folder, outcomes in await asyncio.to_thread(leftovers.clear, options.runs):
        await _tell(options, "leftovers", {"folder": str(folder), "outcomes": outcomes})


def _new_folder(runs: Path, now: Instant) -> Path:
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
def _interrupts(interrupt: Callable[[], None]) -> Iterator[None]:
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
