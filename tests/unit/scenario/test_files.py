"""Scenario files of the user's own: what replays them, and what is wrong with them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from blackstart.cli.run import _chosen
from blackstart.errors import ScenarioError
from blackstart.scenario.load import parse
from blackstart.scenario.plan import plan
from blackstart.target import manifest as manifests

if TYPE_CHECKING:
    from pathlib import Path

OWN = """
id = "X1"
title = "t"
requirement = "R1"
{more}
[fault]
kind = "kill"
components = ["@each"]
[objectives]
rto_ms = 100
"""


def own(folder: Path, name: str = "my own.toml") -> Path:
    """Write a scenario file, with a space in its name."""
    path = folder / name
    path.write_text(OWN.format(more=""), encoding="utf-8")
    return path


@pytest.mark.parametrize("whole_folder", [False, True])
def test_the_replay_line_of_a_file_works(tmp_path: Path, whole_folder: bool) -> None:
    """It names the file, from anywhere and quoted; given back, it plans the very same trial."""
    path = own(tmp_path)
    redis = manifests.load("redis")
    ((scenario, component, source),) = _chosen([str(tmp_path if whole_folder else path)])
    (trial,) = plan(scenario, redis, seed=3, only=component, source=source, target="my target.toml")
    words = shlex.split(trial.replay)
    assert words == [
        *("blackstart", "run", f"{path}:server", "--seed", "3", "--target", "my target.toml"),
    ]
    ((again, one, source),) = _chosen([words[2]])
    assert plan(again, redis, seed=3, only=one, source=source, target="my target.toml") == [trial]


def test_a_relative_file_is_replayed_by_its_full_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report is read elsewhere than the run was started."""
    monkeypatch.chdir(tmp_path)
    own(tmp_path, "mine.toml")
    assert [source for _, _, source in _chosen(["mine.toml", "R1"])] == [str(tmp_path / "mine.toml"), ""]


def test_a_wrong_value_gives_the_allowed_ones_and_what_was_meant() -> None:
    """An enum error of a scenario names the key, what may stand there, and the nearest."""
    with pytest.raises(ScenarioError) as caught:
        parse(OWN.format(more='recovery = "colt"'), "x.toml")
    assert caught.value.where == "x.toml: recovery"
    assert "did you mean 'cold'? allowed: 'hot', 'warm', 'cold'" in caught.value.hint
