"""What the first results of a run list: a trial whose folder has gone is not forgotten."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blackstart.errors import HistoryError
from blackstart.history.chain import FILE_NAME as HISTORY
from blackstart.model.outcome import LeftOut, Rpo, Rto, Trial
from blackstart.model.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Collection

FILE_NAME = "results.json"


class ListedTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A trial as `results.json` names it."""

    id: str
    scenario: str
    title: str
    requirement: str
    target: str
    seed: int
    replay: str
    folder: str
    reasons: tuple[str, ...] = ()


class ListedRun(msgspec.Struct, frozen=True, kw_only=True):
    """The part of `results.json` that says what there must be."""

    started_wall_ns: int
    interrupted: bool
    trials: tuple[ListedTrial, ...]
    left_out: tuple[LeftOut, ...] = ()


def read(folder: Path) -> ListedRun | None:
    """Read what a run's folder should hold; None for a trial's folder, and (said) without `results.json`.

    Raises HistoryError when the file is damaged.
    """
    if (folder / HISTORY).is_file():
        return None
    path = folder / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=ListedRun)
    except FileNotFoundError:
        print(f"{path} is not there: whether trials are missing cannot be told", file=sys.stderr)
        return None
    except (OSError, msgspec.DecodeError) as error:
        hint = "recheck the trials' folders one by one"
        raise HistoryError(f"cannot be read: {error}", where=str(path), hint=hint) from error


def missing(run: ListedRun | None, found: Collection[str]) -> list[Trial]:
    """Return an UNKNOWN for each trial that is listed and has no history among the folders `found`."""
    listed = () if run is None else run.trials
    started_ns = 0 if run is None else run.started_wall_ns
    return [_missing(one, started_ns) for one in listed if Path(one.folder).name not in found]


def _missing(trial: ListedTrial, started_ns: int) -> Trial:
    return Trial(
        id=trial.id,
        scenario=trial.scenario,
        title=trial.title,
        requirement=trial.requirement,
        target=trial.target,
        verdict=Verdict.UNKNOWN,
        reasons=(f"trial-missing: no history in {trial.folder}", *trial.reasons),
        seed=trial.seed,
        replay=trial.replay,
        fault=None,
        rto=Rto(),
        rpo=Rpo(),
        validation={},
        checklist=(),
        started_wall_ns=started_ns,
        folder=trial.folder,
    )
