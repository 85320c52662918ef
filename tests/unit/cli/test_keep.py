"""Several targets up at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blackstart.cli import keep
from blackstart.cli.keeper import Up
from blackstart.errors import BlackstartError, TargetError

if TYPE_CHECKING:
    from pathlib import Path


def one(folder: Path, name: str) -> Up:
    """Return what a keeper announces."""
    path = str(folder / name)
    return Up(pid=1, target="redis", title="Redis", folder=path, socket=path, components=())


def test_up_twice_is_refused_unless_wished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second copy of the same target is seldom meant: it is refused with the first one's folder."""
    begun: list[str] = []
    monkeypatch.setattr(keep, "running", lambda _out: [one(tmp_path, "first")])
    monkeypatch.setattr(keep, "_spawn", lambda _folder, target, _seed: begun.append(target))
    monkeypatch.setattr(keep, "_await_up", lambda *_: None)
    with pytest.raises(TargetError, match="redis is up already") as caught:
        keep.up("redis", out=tmp_path, seed=1)
    assert "first" in caught.value.where
    assert begun == []
    assert keep.up("redis", out=tmp_path, seed=1, again=True) == 0
    assert keep.up("postgresql", out=tmp_path, seed=1) == 0
    assert len(begun) == 2


def test_down_asks_which_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name and without --all nothing is stopped, and all are listed."""
    ups, stopped = [one(tmp_path, "a"), one(tmp_path, "b")], []
    monkeypatch.setattr(keep, "running", lambda _out: ups)

    def stop(up: Up) -> int:
        stopped.append(up)
        return 0

    monkeypatch.setattr(keep, "_stop", stop)
    with pytest.raises(TargetError, match="2 targets are up") as caught:
        keep.down(None, out=tmp_path)
    assert all(up.folder in caught.value.hint for up in ups)
    assert stopped == []
    assert keep.down(None, out=tmp_path, everything=True) == 0
    assert stopped == ups
    del ups[1]
    assert keep.down(None, out=tmp_path) == 0


def test_a_snapshot_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that does not exist is an error of the user's, with the file's name, and no bug."""
    monkeypatch.setattr(keep, "_choose", lambda *_: [one(tmp_path, "a")])
    monkeypatch.setattr(keep, "_ask", lambda *_: b'{"errors": {}}')
    with pytest.raises(BlackstartError, match=r"nodir/x\.json: cannot be written") as caught:
        keep.snapshot(tmp_path / "nodir" / "x.json", folder=None, out=tmp_path)
    assert caught.value.exit_status == 64
    assert keep.snapshot(tmp_path / "x.json", folder=None, out=tmp_path) == 0
