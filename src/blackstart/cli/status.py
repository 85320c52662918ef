"""Exit statuses: 0 pass, 1 fail, 2 unknown or broken off, 3 not permitted, 64 usage, 70 a bug of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.model.verdict import Verdict, merge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.model.outcome import Run

USAGE = 64
BUG = 70
INTERRUPTED = 130

_OF = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.UNKNOWN: 2}


def of_verdicts(verdicts: Iterable[Verdict]) -> int:
    """Return the status of the worst verdict; of none at all 2, because then nobody looked."""
    return _OF[merge(verdicts)]


def of_run(run: Run) -> int:
    """Return the status of a run. One that was broken off did not look at everything: it is never 0."""
    worst = merge(trial.verdict for trial in run.trials)
    if run.interrupted and worst is Verdict.PASS:
        worst = Verdict.UNKNOWN
    return _OF[worst]
