"""`blackstart recheck`: today's checkers on stored histories.

The first results stay as they are; the new ones lie in `recheck/`. A run without first results was broken off
before it wrote them: which trials are missing is not known, and its status is never 0.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import blackstart
from blackstart.chaos import report as chaos
from blackstart.check.analyse import analyse
from blackstart.cli import host, listed, status
from blackstart.cli.run import REPORTERS
from blackstart.errors import HistoryError
from blackstart.history.chain import FILE_NAME
from blackstart.history.view import load
from blackstart.model.outcome import Run
from blackstart.report import html, terminal
from blackstart.report.results_json import encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackstart.model.outcome import Trial


def histories(folder: Path) -> list[Path]:
    """Find the trials in `folder`, which is one or holds some. Raises HistoryError when there is none.

    A session of chaos is none: its histories are stretches of one long trial, judged by rules of their own.
    """
    if (folder / chaos.JSON).is_file():
        hint = f"its result is in {chaos.JSON}; `blackstart chaos replay` breaks the same again"
        raise HistoryError("a session of chaos cannot be rechecked", where=str(folder), hint=hint)
    found = (
        [folder]
        if (folder / FILE_NAME).is_file()
        else [p.parent for p in sorted(folder.glob(f"*/{FILE_NAME}"))]
    )
    if not found:
        hint = "name a trial's folder (runs/RUN/TRIAL) or a run's (runs/RUN, runs/latest)"
        raise HistoryError("no history here", where=str(folder), hint=hint)
    return found


def recheck(folders: Sequence[Path], *, as_json: bool) -> int:
    """Analyse every history again, write reports beside them and print the table."""
    console = terminal.console(sys.stderr if as_json else sys.stdout)
    statuses = []
    for folder in folders:
        run = _run([again(place) for place in histories(folder)], folder)
        place = folder / "recheck"
        place.mkdir(exist_ok=True)
        for reporter in REPORTERS:
            reporter.render(run, place)
        terminal.print_run(run, console, report=place / html.FILE_NAME)
        if as_json:
            sys.stdout.buffer.write(encode(run))
        statuses.append(status.of_run(run))
    return 1 if 1 in statuses else max(statuses)


def again(place: Path) -> Trial:
    """Analyse one history; what was torn off behind its end is told, though it changes nothing."""
    history = load(place)
    trial = analyse(history)
    if history.ended is None or not history.torn_bytes:
        return trial
    torn = f"{history.torn_bytes} bytes behind the end of the history are torn"
    return msgspec.structs.replace(trial, note=f"{trial.note}; {torn}" if trial.note else torn)


def _run(trials: list[Trial], folder: Path) -> Run:
    first_run = listed.read(folder)
    whole = first_run is not None or (folder / FILE_NAME).is_file()
    trials += listed.missing(first_run, {Path(trial.folder).name for trial in trials})
    trials.sort(key=lambda trial: trial.started_wall_ns)
    first = trials[0]
    last_ns = max(trial.started_wall_ns + trial.duration_ns for trial in trials)
    return Run(
        id=folder.resolve().name,
        version=blackstart.__version__,
        target=first.target,
        seed=first.seed,
        folder=str(folder.resolve()),
        started_wall_ns=first.started_wall_ns,
        duration_ns=last_ns - first.started_wall_ns,
        trials=tuple(trials),
        interrupted=not whole or (first_run is not None and first_run.interrupted),
        environment={"rechecked on": host.facts(folder)},
        left_out=() if first_run is None else first_run.left_out,
    )
