"""Whole sessions with a small real target: to their end, replayed, in the background, halted, killed."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import psutil
import pytest

from blackstart.chaos import log
from blackstart.chaos.judge import Case, elsewhere, here
from blackstart.chaos.model import Episode
from blackstart.engine import journal
from blackstart.history.view import load
from blackstart.host import procs, seccomp
from blackstart.model.record import Witnessed
from blackstart.testing.examples import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
QUICK = HERE / "quick.toml"


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep an index of open runs of our own: `halt` must not reach anybody else's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def command(*words: str) -> tuple[str, ...]:
    """Return a command line of `blackstart chaos`."""
    return (sys.executable, "-m", "blackstart.cli.main", "chaos", *words)


def run(*words: str, limit_s: float = 90) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(command(*words), capture_output=True, text=True, check=False, timeout=limit_s)


def session(runs: Path, *more: str) -> tuple[str, ...]:
    """Return the words of a session on the small target."""
    return ("run", "--target", str(SMALL), "--profile", str(QUICK), "--out", str(runs), *more)


def result(folder: Path) -> dict[str, Any]:
    """Read what a session came to."""
    found: dict[str, Any] = json.loads((folder / "chaos.json").read_bytes())
    return found


def until(test: Callable[[], bool], limit_s: float = 40.0) -> None:
    """Look until something holds."""
    end = time.monotonic() + limit_s
    while not test():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def left(folder: Path) -> list[int]:
    """Find processes of a run that live on."""
    found = []
    for one in psutil.process_iter():
        try:
            if str(folder) in one.environ().get(procs.MARKER, ""):
                found.append(one.pid)
        except psutil.Error:
            continue
    return found


def test_a_session_to_its_end_and_the_same_again(tmp_path: Path) -> None:
    """Every fault passes, nothing is lost or left; the replay breaks the same at the same moments."""
    done = run(*session(tmp_path, "--max-faults", "3"))
    folder = (tmp_path / "latest").resolve()
    assert done.returncode == 0, done.stdout + done.stderr
    found = result(folder)
    assert (found["verdict"], found["counts"]["pass"], found["false_alarms"]) == ("PASS", 3, 0)
    assert found["summary"]["rpo"]["events"] == 0
    assert found["summary"]["rpo"]["acknowledged"] > 100
    unseen = [one["kind"] for one in found["left_out"]]
    assert [one for one in unseen if not one.startswith("stop ")] == ["no_such_fault"]
    assert "stop lost_events" in unseen, "its streams are acknowledged by the load alone"
    cases = list(ET.parse(folder / "junit.xml").iter("testcase"))
    assert len(cases) == 4
    for one in found["injections"]:
        history = load(Path(one["folder"]))
        assert all(seen.witness.bit for seen in history.all(Witnessed))
    assert journal.owed(str(folder)) == []
    assert left(folder) == []
    again = run("replay", str(folder), "--out", str(tmp_path))
    assert again.returncode == 0, again.stdout + again.stderr
    repeated = result((tmp_path / "latest").resolve())
    assert [one["name"] for one in repeated["injections"]] == [one["name"] for one in found["injections"]]
    pairs = zip(repeated["injections"], found["injections"], strict=True)
    assert all(abs(mine["at_s"] - theirs["at_s"]) < 1.0 for mine, theirs in pairs)


def test_in_the_background_until_it_is_stopped(tmp_path: Path) -> None:
    """Started, seen in the status, stopped in order: audited, reported, and nothing left."""
    words = session(tmp_path)[1:]
    started = run("start", *words)
    assert started.returncode == 0, started.stderr
    (status,) = json.loads(run("status", "--out", str(tmp_path), "--json").stdout)
    assert (status["state"], status["target"], status["profile"]) == ("running", "small", "quick")
    folder = Path(status["folder"])
    until((folder / "injections.jsonl").is_file)
    assert "quick on small" in run("status", "--out", str(tmp_path)).stdout
    stopped = run("stop", "--out", str(tmp_path))
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr + (folder / "chaos.log").read_text()
    found = result(folder)
    assert found["summary"]["ending"] == "interrupted"
    assert found["summary"]["rpo"]["events"] == 0
    assert json.loads(run("status", "--out", str(tmp_path), "--json").stdout) == []
    assert left(folder) == []


def test_the_kill_switch_takes_everything_back(tmp_path: Path) -> None:
    """Halted: the session ends as that with status 2, owes nothing and leaves nothing."""
    process = subprocess.Popen(command(*session(tmp_path, "--for", "10m")), stdout=subprocess.DEVNULL)
    folder = tmp_path / "latest"
    until((folder / "injections.jsonl").is_file)
    halted = subprocess.run(
        (sys.executable, "-m", "blackstart.cli.main", "halt", "--out", str(tmp_path)), check=False, timeout=60
    )
    assert halted.returncode == 0
    assert process.wait(60) == 2
    assert result(folder)["summary"]["ending"] == "halted"
    assert journal.owed(str(folder)) == []
    assert left(folder.resolve()) == []


def test_killed_with_sigkill_the_guardian_takes_everything_back(tmp_path: Path) -> None:
    """SIGKILL of the command in the middle of it all: everything is gone, and it can be replayed."""
    process = subprocess.Popen(command(*session(tmp_path, "--for", "10m")), stdout=subprocess.DEVNULL)
    folder = tmp_path / "latest"
    until((folder / "injections.jsonl").is_file)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    until(lambda: left(folder.resolve()) == [], 20)
    until(lambda: journal.owed(str(folder)) == [], 20)
    assert json.loads((folder / "orders.json").read_bytes())["seed"] == 7
    assert log.load_recording(folder.resolve()).replayed


def test_ctrl_c_ends_in_order(tmp_path: Path) -> None:
    """Interrupted before its time: everything is taken back and audited, and the answer is 2."""
    process = subprocess.Popen(command(*session(tmp_path, "--for", "10m")), stdout=subprocess.DEVNULL)
    folder = tmp_path / "latest"
    until((folder / "injections.jsonl").is_file)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 2
    found = result(folder)
    assert found["summary"]["ending"] == "interrupted"
    assert found["summary"]["rpo"]["events"] == 0
    assert left(folder.resolve()) == []


def test_operators_hear_of_an_alert(tmp_path: Path) -> None:
    """The command gets each alert as JSON; a minimum that nobody can reach stops the session as failed."""
    profile = tmp_path / "strict.toml"
    stop = "[stop]\nminimum_rate_per_s = 1e6\nrate_window_s = 1.0\n"
    profile.write_text(QUICK.read_text(encoding="utf-8").replace("[[fault]]", stop + "[[fault]]", 1))
    heard = tmp_path / "heard"
    words = ("--profile", str(profile), "--for", "1m", "--on-alert", f"tee {heard}")
    done = run(*session(tmp_path, *words))
    assert done.returncode == 1, done.stdout + done.stderr
    alert = json.loads(heard.read_bytes())
    assert (alert["code"], alert["stops"]) == ("rate-low", True)
    found = result(tmp_path / "latest")
    assert found["summary"]["ending"] == "stopped"
    assert found["summary"]["rpo"]["events"] == 0


def test_production_is_refused(tmp_path: Path) -> None:
    """Without an approval there is no chaos in production, and nothing is started: status 3."""
    target = tmp_path / "small"
    shutil.copytree(Path(SMALL).parent, target)
    manifest = target / "small.toml"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"test"', '"production"', 1))
    runs, nowhere = tmp_path / "runs", tmp_path / "approvals"
    for verb in ("run", "start"):
        where = ("--target", str(manifest), "--out", str(runs), "--approvals", str(nowhere))
        refused = run(verb, "--profile", "production", *where)
        assert refused.returncode == 3
        assert "there is no folder for approvals by two people" in refused.stderr
    assert list(runs.glob("*/*")) == []
    elsewhere = run("run", "--target", str(SMALL), "--profile", "production", "--out", str(runs))
    assert (elsewhere.returncode, "is for production" in elsewhere.stderr) == (3, True)


def test_wrong_options_are_told(tmp_path: Path) -> None:
    """A time that is none, an unknown profile, an unknown component: status 64, and what to do."""
    for words in (("--for", "soon"), ("--profile", "wild"), ("--component", "nobody")):
        refused = run("run", "--target", str(SMALL), "--out", str(tmp_path), *words)
        assert refused.returncode == 64, words
        assert "\u2192" in refused.stderr


def test_faults_that_prepare_the_start_come_too(tmp_path: Path) -> None:
    """Two that must stand before the target's system calls share one filter, and both bite."""
    if (why := seccomp.unavailable(attach=False)) is not None:
        pytest.skip(why)
    text = QUICK.read_text(encoding="utf-8").partition("[[fault]]")[0]
    for kind, parameters in (
        ("disk_slow", 'mechanism = "launch", delay_ms = 20'),
        ("kill_at_syscall", 'path = "{run}/state/", mechanism = "launch", call = "syncs", n = 3'),
        ("fsync_lie", 'mechanism = "nonsense"'),
    ):
        lasting = "duration_s = [0.3, 0.5]" if kind == "disk_slow" else ""
        text += f'[[fault]]\nkind = "{kind}"\ncomponents = ["server"]\n{lasting}\n'
        text += f"parameters = {{ {parameters} }}\n"
    profile = tmp_path / "prepared.toml"
    profile.write_text(text, encoding="utf-8")
    words = ("--target", str(SMALL), "--profile", str(profile), "--max-faults", "6", "--seed", "3")
    done = run("run", *words, "--out", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = result((tmp_path / "runs" / "latest").resolve())
    bit = {f["name"] for one in found["injections"] for f in one["faults"] if f["witness"]["bit"]}
    assert bit == {"disk_slow", "kill_at_syscall"}
    assert "left out: fsync_lie (server): unknown mechanism" in done.stdout
    assert left((tmp_path / "runs" / "latest").resolve()) == []


def windowed(place: Path, begin: dt.datetime, length_s: float, *, closed: str = "") -> Path:
    """Write the quick profile with one window of today, in UTC."""
    end = begin + dt.timedelta(seconds=length_s)
    text = QUICK.read_text(encoding="utf-8")
    text += f"""
[windows]
open = [{{ begin = "{begin:%H:%M:%S}", end = "{end:%H:%M:%S}" }}]
{closed}
"""
    place.write_text(text, encoding="utf-8")
    return place


def test_a_schedule_waits_for_its_window_and_breaks_nothing_outside(tmp_path: Path) -> None:
    """`start` waits and says until when; a session runs in the window and ends with it; `stop` ends all."""
    runs = tmp_path / "runs"
    begin = dt.datetime.now(tz=dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=6)
    profile = windowed(tmp_path / "windowed.toml", begin, 25)
    started = run("start", "--target", str(SMALL), "--profile", str(profile), "--out", str(runs))
    assert started.returncode == 0, started.stderr
    assert f"next window: {begin:%a %Y-%m-%d %H:%M}" in started.stdout
    (folder,) = runs.iterdir()

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / log.STATUS).read_bytes())
        return found

    assert status()["state"] == "waiting"
    until(lambda: status()["state"] == "session")
    assert "keeps its schedule" in run("status", "--out", str(runs)).stdout
    until(lambda: status()["state"] == "waiting", limit_s=90)
    session_folder = Path(status()["session"])
    found = result(session_folder)
    assert found["summary"]["ending"] == "complete", found["reasons"]
    moments = [one["wall_ns"] / 1e9 for one in found["injections"]]
    assert moments
    window = begin.timestamp(), begin.timestamp() + 25
    assert all(window[0] <= one <= window[1] for one in moments)
    assert run("stop", "--out", str(runs)).returncode == 0
    assert status()["state"] == "ended"
    assert left(session_folder) == []


