"""`approve`, `confirm`, `approvals`: what is said, and what is not even proposed."""

from __future__ import annotations

import datetime as dt
import os
import pwd
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blackstart.cli import approve_work as command
from blackstart.cli.approve_work import Aim
from blackstart.engine import approval as approvals
from blackstart.engine import market
from blackstart.errors import PermitError, ScenarioError
from blackstart.host import timekeeping
from blackstart.model.approval import Signer
from blackstart.scenario import approved
from blackstart.testing.examples import SMALL

LIMITS: dict[str, Any] = {
    "kinds": ("kill",),
    "components": ("server",),
    "links": (),
    "symbols": None,
    "concurrent": 1,
    "markets": ("XNYS",),
    "margin_s": 1800.0,
    "unsynchronised_clock": False,
    "reason": "the yearly drill",
}


def moment(hours: float) -> str:
    """Say a moment so many hours from now."""
    return (dt.datetime.now(tz=dt.UTC) + dt.timedelta(hours=hours)).isoformat()


@pytest.fixture
def target(tmp_path: Path) -> str:
    """Make a manifest for production."""
    folder = tmp_path / "small"
    shutil.copytree(Path(SMALL).parent, folder)
    file = folder / "small.toml"
    file.write_text(file.read_text(encoding="utf-8").replace('"test"', '"production"', 1), encoding="utf-8")
    return str(file)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a place that counts as safe, a calendar, a clock, and an account."""
    monkeypatch.setattr(approvals, "safe", lambda place: place)
    monkeypatch.setattr(market, "calendar", lambda _market, _now: [])
    monkeypatch.setattr(timekeeping, "synchronised", lambda: True)
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: SimpleNamespace(pw_name="ada", pw_shell="/bin/sh"))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() or 1001)
    folder = tmp_path / "approvals"
    folder.mkdir()
    return folder


def propose(target: str, place: Path, *, until: str | None = None, **changes: Any) -> int:
    """Propose to kill the server by scenario R25, unless `changes` say otherwise."""
    aim = {"profile": None, "scenarios": ("R25:server",), "interval_s": None}
    limits = {**LIMITS, **{name: value for name, value in changes.items() if name in LIMITS}}
    aim |= {name: value for name, value in changes.items() if name in aim}
    begin = changes.get("begin")
    end = until or moment(1)
    return command.approve(Aim(target=target, **aim), limits, begin=begin, end=end, place=place)


def test_a_proposal_is_shown_with_its_hash_and_the_next_step(
    target: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes second sees the same content and needs the whole hash; alone it is nothing."""
    assert propose(target, place) == 0
    said = capsys.readouterr().out
    (file,) = place.iterdir()
    if os.getuid() == 0:
        os.chown(file, 1001, 1001)
    sha256 = file.name.partition(".")[0]
    assert f"blackstart confirm {sha256} --target {target} --approvals {place}" in said
    for word in ("scenario R25", "kill; 1 at once", "server", "XNYS, and 30 min", "the yearly drill"):
        assert word in said
    assert command.show(sha256[:6], place) == 0
    assert "approved by ada only, 2 people are needed" in capsys.readouterr().out
    assert command.show("ff" * 40, place) == 1
    with pytest.raises(PermitError, match="nobody proposed that"):
        command.confirm(sha256[:12], target, place)
    with pytest.raises(PermitError, match="has signed this already"):
        command.confirm(sha256, target, place)
    found = approvals.read(place)
    ben = Signer(uid=1002, name="ben", signed_wall_ns=time.time_ns())
    both = [*found[sha256], found[sha256][0]._replace(signer=ben)]
    monkeypatch.setattr(approvals, "sign", lambda *_: file)
    monkeypatch.setattr(approvals, "read", lambda _place: {sha256: both})
    assert command.confirm(sha256, target, place) == 0
    assert f"approved by ada and ben: {sha256}" in capsys.readouterr().out
    assert command.show("", place) == 0
    assert "valid now outside of market hours" in capsys.readouterr().out


