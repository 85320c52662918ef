"""A trial in a process of its own: undisturbed by others, and where wanted with a network of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import msgspec

import blackstart
from blackstart.engine import leftovers, locks, single
from blackstart.engine.oversight import uncancel
from blackstart.engine.trial import tell
from blackstart.history.view import load
from blackstart.host.lifeline import Lifeline
from blackstart.model.manifest import Manifest  # noqa: TC001  # msgspec reads the annotations
from blackstart.model.outcome import Trial  # noqa: TC001  # msgspec reads the annotations
from blackstart.model.scenario import Plan  # noqa: TC001  # msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from blackstart.contracts import Progress
    from blackstart.engine.conductor import Analyse, Kit

T = TypeVar("T")

MODULE = "blackstart.engine.worker_runner"
_LINE_LIMIT = 1 << 28
_GUARDIAN_LIMIT_S = 30.0


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """Without whom a worker may not live: the pid, and the descriptor of the lifeline that it was given."""

    pid: int
    lifeline: int

    @classmethod
    def here(cls, line: Lifeline) -> Parent:
        """Name this process."""
        return cls(pid=os.getpid(), lifeline=line.fd)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told, as one line on its standard input."""

    plan: Plan
    manifest: Manifest
    folder: str
    parent: Parent


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker tells, a line each: its progress, and at the end the result."""

    event: str = ""
    figures: dict[str, Any] = {}
    trial: Trial | None = None


async def run(plan: Plan, manifest: Manifest, folder: Path, kit: Kit, analyse: Analyse) -> Trial:
    """Run a trial in a worker. Cancelling ends the trial early, cancelling again hurries that up.

    Of `kit` only the progress and the clock are used: everything else is the worker's own.
    """
    began = kit.clock.now()
    with tempfile.TemporaryFile() as errors, Lifeline() as line:
        process = await spawn(errors, line)
        job = Job(plan=plan, manifest=manifest, folder=str(folder), parent=Parent.here(line))
        trial = await patiently(_listen(process, job, kit.progress), process)
        if trial is not None:
            return trial
        reason = f"worker-died: the process of this trial ended with status {process.returncode}"
        said = last_words(errors)
    await asyncio.to_thread(settle, folder)
    return _cut_short(folder, analyse) or single.unknown(
        plan, manifest, folder, began, f"{reason}: {said}" if said else reason
    )


async def spawn(errors: IO[bytes], line: Lifeline, module: str = MODULE) -> asyncio.subprocess.Process:
    """Start a worker, with our lifeline; what it complains of goes into `errors`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(blackstart.__file__).parents[1])}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        env=environment,
        pass_fds=(line.fd,),
        limit=_LINE_LIMIT,
        start_new_session=True,  # Ctrl-C in a terminal is for us: we end our workers in order
    )


async def _listen(process: asyncio.subprocess.Process, job: Job, progress: Progress | None) -> Trial | None:
    """Hand the job over and pass its progress on; returns the result, None when the worker died."""
    trial = None
    async for word in words(process, job, Word):
        trial = word.trial or trial
        if word.event:
            await tell(progress, word.event, word.figures)
    return trial


async def words(process: asyncio.subprocess.Process, job: msgspec.Struct, kind: type[T]) -> AsyncIterator[T]:
    """Hand the job to a worker and yield what it tells, to its end.

    A line that is no word of it (torn by its death) is passed over: without its result it counts as dead.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(ConnectionError):
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        await process.stdin.drain()
    while line := await process.stdout.readline():
        with suppress(msgspec.DecodeError):
            yield msgspec.json.decode(line, type=kind)
    await process.wait()


async def patiently(work: Coroutine[Any, Any, T], process: asyncio.subprocess.Process) -> T:
    """Wait to the end; a cancellation is passed on to the worker, which closes in order."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            uncancel()
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
    return task.result()


def settle(folder: Path) -> None:
    """Wait until the guardian of a worker that died has taken everything back, and do the rest."""
    if not folder.is_dir():
        return
    lock = locks.wait_for(str(folder), locks.GUARDIAN_LOCK, _GUARDIAN_LIMIT_S)
    if lock is not None:
        locks.release(lock)
    leftovers.replay(folder, by="suite")


def _cut_short(folder: Path, analyse: Analyse) -> Trial | None:
    """Judge what the worker recorded before it died.

    Without the end of its history that is never a PASS. With it only the worker's own analysis was missing.
    """
    try:
        return analyse(load(folder))
    except Exception:  # noqa: BLE001 - nothing that can be read: the result says that it died
        return None


def last_words(errors: IO[bytes]) -> str:
    """Return the last line of what a worker complained of."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
