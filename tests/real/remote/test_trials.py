"""Whole trials with a component on another host: measured, judged, taken back, and nothing left there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.engine import journal, leftovers
from blackstart.history.view import History, load
from blackstart.host import procs, ssh
from blackstart.model.record import Injected, Problem, ProcessSeen, Reverted, SignalSeen, Witnessed

if TYPE_CHECKING:
    from collections.abc import Callable

    from other_host import OtherHost

PAUSE = "duration_s = 1.5"
LONG_PAUSE = "duration_s = 60"
BESIDE = """
[processes.beside]
command = ["sleep", "300"]
[components.beside]
process = "beside"
"""


class Running:
    """`blackstart run` under way."""

    def __init__(self, folder: Path, scenario: Path, manifest: Path) -> None:
        self.runs = folder / "runs"
        command = (sys.executable, "-m", "blackstart.cli", "run", str(scenario), "--target", str(manifest))
        self.process = subprocess.Popen(
            (*command, "--out", str(self.runs)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def end(self, limit_s: float = 90) -> int:
        """Wait for the end, and return its status."""
        self.out, _ = self.process.communicate(timeout=limit_s)
        return self.process.returncode

    @property
    def folder(self) -> Path:
        """The folder of its one trial."""
        (found,) = self.runs.glob("2*/*/history.jsonl")
        return found.parent

    def history(self) -> History:
        """Read what was recorded so far."""
        return load(self.folder)

    def until_injected(self) -> None:
        """Wait until the fault is in place, and was witnessed."""
        assert poll(lambda: any(self.runs.glob("2*/*/history.jsonl")), 60), "no trial began"
        assert poll(lambda: bool(self.history().all(Witnessed)), 60), self.history().all(Problem)

    def trial(self) -> dict[str, Any]:
        """Return the trial of its results."""
        (results,) = self.runs.glob("2*/results.json")
        found: dict[str, Any] = json.loads(results.read_text())["trials"][0]
        return found


def poll(test: Callable[[], bool], limit_s: float = 20.0) -> bool:
    """Look until `test` holds."""
    end = time.monotonic() + limit_s
    while not test():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def run(there: OtherHost, folder: Path, kind: str, more: str = "", **manifest: Any) -> Running:
    """Run a scenario to its end."""
    running = Running(
        folder, there.scenario(folder, kind, more), there.manifest(folder / "there", **manifest)
    )
    running.end()
    return running


def attached(there: OtherHost, folder: Path, port: int) -> int:
    """Start the service there as its own operator would, before Blackstart comes; returns its pid there."""
    folder.mkdir()
    service = Path(__file__).with_name("small") / "service.py"
    there.run(f"setsid {sys.executable} {service} {port} {folder} </dev/null >/dev/null 2>&1 &")
    assert poll(lambda: (folder / "pid").exists() and (folder / "pid").read_text() != "")
    return int((folder / "pid").read_text())


def fixed_port(manifest: Path, port: int) -> Path:
    """Have a manifest use a port that is in use already."""
    text = manifest.read_text().replace('ports = ["lines"]\n', "")
    manifest.write_text(text.replace("{port.lines}", str(port)))
    return manifest


def strays(folder: Path) -> list[int]:
    """Find our ends of connections to the host of that folder."""
    return [one.pid for one, _ in procs.matching(f"^ssh -T .*{folder}")]


def runs(state: str) -> bool:
    """Whether a process is there and does not stand still."""
    return state in {"R", "S", "D"}


def test_a_component_of_another_host_is_killed_and_comes_back(there: OtherHost, tmp_path: Path) -> None:
    """Every stamp from there lies right among ours, though its clock is another, and nothing stays there."""
    running = run(there, tmp_path, "kill")
    trial, history = running.trial(), running.history()
    assert trial["verdict"] == "PASS", trial["reasons"]
    receipt = history.all(Injected)[0].receipt
    assert receipt.processes == {}, "no pid of that host is taken for one of ours"
    assert receipt.remote["lines"].host == "there"
    assert "by the helper on there" in receipt.mechanism
    died = next(one for one in history.all(ProcessSeen) if one.what == "exited")
    again = [one for one in history.all(SignalSeen) if one.event == "serving"]
    assert receipt.t0_mono_ns - receipt.uncertainty_ns <= died.mono_ns <= again[-1].mono_ns
    assert 0 < again[-1].uncertainty_ns < 10_000_000, "the clocks' difference is part of it"
    assert all(0 <= one.seen_mono_ns - one.mono_ns < 10**9 for one in again)
    assert trial["rto"]["uncertainty_ns"] >= receipt.uncertainty_ns > 0
    assert [one.verified for one in history.all(Reverted)].count(True) == len(history.all(Reverted))
    assert there.strangers() == []
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == [
        "events.jsonl",
        "lines",
        "pid",
        "remote.toml",
    ], "what is there is the service's own"


def test_what_it_promised_and_forgot_is_named(there: OtherHost, tmp_path: Path) -> None:
    """One that keeps the last fifty lines in memory only has lost them all, by id."""
    running = run(there, tmp_path, "kill", mode="forgetful")
    trial = running.trial()
    assert trial["verdict"] == "FAIL"
    assert trial["rpo"]["events"] == 50
    assert len(trial["rpo"]["streams"]["lines"]["lost"]) > 0
    assert any("lost: lines: 50 of" in reason for reason in trial["reasons"])


@pytest.mark.parametrize(
    ("kind", "more", "mechanism"),
    [
        ("terminate", "", "SIGTERM"),
        ("crash_loop", "parameters = { times = 3 }", "3 times"),
        ("pause", PAUSE, "SIGSTOP"),
    ],
)
def test_what_signals_can_do_is_done_there(
    there: OtherHost, tmp_path: Path, kind: str, more: str, mechanism: str
) -> None:
    """Bitten, as its own kernel says, and taken back, as the guardian saw over a connection of its own."""
    history = run(there, tmp_path, kind, more).history()
    assert mechanism in history.all(Injected)[0].receipt.mechanism
    assert history.all(Witnessed)[0].witness.bit is True, history.all(Witnessed)
    assert all(one.verified for one in history.all(Reverted))
    assert not history.all(Problem)
    assert there.strangers() == []


def test_a_fault_of_this_host_only_is_unknown_there(there: OtherHost, tmp_path: Path) -> None:
    """Nothing is broken, least of all a process here that has the same pid."""
    running = run(there, tmp_path, "segv")
    assert running.trial()["verdict"] == "UNKNOWN"
    assert any("`lines` runs on host `there`" in reason for reason in running.trial()["reasons"])
    assert not running.history().all(Injected)


@pytest.mark.parametrize("who", ["blackstart", "blackstart and guardian"])
def test_one_that_stands_still_is_woken_when_blackstart_is_killed(
    there: OtherHost, tmp_path: Path, who: str
) -> None:
    """It ran before we came, so it runs on; helper and connection are gone."""
    port = 20_000 + os.getpid() % 5_000 + len(who)
    pid = attached(there, tmp_path / "there", port)
    manifest = fixed_port(there.manifest(tmp_path / "there"), port)
    running = Running(tmp_path, there.scenario(tmp_path, "pause", LONG_PAUSE), manifest)
    try:
        running.until_injected()
        assert there.state(pid) == "T"
        if who == "blackstart and guardian":
            os.kill(int((running.folder / "guardian.lock").read_text()), signal.SIGKILL)
        running.process.kill()
        assert poll(lambda: runs(there.state(pid)))
        assert poll(lambda: strays(there.folder) == []), strays(there.folder)
        assert poll(lambda: len(there.strangers()) <= 1), "the helper has gone"
        leftovers.clear(running.runs)
        assert runs(there.state(pid))
    finally:
        running.process.wait()
        there.run(f"kill -KILL {pid}")


def test_one_that_was_killed_is_started_again_when_blackstart_is_killed(
    there: OtherHost, tmp_path: Path
) -> None:
    """It ran before we came, and only we would have started it again: its host's helper does it instead."""
    port = 26_000 + os.getpid() % 2_000
    pid = attached(there, tmp_path / "there", port)
    manifest = there.manifest(tmp_path / "there", restart="restart_after_s = 60.0")
    fixed_port(manifest, port)
    running = Running(tmp_path, there.scenario(tmp_path, "kill"), manifest)
    try:
        running.until_injected()
        assert there.state(pid) == ""
        running.process.kill()
        assert poll(lambda: int((tmp_path / "there" / "pid").read_text() or pid) != pid)
        again = int((tmp_path / "there" / "pid").read_text())
        assert poll(lambda: runs(there.state(again)))
    finally:
        running.process.wait()
        there.run(f"pkill -KILL -f '{tmp_path}/there'")