def test_the_second_person_confirms_for_the_same_manifest(target: str, place: Path) -> None:
    """One that was changed meanwhile, or another copy, is not what was proposed."""
    propose(target, place)
    (file,) = place.iterdir()
    if os.getuid() == 0:
        os.chown(file, 1001, 1001)
    with Path(target).open("a", encoding="utf-8") as manifest:
        manifest.write("\n[limits]\nconcurrent_faults = 9\n")
    with pytest.raises(PermitError, match="not for this manifest"):
        command.confirm(file.name.partition(".")[0], target, place)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"until": "2026-11-28T06:00"}, "does not say its time zone"),
        ({"until": "soon"}, "is no moment"),
        ({"begin": moment(-3), "until": moment(-2)}, "expired already"),
        ({"begin": moment(1), "until": moment(26)}, "24 h allowed"),
        ({"begin": moment(24 * 8), "until": moment(24 * 8 + 1)}, "begins in more than 7 days"),
        ({"reason": ""}, "gives no reason"),
        ({"components": ("nobody",)}, "the manifest has no nobody"),
        ({"symbols": ("ALFA",)}, "the manifest has no ALFA"),
        ({"kinds": ("pause",)}, "would not allow what it names: fault `kill` is not approved"),
        ({"components": ("mirror",)}, "would not allow what it names: component `server`"),
        ({"scenarios": ()}, "say what is to be approved"),
        ({"profile": "production"}, "say what is to be approved"),
        ({"profile": "staging", "scenarios": ()}, "is for sim, dev, test, staging"),
    ],
)
def test_what_would_be_refused_is_not_proposed(
    target: str, place: Path, changes: dict[str, Any], why: str
) -> None:
    """Nobody signs what could never be used: it is said at once, with a way out, and nothing is written."""
    with pytest.raises((ScenarioError, PermitError), match=why) as refused:
        propose(target, place, **changes)
    assert refused.value.hint
    assert list(place.iterdir()) == []


def test_a_clock_that_nothing_keeps_must_be_known(
    target: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Market hours by such a clock are the responsibility of whoever signs."""
    monkeypatch.setattr(timekeeping, "synchronised", lambda: False)
    with pytest.raises(PermitError, match="--unsynchronised-clock"):
        propose(target, place)
    assert propose(target, place, unsynchronised_clock=True) == 0


def test_the_shipped_profile_can_be_proposed(target: str, place: Path) -> None:
    """For the small system, whose group `hot` is the server: one fault, three minutes apart."""
    assert propose(target, place, profile="production", scenarios=()) == 0
    (file,) = place.iterdir()
    if os.getuid() == 0:
        os.chown(file, 1001, 1001)
    ((found,),) = approvals.read(place).values()
    assert found.approval is not None
    assert (list(found.approval.what), found.approval.interval_s) == (["profile production"], 180.0)


def test_elsewhere_nothing_needs_an_approval(place: Path) -> None:
    """A target for tests is broken without asking anybody."""
    with pytest.raises(ScenarioError, match="needs no approval"):
        propose(SMALL, place)


def test_symbols_are_named_or_all_on_purpose() -> None:
    """That every symbol may be disturbed is not what somebody forgot to limit."""
    assert command.symbols(["B", "A", "B"], everything=False) == ("A", "B")
    assert command.symbols(None, everything=True) is None
    for names, everything in ((None, False), (["A"], True)):
        with pytest.raises(ScenarioError, match="which symbols"):
            command.symbols(names, everything=everything)


def test_a_moment_is_read_with_its_offset() -> None:
    """Of all time zones the one that was said."""
    in_zurich, in_london = "2026-11-28T06:00+01:00", "2026-11-28T05:00Z"
    assert command.wall_ns(in_zurich, "--from") == command.wall_ns(in_london, "--from")
    assert command.wall_ns("1970-01-01T00:01Z", "--from") == 60 * approved.NS
