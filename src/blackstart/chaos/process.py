"""The process of one session: `python -m blackstart.chaos.process`, started by `chaos.programme`.

Like that of a trial: in namespaces of its own where the manifest asks for them, and with its parent it dies.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop

from blackstart.chaos import radius
from blackstart.chaos.model import Orders, Summary  # noqa: TC001 - msgspec reads the annotations
from blackstart.chaos.plan import Planned, choices
from blackstart.chaos.session import conduct
from blackstart.engine import guard, worker_runner
from blackstart.engine.conductor import Kit
from blackstart.engine.worker import Parent  # noqa: TC001 - msgspec reads the annotation
from blackstart.engine.worker_runner import say
from blackstart.errors import BlackstartError
from blackstart.faults import registry
from blackstart.host import heap
from blackstart.model.manifest import Manifest  # noqa: TC001 - msgspec reads the annotation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.model.scenario import FaultStep


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told, as one line on its standard input."""

    orders: Orders
    manifest: Manifest
    folder: str
    parent: Parent


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What it tells, a line each; the last has the summary, or what kept the session from being one."""

    event: str = ""
    figures: dict[str, Any] = {}
    summary: Summary | None = None
    refused: str = ""


def main() -> None:
    """Run as a process."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    isolation = worker_runner.isolate(job.manifest)
    worker_runner.die_with(job.parent)
    try:
        say(Word(summary=uvloop.run(_run(job, isolation))))
    except BlackstartError as error:
        say(Word(refused=error.render()))


async def _run(job: Job, isolation: frozenset[str]) -> Summary:
    guarding = partial(guard.start, parents=job.parent.lifeline)
    kit = Kit(progress=_progress, isolation=isolation, guard=guarding)
    planned = plan(job.orders, job.manifest)
    heap.settle()
    work = conduct(job.orders, job.manifest, Path(job.folder), kit, planned)
    return await worker_runner.until_told(work)


def plan(orders: Orders, manifest: Manifest) -> Planned:
    """Return what is to be done: what was recorded, or what the seed brings; tells what is left out.

    Asked here, inside the session's namespaces: what can be had may depend on them.
    """
    if orders.replayed is not None:
        return Planned((), orders, manifest)
    allowed = radius.allowed(orders.profile, manifest, orders.seed)
    found, left = choices(orders.profile, manifest, lambda step: unavailable(manifest, step), allowed)
    _progress("left-out", {"left_out": msgspec.to_builtins(left)})
    return Planned(found, orders, manifest)


def unavailable(manifest: Manifest, step: FaultStep) -> str | None:
    """Say why a fault cannot be had, or None."""
    try:
        return registry.unavailable(registry.make(step.kind), manifest, step)
    except BlackstartError as error:
        return error.what


def _progress(event: str, figures: Mapping[str, Any]) -> None:
    say(Word(event=event, figures=dict(figures)))


if __name__ == "__main__":
    main()
