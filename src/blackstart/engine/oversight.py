"""What a trial and a session of chaos share: their background jobs, why to end early, and ending in order."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from typing import TYPE_CHECKING, Any, TypeVar

from blackstart.engine.recorder import BATCH_NS
from blackstart.engine.trial import DISK_FULL, Stop
from blackstart.errors import BlackstartError, said

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from blackstart.contracts import Clock, Rig
    from blackstart.engine.recorder import Recorder

T = TypeVar("T")

HALTED, INTERRUPTED = "halted", "interrupted"
_CLOSE_LIMIT_S = 60.0
_WATCH_LIMIT_S = 3.0
_WORDS = {
    HALTED: "the kill switch was pulled",
    "guardian-lost": "the guardian died: nothing may stay broken without it",
}


class Oversight:
    """The jobs beside one course of work, and the reason for which it ends early.

    `problem` hears of everything that went wrong and does not end the work by itself.
    """

    def __init__(self, folder: Path, problem: Callable[[Stop], None]) -> None:
        self.stop: Stop | None = None
        self._folder = folder
        self._problem = problem
        self._main: asyncio.Task[Any] | None = None
        self._jobs: list[asyncio.Task[None]] = []
        self._watching: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._closing = False

    def begin(self) -> None:
        """Take the running task for the work that is overseen."""
        self._main = asyncio.current_task()

    @property
    def in_charge(self) -> bool:
        """Whether the running task is the work itself, and not one of its jobs."""
        return asyncio.current_task() is self._main

    async def attempt(self, work: Coroutine[Any, Any, None]) -> Stop | None:
        """Do a part of the work as far as it gets; says why it did not come to its end.

        The code is INTERRUPTED when it was cancelled from outside, and not by a reason of our own.
        """
        try:
            await work
        except Stop as stop:
            return self.stop or stop
        except asyncio.CancelledError:
            uncancel()
            return self.stop or Stop(INTERRUPTED, "")
        except BlackstartError as error:
            return self.stop or Stop("target-failed", error.render())
        except OSError as error:
            return Stop("disk-full", str(error)) if error.errno in DISK_FULL else self._bug(error)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not keep the target broken
            return self._bug(error)
        return None

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the closing, whatever comes: to be cancelled once more only hurries it up."""
        self._closing = True
        finishing = asyncio.ensure_future(work)
        while not finishing.done():
            try:
                await asyncio.shield(finishing)
            except asyncio.CancelledError:
                uncancel()
                self._hurry.set()
        return finishing.result()

    def job(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in the background; when it fails, the work stops for that reason."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._job_done)
        self._jobs = [one for one in self._jobs if not one.done()]
        self._jobs.append(task)
        return task

    def watch(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the watchers in the background."""
        self._watching = self.job(work)

    async def stop_watching(self) -> None:
        """End the watchers while the service still runs: later silence is our own doing."""
        if self._watching is None or self._watching.done():
            return
        self._watching.cancel()
        _, left = await asyncio.wait([self._watching], timeout=_WATCH_LIMIT_S)
        if left:
            text = f"the watchers did not stop within {_WATCH_LIMIT_S:g} s"
            self._problem(Stop("watch-failed", text))

    async def end_jobs(self) -> None:
        """End everything in the background."""
        for task in self._jobs:
            task.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=_WATCH_LIMIT_S)

    def halt(self, why: str) -> None:
        """Stop, because somebody pulled the kill switch or the guardian died: what ends now ends by us."""
        if self._watching is not None:
            self._watching.cancel()
        self.stop_because(Stop(why, _WORDS.get(why, why)))

    def stop_because(self, stop: Stop) -> None:
        """End the work early for that reason, unless there was one before."""
        if self.stop is None and self._main is not None:
            self.stop = stop
            if self._closing and stop.code == "guardian-lost":
                self._problem(stop)  # nothing is left to end early, and there is no reason to hurry
            elif not self.in_charge:  # which is told by an exception of its own
                self._main.cancel()

    async def closing_step(self, code: str, work: Coroutine[Any, Any, object]) -> None:
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
            self._problem(Stop(code, said(error)))

    async def close_rig(self, rig: Rig) -> None:
        """End the load, then the target."""
        if rig.workload is not None:
            halted = self.stop is not None and self.stop.code == HALTED
            stopping = rig.workload.stop()
            await self.closing_step("close-failed", _ended_by_us(stopping) if halted else stopping)
        await self.closing_step("close-failed", rig.target.close())

    def _job_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            error = Stop("disk-full", str(error))
        elif not isinstance(error, Stop):
            error = Stop("lost-sight", said(error))
        self.stop_because(error)

    def _bug(self, error: Exception) -> Stop:
        text, place = "".join(traceback.format_exception(error)), str(self._folder / "bug.txt")
        try:
            (self._folder / "bug.txt").write_text(text, encoding="utf-8")
        except OSError:
            place = "(could not be written)"
        said = f"{type(error).__name__}: {error} (a bug in Blackstart; traceback: {place})"
        return Stop("engine-error", said)


async def keep_flushing(clock: Clock, recorder: Callable[[], Recorder | None]) -> None:
    """Hand records to the kernel every 50 ms. Raises Stop when the disk is full."""
    while True:
        await clock.sleep_until(clock.now().mono_ns + BATCH_NS)
        if (one := recorder()) is None:
            continue
        one.flush()
        if one.writer.error is not None:
            raise Stop("disk-full", f"{one.writer.path}: {one.writer.error.strerror}")


async def _ended_by_us(stopping: Coroutine[Any, Any, object]) -> None:
    """Stop what the guardian has ended at the kill switch: that it is dead is no failure."""
    with contextlib.suppress(BlackstartError):
        await stopping


def uncancel() -> None:
    """Take note of a cancellation, so that what runs can close in peace."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


async def uninterrupted(work: Coroutine[Any, Any, T]) -> tuple[T, bool]:
    """Do something to its end; says, too, whether somebody wanted to cancel it meanwhile."""
    doing, cancelled = asyncio.ensure_future(work), False
    while not doing.done():
        try:
            await asyncio.shield(doing)
        except asyncio.CancelledError:
            uncancel()
            cancelled = True
    return doing.result(), cancelled