def test_the_kill_switch_reaches_the_other_host(there: OtherHost, tmp_path: Path) -> None:
    """`halt` from elsewhere lets what stands still there run on, and proves it."""
    port = 24_000 + os.getpid() % 2_000
    pid = attached(there, tmp_path / "there", port)
    manifest = fixed_port(there.manifest(tmp_path / "there"), port)
    running = Running(tmp_path, there.scenario(tmp_path, "pause", LONG_PAUSE), manifest)
    try:
        running.until_injected()
        assert there.state(pid) == "T"
        command = (sys.executable, "-m", "blackstart.cli", "halt", "--out", str(running.runs))
        halted = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert halted.returncode == 0, halted.stdout
        assert runs(there.state(pid))
        assert running.end() == 2
        assert not journal.owed(str(running.folder))
    finally:
        running.process.wait()
        there.run(f"kill -KILL {pid}")


@pytest.mark.parametrize("what", ["the session", "the helper"])
def test_a_connection_that_is_cut_is_unknown_and_all_is_taken_back(
    there: OtherHost, tmp_path: Path, what: str
) -> None:
    """Nobody saw what happened there any more; the one that stood still runs all the same."""
    port = 28_000 + os.getpid() % 2_000 + len(what)
    pid = attached(there, tmp_path / "there", port)
    manifest = fixed_port(there.manifest(tmp_path / "there"), port)
    running = Running(tmp_path, there.scenario(tmp_path, "pause", LONG_PAUSE), manifest)
    try:
        running.until_injected()
        if what == "the helper":
            there.run("pkill -KILL -f 'ISB -c'")
        else:
            for session in there.sessions():
                os.kill(session, signal.SIGKILL)
        assert running.end() == 2
        assert runs(there.state(pid))
        trial = running.trial()
        assert trial["verdict"] == "UNKNOWN"
        assert any("lost-sight" in reason and "there" in reason for reason in trial["reasons"])
        undone = {one.undo_id: one.verified for one in running.history().all(Reverted)}
        assert any("continue" in name for name in undone)
        assert set(undone.values()) == {True}
    finally:
        running.process.wait()
        there.run(f"kill -KILL {pid}")


