"""What the README says about the scenarios is what they are."""

from __future__ import annotations

import re
from pathlib import Path

from blackstart.scenario.load import packaged

ROOT = Path(__file__).parents[3]


def test_the_readme_lists_every_standard_scenario_in_order() -> None:
    """Id, title and allowed RTO of each standard scenario stand in the table, in the order of the suite."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (R\d+[a-z]?) ([^|]+) \|[^|]+\| (\d+) (s|min) \|$", text, re.MULTILINE)
    unit = {"s": 1_000, "min": 60_000}
    told = [(one, title, int(number) * unit[what]) for one, title, number, what in rows]
    assert told == [(one.id, one.title, one.objectives.rto_ms) for one in packaged() if one.standard]


def test_make_clean_removes_the_runs() -> None:
    """Runs are big: `make clean` takes them, too."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nclean:\n")[2]
    assert "runs" in recipe.split()
