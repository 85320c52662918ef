"""`bench/run.py` runs every program of `bench/`, and can read what each says."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PARTS = {"matrix_trial": "one trial of guardian_matrix", "run": "the one that runs them"}
"""What has a `main` and is no program of its own."""


@pytest.fixture(scope="module")
def run() -> Any:
    """Import it as `python -m bench.run` does."""
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module("bench.run")
    finally:
        sys.path.remove(str(ROOT))


def test_no_program_is_left_out(run: Any) -> None:
    """Each file of `bench/` that can be called is among those that are run, or a part of one."""
    callable_ones = {
        path.stem
        for path in (ROOT / "bench").glob("*.py")
        if "\ndef main(" in path.read_text(encoding="utf-8")
    }
    commands = [" ".join(command) for command in run.programs().values()]
    run_ones = {
        name
        for name in callable_ones
        if any(f"/{name}.py" in one or f"bench.{name} " in one for one in commands)
    }
    assert callable_ones - run_ones == set(PARTS)


def test_every_program_has_a_reader_and_says_so_when_it_failed(run: Any) -> None:
    """A program whose result is missing a figure, or that gave none, is no good figure."""
    assert set(run.READERS) == set(run.programs())
    for name in run.programs():
        (failed,) = run.figures(name, {"error": "no such machine"})
        assert not failed.good
        (empty,) = run.figures(name, {"result": {}, "took_s": 1.0})
        assert (empty.good, empty.row) == (False, name)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("halt", {"good": True, "left": []}, {"good": False, "left": ["x"]}),
        ("faults", {"slow": [], "mistakes": {}}, {"slow": ["kill"], "mistakes": {}}),
        ("suite_soak", {"verdicts": {"PASS": 3}}, {"verdicts": {"PASS": 2, "FAIL": 1}}),
        ("chaos_soak", {"bad": []}, {"bad": ["1 events lost"]}),
        ("remote", {"outside": 0}, {"outside": 1}),
        ("guardian_matrix", {"good": True, "left": []}, {"good": False, "left": ["x"]}),
    ],
)
def test_a_missed_goal_is_told(run: Any, name: str, good: dict[str, Any], bad: dict[str, Any]) -> None:
    """The same figures are good or not by what the program found."""
    spread = {"median": 1.0, "max": 2.0, "slowest": 2.0, "n": 1}
    rest: dict[str, Any] = {
        "reverted_ms": spread,
        "reverted_since_pull_ms": spread,
        "command_ms": spread,
        "inject_ms": spread,
        "revert_ms": spread if name != "guardian_matrix" else {"process and network": spread},
        "measured": 1,
        "of": 1,
        "broken_runs": 0,
        "faults": 3,
        "lost": 0,
        "death_known_ms": spread,
        "runs_again_ms": spread,
        "cells": 9,
        "kinds": 3,
        "left_on_the_host": [],
    }
    for told, expected in ((good, True), (bad, False)):
        (figure,) = run.figures(name, {"result": {**rest, **told}, "took_s": 1.0})
        assert figure.good is expected, figure
