"""What a schedule came to: the worst of its sessions, also when it is stopped between two of them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from blackstart.chaos import background, log, profiles, schedule
from blackstart.chaos.calendar import Window
from blackstart.chaos.model import Opening, Orders, Windows
from blackstart.cli import chaos_work

if TYPE_CHECKING:
    from pathlib import Path

WINDOW = Window(begin_ns=0, end_ns=10**18)
ALWAYS = Windows(open=(Opening(begin="00:00", end="00:00"),))


def orders() -> Orders:
    """Make orders of a profile that has windows."""
    profile = msgspec.structs.replace(profiles.load("development"), windows=ALWAYS)
    return Orders(target="paperfirm", profile=profile, seed=7)


def sessions(folder: Path, patch: pytest.MonkeyPatch, *statuses: int) -> schedule._Keeper:
    """Let sessions end with these statuses, one after the other."""
    keeper = schedule._Keeper(orders(), (), folder)
    for number, status in enumerate(statuses, 1):
        patch.setattr(background, "RUN", (sys.executable, "-c", f"raise SystemExit({status})"))
        keeper.session(number, WINDOW)
    return keeper


@pytest.mark.parametrize(
    ("statuses", "status", "worst"),
    [
        ((0, 0), 0, ""),
        ((0, 1, 0), 1, "0002"),
        ((2, 1, 2), 1, "0002"),
        ((2, 0, 2), 2, "0001"),
        ((3, 0), 2, "0001"),
        ((70, 0), 2, "0001"),
    ],
)
def test_a_schedule_ends_with_the_status_of_its_worst_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statuses: tuple[int, ...], status: int, worst: str
) -> None:
    """FAIL before what nobody can tell; who asks how it stands hears where that lies."""
    keeper = sessions(tmp_path, monkeypatch, *statuses)
    keeper.waiting("tomorrow")
    assert keeper.status == status
    found = background.read(tmp_path)
    assert found is not None
    assert found.worst.rsplit("/", 1)[-1][:4] == worst


@pytest.mark.parametrize(("state", "code"), [("waiting", 1), ("session", 1)])
def test_to_stop_a_schedule_tells_its_worst_session(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    state: str,
    code: int,
) -> None:
    """Also when it waits for its next window, and when the newest session passed."""
    for name, verdict in (("bad", "FAIL"), ("good", "PASS")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "chaos.json").write_text(json.dumps({"verdict": verdict}), encoding="utf-8")
    status = msgspec.structs.replace(
        log.begun(orders(), tmp_path, 1), state=state, next_window="tomorrow", session=str(tmp_path / "good")
    )
    kept = msgspec.structs.replace(status, worst=str(tmp_path / "bad"))
    monkeypatch.setattr(background, "running", lambda _out: [status])
    monkeypatch.setattr(background, "stop", lambda _one: log.write(tmp_path / log.STATUS, kept))
    assert chaos_work.stop(None, out=tmp_path) == code
    said = capsys.readouterr().out
    assert f"FAIL: {tmp_path / 'bad'}" in said
    assert ("no session was under way" in said) is (state == "waiting")
    monkeypatch.setattr(background, "stop", lambda _one: log.write(tmp_path / log.STATUS, status))
    assert chaos_work.stop(None, out=tmp_path) == 0


def test_a_halted_schedule_is_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kill switch was pulled: the session ended with 2, and so does the schedule."""
    monkeypatch.setattr(schedule, "keep", lambda _windows, session, **_: session(1, WINDOW))
    monkeypatch.setattr(schedule, "_ending", lambda *_: schedule.HALTED)
    monkeypatch.setattr(background, "RUN", (sys.executable, "-c", "raise SystemExit(2)"))
    assert schedule.run(orders(), (), tmp_path) == 2
