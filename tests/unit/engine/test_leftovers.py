"""Which noted runs are forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.engine import leftovers, openruns

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_run_that_is_out_of_sight_stays_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disk is not mounted here, or another container has it: it may owe something, or live."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = tmp_path / "disk" / "runs" / "R1"
    openruns.note(str(run))
    leftovers.clear(tmp_path / "elsewhere")
    assert str(run) in openruns.noted()
    run.parent.mkdir(parents=True)
    leftovers.clear(tmp_path / "elsewhere")
    assert str(run) not in openruns.noted(), "its neighbours can be seen, and it is gone"
