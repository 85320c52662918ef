"""The reference names every group that a standard scenario asks for."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from blackstart.scenario import load as scenarios

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "manifest.md"


def test_the_table_of_groups_is_what_the_scenarios_ask_for() -> None:
    """Group by group the same scenarios, and those that want the component `primary`."""
    asked: dict[str, set[str]] = defaultdict(set)
    for scenario in scenarios.packaged():
        for step in (scenario.fault, *scenario.then):
            for name in step.components or ():
                asked[name.removeprefix("@")].add(scenario.id)
    section = REFERENCE.read_text(encoding="utf-8").partition("## `[groups]`")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE)
    told = {name: set(ids.split()) for name, ids in rows}
    (primary,) = re.findall(r"^(R.*) ask for no group", section, re.MULTILINE)
    assert {**told, "primary": set(primary.split())} == asked
