"""What the README says about the scenarios is what they are."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from blackstart.model.outcome import Rto
from blackstart.report.rows import rto_text
from blackstart.report.wording import milliseconds
from blackstart.scenario.load import packaged

ROOT = Path(__file__).parents[3]


def test_the_readme_lists_every_standard_scenario_in_order() -> None:
    """Id, title and allowed RTO of each standard scenario stand in the table, in the order of the suite."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (R\d+[a-z]?(?:-\w+)?) ([^|]+) \|[^|]+\| (\d+) (s|min) \|$", text, re.MULTILINE)
    unit = {"s": 1_000, "min": 60_000}
    told = [(one, title, int(number) * unit[what]) for one, title, number, what in rows]
    assert told == [(one.id, one.title, one.objectives.rto_ms) for one in packaged() if one.standard]


def test_make_clean_removes_the_runs() -> None:
    """Runs are big: `make clean` takes them, too."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nclean:\n")[2]
    assert "runs" in recipe.split()


def test_the_samples_recovery_times_read_like_the_reports() -> None:
    """The tool that writes the README's table has a word for each kind of recovery time that a report has."""
    recovery = runpy.run_path(str(ROOT / "tools" / "readme_sample.py"))["recovery"]
    kinds = (
        Rto(total_ns=59_700_000),
        Rto(at_most_ns=1_744_200_000),
        Rto(interrupted=False),
        Rto(censored_ns=30_500_000_000),
    )
    for rto in kinds:
        document = {
            "censored": rto.censored_ns is not None,
            "censored_ms": milliseconds(rto.censored_ns),
            "total_ms": milliseconds(rto.total_ns),
            "at_most_ms": milliseconds(rto.at_most_ns),
            "interrupted": rto.interrupted,
        }
        assert recovery(document) == rto_text(rto)
