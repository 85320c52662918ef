from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from blackstart.cli import status
from blackstart.model.verdict import Verdict
from blackstart.testing.samples import sample_run, sample_trial

if TYPE_CHECKING:
    from blackstart.model.outcome import Run


def run_of(*verdicts: Verdict) -> Run:
    """Return a run whose trials ended like this."""
    trials = tuple(sample_trial(f"R{n}", "", verdict=verdict) for n, verdict in enumerate(verdicts))
    return msgspec.structs.replace(sample_run(), trials=trials)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((Verdict.PASS, Verdict.PASS), 0),
        ((Verdict.PASS, Verdict.FAIL), 1),
        ((Verdict.UNKNOWN, Verdict.FAIL), 1),
        ((Verdict.PASS, Verdict.UNKNOWN), 2),
        ((), 2),
    ],
)
def test_the_worst_verdict_decides(verdicts: tuple[Verdict, ...], expected: int) -> None:
    """FAIL is 1, else UNKNOWN is 2, else 0; a run without trials saw nothing and is never 0."""
    assert status.of_run(run_of(*verdicts)) == expected


def test_an_interrupted_run_is_never_green() -> None:
    """What was broken off did not look at everything, even when all it looked at passed."""
    assert status.of_run(msgspec.structs.replace(run_of(Verdict.PASS), interrupted=True)) == 2
    assert status.of_run(msgspec.structs.replace(run_of(Verdict.FAIL), interrupted=True)) == 1
