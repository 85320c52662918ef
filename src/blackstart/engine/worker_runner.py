"""The process of one trial: `python -m blackstart.engine.worker_runner`, started by `engine.worker`.

It moves into namespaces of its own where the manifest asks for them, conducts, analyses, and tells of it as
JSON lines on its standard output, which nobody else may write to: a stranger's glue works in this process. It
dies with its parent, and its guardian then takes everything back.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import uvloop

from blackstart.check.analyse import analyse
from blackstart.engine import guard, single
from blackstart.engine.conductor import Kit
from blackstart.engine.worker import Job, Parent, Word
from blackstart.host import namespaces

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from blackstart.model.manifest import Manifest
    from blackstart.model.outcome import Trial

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run as a process."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    isolation = isolate(job.manifest)
    die_with(job.parent)
    trial = uvloop.run(_run(job, isolation))
    say(Word(trial=trial))


def isolate(manifest: Manifest) -> frozenset[str]:
    """Enter what can be had; faults that need more say so themselves."""
    wanted = [kind for kind in manifest.isolation if namespaces.unavailable(kind) is None]
    return namespaces.enter(wanted)


def die_with(parent: Parent) -> None:
    """Have the kernel end this process when its parent ends, and keep its lifeline from our children."""
    os.set_inheritable(parent.lifeline, False)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent.pid:
        sys.exit("the parent died first")


async def _run(job: Job, isolation: frozenset[str]) -> Trial:
    guarding = partial(guard.start, parents=job.parent.lifeline)
    kit = Kit(progress=_progress, isolation=isolation, guard=guarding)
    return await until_told(single.run(job.plan, job.manifest, Path(job.folder), kit, analyse))


async def until_told(work: Coroutine[Any, Any, T]) -> T:
    """Do the work of a process; SIGTERM, each time that it comes, cancels it: it ends in order.

    Whatever is printed from now on, but by `say`, goes to standard error.
    """
    _Wire.keep()
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _progress(event: str, figures: Mapping[str, Any]) -> None:
    say(Word(event=event, figures=dict(figures)))


class _Wire:
    """The way to the parent: this process's standard output, as it was when the process began."""

    fd = 1

    @classmethod
    def keep(cls) -> None:
        """Keep it for ourselves: its number now means standard error, and no child inherits it."""
        if cls.fd == 1:
            sys.stdout.flush()
            cls.fd = os.dup(1)
            os.dup2(2, 1)


def say(word: msgspec.Struct) -> None:
    """Tell the parent, on one line."""
    with open(_Wire.fd, "wb", closefd=False) as out:
        out.write(msgspec.json.encode(word, enc_hook=str) + b"\n")


if __name__ == "__main__":
    main()
