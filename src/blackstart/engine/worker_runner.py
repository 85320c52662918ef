"""The process of one trial: `python -m blackstart.engine.worker_runner`, started by `engine.worker`.

It moves into namespaces of its own where the manifest asks for them, conducts, analyses, and tells of it as
JSON lines on its standard output. It dies with its parent, and its guardian then takes everything back.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop

from blackstart.check.analyse import analyse
from blackstart.engine import single
from blackstart.engine.conductor import Kit
from blackstart.engine.worker import Job, Word
from blackstart.host import namespaces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.model.manifest import Manifest
    from blackstart.model.outcome import Trial

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run as a process."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    isolation = isolate(job.manifest)
    die_with(job.parent)
    trial = uvloop.run(_run(job, isolation))
    _say(Word(trial=trial))


def isolate(manifest: Manifest) -> frozenset[str]:
    """Enter what can be had; faults that need more say so themselves."""
    wanted = [kind for kind in manifest.isolation if namespaces.unavailable(kind) is None]
    return namespaces.enter(wanted)


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent died first")


async def _run(job: Job, isolation: frozenset[str]) -> Trial:
    kit = Kit(progress=_progress, isolation=isolation)
    task = asyncio.ensure_future(single.run(job.plan, job.manifest, Path(job.folder), kit, analyse))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _progress(event: str, figures: Mapping[str, Any]) -> None:
    _say(Word(event=event, figures=dict(figures)))


def _say(word: Word) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(word, enc_hook=str) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
