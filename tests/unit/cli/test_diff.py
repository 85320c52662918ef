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
    assert head == "3 differences, 1 could not be compared"
    assert lines == [
        "unknown: target.orders: not in the first snapshot",
        "target.positions: 0 gone, 0 new, 1 changed",
        "  A: 1 \u2192 2",
        "of these, 2 in what moves while a system lives:",
        "target.infrastructure: 0 gone, 0 new, 1 changed",
        "  A: 1 \u2192 2",
        "target.market_data: 0 gone, 0 new, 1 changed",
        "  A: 1 \u2192 2",
    ]


def test_many_differences_are_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A document that changed a lot takes a few lines, in words and not as Python; --all shows every one."""
    entries = [{"symbol": f"S{n}", "quantity": n, "flags": [True, {"a": None}]} for n in range(20)]
    first, second = (write(tmp_path / f"{k}.json", {"positions": entries[k : k + 15]}) for k in (0, 5))
    assert diff(first, second, as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "10 differences, 0 could not be compared",
        "target.positions: 5 gone, 5 new, 0 changed",
        "  positions/S0: gone (was symbol=S0 quantity=0 flags=[true, (a=none)])",
    ]
    assert len(lines) == 10
    assert lines[5] == "  and 2 more gone: --all"
    assert diff(first, second, as_json=False, everything=True) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert "--all" not in lines[-1]


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
