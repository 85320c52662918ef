from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.cli.diff import SnapshotError, diff, read

if TYPE_CHECKING:
    from pathlib import Path

POSITIONS = {"positions": [{"symbol": "ALFA", "quantity": 300}]}


def write(path: Path, positions: Any, **errors: str) -> Path:
    """Write a snapshot with one document on the target's side."""
    document = {"schema": 1, "target": {"positions": positions}, "oracle": {}, "errors": errors}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_equal_snapshots_have_no_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same state gives status 0, and says so."""
    files = [write(tmp_path / name, POSITIONS) for name in ("a.json", "b.json")]
    assert diff(*files, as_json=False) == 0
    assert capsys.readouterr().out == "no difference\n"


def test_a_changed_position_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A position that changed is a difference by its symbol, with both values."""
    before = write(tmp_path / "a.json", POSITIONS)
    after = write(tmp_path / "b.json", {"positions": [{"symbol": "ALFA", "quantity": 500}]})
    assert diff(before, after, as_json=False) == 1
    said = capsys.readouterr().out
    assert all(part in said for part in ("ALFA", "300", "500"))


def test_the_summary_comes_first_and_what_moves_by_itself_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A difference is called changed, not FAIL; quotes and processor time do not stand between positions."""
    files = []
    for number in (1, 2):
        places = ("infrastructure", "market_data", "positions")
        target = {name: {"A": number} for name in places}
        document = {"target": target, "oracle": {}, "errors": {"target.orders": "503"}}
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(document), encoding="utf-8")
    assert diff(*files, as_json=False) == 1
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "3 changed, 1 could not be compared"
    assert [line.split()[0] for line in lines] == ["unknown", "changed", "of", "changed", "changed"]
    assert "positions" in lines[1]
    assert "infrastructure" in lines[3]
    assert "market_data" in lines[4]


def test_json_uses_the_words_of_the_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A change is `changed` there, too: no tool takes it for a failed check."""
    before = write(tmp_path / "a.json", POSITIONS)
    after = write(tmp_path / "b.json", {"positions": [{"symbol": "ALFA", "quantity": 500}]})
    assert diff(before, after, as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["result"] == "changed"
    assert [(one["kind"], one["moves"]) for one in found["differences"]] == [("changed", False)]
    assert diff(before, before, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"result": "same", "differences": []}


def test_what_could_not_be_read_is_unknown(tmp_path: Path) -> None:
    """A document that one side could not read is not equal, it is unknown."""
    before = write(tmp_path / "a.json", POSITIONS)
    after = write(tmp_path / "b.json", POSITIONS, **{"target.positions": "503"})
    assert read(after)["target.positions"] is None
    assert diff(before, after, as_json=True) == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"target": {}}', "{"])
def test_a_file_that_is_no_snapshot_is_refused(tmp_path: Path, text: str) -> None:
    """Some other file is refused with its name, not compared."""
    file = tmp_path / "x.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SnapshotError, match=r"x\.json"):
        read(file)