def test_what_cannot_be_taken_back_there_says_what_to_do(there: OtherHost, tmp_path: Path) -> None:
    """A host that nobody can reach: the loudest outcome, with the command that an operator needs."""
    command = ssh.command(address="127.0.0.1", port=1)
    values = {"what": "continue", "pid": 1, "start_ticks": 1}
    arguments = {"command": command, "values": values, "by_hand": ["kill", "-CONT", "1"]}
    entry = {"id": "x", "action": "remote", "arguments": arguments}
    (outcome,) = journal.pay(str(tmp_path), [entry], by="test")
    assert outcome["verified"] is False
    assert "refused" in outcome["evidence"]["error"]
    assert outcome["evidence"]["by_hand"].startswith("ssh -T")
    assert outcome["evidence"]["by_hand"].endswith("-- 127.0.0.1 'kill -CONT 1'")


def test_one_here_and_one_there_are_hit_together(there: OtherHost, tmp_path: Path) -> None:
    """A fault of several components reaches each where it is, and Blackstart starts both again."""
    manifest = there.manifest(tmp_path / "there")
    text = manifest.read_text().replace("[components.lines]", f"{BESIDE}\n[components.lines]")
    manifest.write_text(text)
    scenario = there.scenario(tmp_path, "kill")
    scenario.write_text(scenario.read_text().replace('["lines"]', '["beside", "lines"]'))
    running = Running(tmp_path, scenario, manifest)
    assert running.end() == 0, running.out
    receipt = running.history().all(Injected)[0].receipt
    assert (list(receipt.processes), list(receipt.remote)) == (["beside"], ["lines"])
    evidence = running.history().all(Witnessed)[0].witness.evidence
    assert all(evidence[name]["gone_from_proc"] for name in ("beside", "lines"))
    again = {one.component for one in running.history().all(ProcessSeen) if one.what == "ready"}
    assert again == {"beside", "lines"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("host key", "Host key verification failed"),
        ("identity", "Permission denied"),
        ("python", "python9"),
        ("none", "matches 0 processes"),
        ("command", "cannot execute"),
    ],
)
def test_what_is_wrong_with_a_host_is_told(there: OtherHost, tmp_path: Path, wrong: str, said: str) -> None:
    """UNKNOWN with the reason, before anything is started or broken."""
    manifest: dict[str, Any] = {}
    if wrong == "python":
        manifest = {"python": "/nowhere/python9"}
    elif wrong == "none":
        manifest = {"found": "match = '^nobody is called so$'\n#", "restart": "restart = 'self'"}
    elif wrong == "identity":
        manifest = {"identity": there.another_key().with_suffix("")}
    described = there.manifest(tmp_path / "there", **manifest)
    if wrong == "none":
        lines = [one for one in described.read_text().splitlines() if not one.startswith(("start", "ready"))]
        described.write_text("\n".join(lines).replace("restart = 'self'", ""))
    if wrong == "command":
        text = described.read_text()
        described.write_text(text.replace(f'start = ["{sys.executable}"', 'start = ["/nowhere/x"'))
    if wrong == "host key":
        known = tmp_path / "known_hosts"
        other = there.another_key().read_text().split()[:2]
        known.write_text(f"[127.0.0.1]:{there.port} {' '.join(other)}\n")
        described.write_text(described.read_text().replace(str(there.folder / "known_hosts"), str(known)))
    running = Running(tmp_path, there.scenario(tmp_path, "kill"), described)
    assert running.end() == 2
    reasons = " ".join(running.trial()["reasons"])
    assert said in reasons, reasons
    assert not running.history().all(Injected)
    assert there.strangers() == []


def test_the_doctor_reaches_each_host_and_compares_the_clocks(there: OtherHost, tmp_path: Path) -> None:
    """Who we are there, which Python, and how far the clock is from ours."""
    command = (sys.executable, "-m", "blackstart.cli", "doctor", "--json", "--target")
    manifest = there.manifest(tmp_path / "there")
    done = subprocess.run((*command, str(manifest)), capture_output=True, check=False, timeout=60)
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert found["host there"]["state"] == "works"
    assert f"its clock shows {'+5000' if there.apart else '+0.0'}" in found["host there"]["how"]
    manifest.write_text(manifest.read_text().replace(f"port = {there.port}", "port = 1"))
    done = subprocess.run((*command, str(manifest)), capture_output=True, check=False, timeout=60)
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert found["host there"]["state"] == "missing"
    assert "refused" in found["host there"]["how"]
