"""Judging in a process of its own: whatever a history needs of memory is given back when that ends.

`python -m blackstart.chaos.judge`, one for each injection, one for the books at the end, and one whenever the
sides of a stream have to be compared key by key. The session lives for hours and never holds a history; and
while one is read, its loop goes on looking.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blackstart.chaos import episode as episodes_of
from blackstart.chaos.model import Episode, Injection  # noqa: TC001 - msgspec reads the annotations
from blackstart.check.analyse import books
from blackstart.check.audit import audit
from blackstart.errors import BlackstartError
from blackstart.history.view import load
from blackstart.model.outcome import Rpo
from blackstart.model.verdict import CheckResult  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable

SIDES = ("acknowledged", "recovered")
MODULE = "blackstart.chaos.judge"
_NICE = 10  # what is measured meanwhile comes first


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A history to be judged: of an episode, or without one of the end, for the books.

    With `stream` the two ledger files of that stream in `folder` instead.
    """

    folder: str
    episode: Episode | None = None
    start_ns: int = 0
    stream: str = ""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What it came to."""

    injection: Injection | None = None
    rpo: Rpo = Rpo()
    validation: dict[str, CheckResult] = {}
    lost: int = 0


if TYPE_CHECKING:
    Judge = Callable[[Case], Found]


def here(case: Case) -> Found:
    """Judge in this process. Raises HistoryError and LedgerError."""
    if case.stream:
        ours, theirs = (Path(case.folder) / f"{case.stream}.{side}.jsonl" for side in SIDES)
        return Found(lost=audit(ours, theirs, threads=1).counts["lost"])
    history = load(Path(case.folder))
    if case.episode is not None:
        return Found(injection=episodes_of.judge(case.episode, history, case.start_ns))
    rpo, validation = books(history)
    return Found(rpo=rpo, validation=validation)


def elsewhere(case: Case) -> Found:
    """Judge in a process of its own, and wait for it. Raises RuntimeError with its last words."""
    done = subprocess.run(
        [sys.executable, "-m", MODULE], input=msgspec.json.encode(case), capture_output=True, check=False
    )
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        said = words[-1] if words else f"status {done.returncode}"
        raise RuntimeError(f"{case.folder} could not be judged: {said}")
    return msgspec.json.decode(done.stdout, type=Found)


def main() -> None:
    """Run as a process: the case on the standard input, what was found on the standard output."""
    os.nice(_NICE)
    try:
        found = here(msgspec.json.decode(sys.stdin.buffer.read(), type=Case))
    except BlackstartError as error:
        sys.exit(" ".join(error.render().split()))
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