def test_in_a_blackout_nobody_breaks_anything(tmp_path: Path) -> None:
    """Neither `run` nor `start --now`: status 3, with the reason, and nothing was started."""
    now = dt.datetime.now(tz=dt.UTC)
    end = now + dt.timedelta(days=2)
    closed = f'closed = [{{ begin = "{now:%Y-%m-%d}", end = "{end:%Y-%m-%d}", why = "release" }}]'
    profile = windowed(tmp_path / "closed.toml", now, 3600, closed=closed)
    for words in (("run",), ("start", "--now")):
        done = run(*words, "--target", str(SMALL), "--profile", str(profile), "--out", str(tmp_path / "runs"))
        assert done.returncode == 3, done.stderr
        assert "release" in done.stderr
    assert not list((tmp_path / "runs").glob("*/undo.jsonl"))


def test_a_process_of_its_own_judges_the_same(tmp_path: Path) -> None:
    """From a session's files it finds what the session found; what cannot be read is told by name."""
    done = run(*session(tmp_path / "runs", "--max-faults", "1"))
    assert done.returncode == 0, done.stderr
    (folder,) = (one for one in (tmp_path / "runs").iterdir() if not one.is_symlink())
    (injection,) = log.injections(folder)
    episode = Episode(number=1, at_s=injection.planned_s, steps=injection.steps)
    case = Case(folder=injection.folder, episode=episode)
    assert elsewhere(case) == here(case)
    found = elsewhere(case).injection
    assert found is not None
    assert (found.verdict, found.faults) == (injection.verdict, injection.faults)
    with pytest.raises(RuntimeError, match="cannot be read"):
        elsewhere(Case(folder=str(tmp_path / "nothing")))
