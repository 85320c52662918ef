"""What a manifest's commands name must be there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blackstart.model.manifest import Manifest, Process
from blackstart.target import commands

if TYPE_CHECKING:
    from pathlib import Path


def manifest(folder: Path, command: tuple[str, ...], **needs: str) -> Manifest:
    """Make a manifest with one process; `serve` lies beside it and can be executed, `notes` cannot."""
    for name, mode in (("serve", 0o755), ("notes", 0o644)):
        (folder / name).touch()
        (folder / name).chmod(mode)
    return Manifest(
        schema=1, name="x", folder=str(folder), processes={"main": Process(command=command)}, needs=needs
    )


@pytest.mark.parametrize(
    "program", ["sh", "/bin/sh", "{here}/serve", "{program.nothing}", "./made-by-prepare"]
)
def test_a_program_that_is_there_or_not_yet_known_is_right(tmp_path: Path, program: str) -> None:
    """On PATH, as a file, beside the manifest; what a variable or a run makes of it is seen then."""
    assert list(commands.problems(manifest(tmp_path, (program,)))) == []


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("pyton3", "no program `pyton3` on PATH"),
        ("/bin/nothing", "is no file that can be executed"),
        ("{here}/notes", "is no file that can be executed"),
        ("./serve", "write {here}/serve"),
    ],
)
def test_a_program_that_is_not_there_is_a_mistake(tmp_path: Path, program: str, told: str) -> None:
    """Told before a trial is started for nothing, with the key."""
    (problem,) = commands.problems(manifest(tmp_path, (program,)))
    assert problem.startswith("processes.main.command: ")
    assert told in problem


def test_a_program_under_needs_is_told_when_it_is_needed(tmp_path: Path) -> None:
    """Its line says how it is installed: the manifest is right on hosts that lack it."""
    assert list(commands.problems(manifest(tmp_path, ("nothing-d",), **{"nothing-d": "apt-get"}))) == []


def test_a_file_beside_the_manifest_that_is_not_there_is_warned_of(tmp_path: Path) -> None:
    """Only arguments that name `{here}` and nothing that is known later."""
    command = ("sh", "{here}/serve", "{here}/kv.py", "{here}/{seed}", "kv.log")
    assert list(commands.absent(manifest(tmp_path, command))) == [
        "processes.main.command: `{here}/kv.py` is not there"
    ]
