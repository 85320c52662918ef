"""The helper for other hosts as a process, started the way `ssh` starts it, without `ssh`."""

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

from blackstart.host import procs, ssh, ssh_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Helper:
    """One that runs."""

    def __init__(self) -> None:
        words = ssh.command(address="x", python=sys.executable)
        self.process = subprocess.Popen(
            ("sh", "-c", words[-1]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.write(ssh.bundle())
        self.hello = self.word()

    def write(self, data: bytes) -> None:
        """Send something."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def word(self) -> dict[str, Any]:
        """Read one line."""
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Have something done."""
        self.write(json.dumps({"do": do, "n": 1, **values}).encode() + b"\n")
        return self.word()

    def hold(self, pid: int) -> dict[str, Any]:
        """Take hold of a process under the number 9."""
        found = self.ask("find", pid=pid)
        who = {"pid": pid, "start_ticks": found["start_ticks"]}
        assert "error" not in self.ask("hold", id=9, **who)
        return who

    def hang_up(self) -> int:
        """End its input, and wait for its end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(20)


@pytest.fixture
def helper() -> Iterator[Helper]:
    """Start a helper."""
    made = Helper()
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """Start something to hit."""
    process = subprocess.Popen(("sleep", "300"))
    yield process
    process.kill()
    process.wait()


def state(pid: int) -> str:
    """Return the kernel's letter."""
    found = procs.stat(pid)
    return "gone" if found is None or found.dead else found.state


def poll(test: Callable[[], bool], limit_s: float = 20.0) -> bool:
    """Look until `test` holds."""
    end = time.monotonic() + limit_s
    while not test():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_it_tells_a_death_at_once_with_the_kernels_notice(
    helper: Helper, victim: subprocess.Popen[bytes]
) -> None:
    """The stamps of the kill and of the death are in order, and between our own."""
    helper.hold(victim.pid)
    before = time.monotonic_ns()
    struck = helper.ask("signal", id=9, signal=int(signal.SIGKILL))
    died = helper.word()
    assert died["event"] == "died"
    assert before <= struck["before"] <= struck["after"] <= died["at"] <= time.monotonic_ns()
    assert struck["sent"] is True
    assert helper.ask("signal", id=9, signal=int(signal.SIGKILL))["sent"] is False, "nobody else is hit"


@pytest.mark.parametrize("how", ["hang up", "silence", "SIGTERM"])
def test_whoever_it_stopped_runs_on_whatever_ends_it(
    helper: Helper, victim: subprocess.Popen[bytes], how: str
) -> None:
    """End of input, nobody who speaks, a request to end: each wakes the victim, and ends the helper."""
    who = helper.hold(victim.pid)
    helper.ask("signal", id=9, signal=int(signal.SIGSTOP))
    assert poll(lambda: helper.ask("state", **who)["state"] == "T")
    if how == "silence":
        helper.ask("silence", limit_s=0.2)
    elif how == "SIGTERM":
        os.kill(helper.hello["pid"], signal.SIGTERM)
    else:
        helper.hang_up()
    helper.process.wait(20)
    assert poll(lambda: state(victim.pid) == "S")


def test_a_reader_that_stands_still_does_not_keep_it_from_acting(
    helper: Helper, victim: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Its words pile up, its input stays open and silent: at its deadline it takes everything back."""
    helper.hold(victim.pid)
    log = tmp_path / "log"
    log.touch()
    helper.ask("tail", id=5, files=str(log))
    helper.ask("signal", id=9, signal=int(signal.SIGSTOP))
    helper.ask("silence", limit_s=1.0)
    with log.open("a") as file:
        for _ in range(20_000):
            file.write("x" * 60 + "\n")
    assert poll(lambda: state(victim.pid) == "S")


def test_what_was_started_for_the_trial_ends_with_it(helper: Helper, tmp_path: Path) -> None:
    """Also a descendant that left the session: it carries the marker."""
    pids = tmp_path / "pids"
    script = f"echo $$ >> {pids}; setsid sh -c 'echo $$ >> {pids}; sleep 300' & sleep 300"
    helper.ask("start", id=4, name="x", command=["sh", "-c", script], marker="t:x#1")
    assert poll(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    helper.hang_up()
    assert all(poll(lambda pid=pid: state(int(pid)) == "gone") for pid in pids.read_text().split())  # type: ignore[misc]


def test_what_ran_before_and_was_killed_runs_again(helper: Helper, tmp_path: Path) -> None:
    """Though whoever killed it is gone; what runs is left alone."""
    pid_file = tmp_path / "pid"
    command = ["sh", "-c", f"echo $$ > {pid_file}; exec sleep 300"]
    first = subprocess.Popen(command)
    assert poll(lambda: pid_file.exists() and pid_file.read_text() != "")
    helper.ask("keep", name="x", find={"pid_file": str(pid_file)}, command=command)
    helper.hold(first.pid)
    helper.ask("signal", id=9, signal=int(signal.SIGKILL))
    first.wait()
    helper.hang_up()
    second = int(pid_file.read_text())
    assert second != first.pid
    assert state(second) == "S"
    other = Helper()
    kept = other.ask("undo", what="keep", find={"pid_file": str(pid_file)}, command=command)
    assert kept["evidence"] == {"runs": second}
    other.hang_up()
    os.kill(second, signal.SIGKILL)


class Slow:
    """A component that comes up slowly, and notes each of its starts."""

    def __init__(self, folder: Path, after_s: float) -> None:
        self.starts, pid_file = folder / "starts", folder / "pid"
        script = f"echo $$ >> {self.starts}; sleep {after_s}; echo $$ > {pid_file}; exec sleep 300"
        self.command = ["sh", "-c", script]
        self.values: dict[str, Any] = {"find": {"pid_file": str(pid_file)}, "command": self.command}

    def pids(self) -> list[int]:
        """Return who was started."""
        return [int(pid) for pid in self.starts.read_text().split()] if self.starts.exists() else []


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    """Have one whose pid file comes later than the keepers' first look."""
    made = Slow(tmp_path, 2.5)
    yield made
    for one in procs.carriers(ssh_helper._kept(made.values["find"])):
        procs.send(one, signal.SIGKILL)


def test_two_keepers_start_one(helper: Helper, slow: Slow) -> None:
    """The trial's helper and the guardian's see to it at the same time; both see it run in the end."""
    helper.ask("keep", name="x", **slow.values)
    other = Helper()
    assert helper.process.stdin is not None
    helper.process.stdin.close()
    kept = other.ask("undo", what="keep", **slow.values)
    helper.process.wait(20)
    other.hang_up()
    assert kept["verified"] is True, kept
    assert slow.pids() == [kept["evidence"]["runs"]]


def test_one_that_the_trial_started_again_is_waited_for(helper: Helper, slow: Slow) -> None:
    """It is on its way when everybody dies: neither helper starts another."""
    helper.ask("keep", name="x", **slow.values)
    helper.ask("start", id=4, name="x", command=slow.command)
    other = Helper()
    helper.process.kill()
    kept = other.ask("undo", what="keep", **slow.values)
    other.hang_up()
    assert kept["verified"] is True, kept
    assert slow.pids() == [kept["evidence"]["runs"]]


def test_one_that_comes_up_later_than_a_keeper_waits_is_not_started_by_the_next(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has given up and gone; the next finds it by its marker, and says so."""
    monkeypatch.setattr(ssh_helper, "_KEEP_LIMIT_S", 0.0)
    monkeypatch.setattr(ssh_helper, "_STARTED_LIMIT_S", 0.2)
    first, second = ssh_helper.keep(slow.values), ssh_helper.keep(slow.values)
    assert (first["verified"], second["verified"]) == (False, False)
    assert "started again" in first["evidence"]["error"]
    assert f"was started already (pid {slow.pids()[0]})" in second["evidence"]["error"]
    assert len(slow.pids()) == 1


def test_who_may_not_look_alone_starts_nothing(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another helper stands still between its look and its start."""
    monkeypatch.setattr(ssh_helper, "_KEEP_LIMIT_S", 0.0)
    monkeypatch.setattr(ssh_helper, "_ALONE_LIMIT_S", 0.1)
    with ssh_helper._alone(ssh_helper._kept(slow.values["find"])):
        kept = ssh_helper.keep(slow.values)
    assert kept["verified"] is False
    assert "nothing was started: another helper" in kept["evidence"]["error"]
    assert slow.pids() == []


@pytest.mark.parametrize(
    ("unclear", "said"),
    [
        ("two", "matches 2 processes"),
        ("empty", "it says ''"),
        ("garbage", "it says 'starting'"),
        ("negative", "it says '-5"),
        ("folder", "no pid in"),
        ("pid", "is not running"),
    ],
)
def test_who_cannot_be_told_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unclear: str, said: str
) -> None:
    """Whatever keeps it from being found but its absence is told, and no second one is started."""
    monkeypatch.setattr(ssh_helper, "_KEEP_LIMIT_S", 0.0)
    monkeypatch.setattr(ssh_helper, "_STARTED_LIMIT_S", 0.1)
    ended = subprocess.Popen(("true",))
    ended.wait()
    pid_file = tmp_path / "pid"
    texts = {"empty": "", "garbage": "starting", "negative": "-5\n"}
    if unclear in texts:
        pid_file.write_text(texts[unclear])
    both = [subprocess.Popen(("sleep", "301.25")) for _ in range(2)]
    other: dict[str, dict[str, Any]] = {
        "two": {"match": r"^sleep 301\.25$"},
        "folder": {"pid_file": str(tmp_path)},
        "pid": {"pid": ended.pid},
    }
    find = other.get(unclear, {"pid_file": str(pid_file)})
    try:
        kept = ssh_helper.keep({"find": find, "command": ["touch", str(tmp_path / "started")]})
    finally:
        for one in both:
            one.kill()
            one.wait()
    assert kept["verified"] is False
    assert kept["evidence"]["error"].startswith("nothing was started: ")
    assert said in kept["evidence"]["error"]
    assert not (tmp_path / "started").exists()


def test_absence_is_told_apart(helper: Helper, tmp_path: Path) -> None:
    """No pid file, one whose pid has ended, and no match are absence; a pid that somebody told is not."""
    ended = subprocess.Popen(("true",))
    ended.wait()
    (tmp_path / "pid").write_text(f"{ended.pid}\n")
    (tmp_path / "empty").touch()

    def absent(**find: Any) -> bool:
        return bool(helper.ask("find", **find)["absent"])

    assert absent(pid_file=str(tmp_path / "none"))
    assert absent(pid_file=str(tmp_path / "pid"))
    assert absent(match="^nobody is called so$")
    assert not absent(pid=ended.pid)
    assert not absent(pid_file=str(tmp_path / "empty"))


def test_exactly_one_process_must_match(helper: Helper, victim: subprocess.Popen[bytes]) -> None:
    """None, or several, is a no that names them."""
    assert "matches 0 processes" in helper.ask("find", match="^nobody is called so$")["error"]
    other = subprocess.Popen(("sleep", "300"))
    try:
        said = helper.ask("find", match="^sleep 300$")["error"]
        assert str(victim.pid) in said
        assert str(other.pid) in said
    finally:
        other.kill()
        other.wait()


def test_a_file_is_followed_through_growth_rotation_and_odd_bytes(helper: Helper, tmp_path: Path) -> None:
    """Old lines are not told, new ones are, also of the file that takes its place; bytes stay as they are."""
    log = tmp_path / "a.log"
    log.write_bytes(b"old\n")
    helper.ask("tail", id=5, files=str(tmp_path / "*.log"))
    with log.open("ab") as file:
        file.write(b"one \xff\n")
    log.rename(tmp_path / "a.old")
    log.write_bytes(b"two\n")
    lines: list[bytes] = []
    while len(lines) < 2:
        lines += [one.encode("utf-8", "surrogateescape") for one in helper.word()["lines"]]
    assert lines == [b"one \xff", b"two"]


def test_it_leaves_no_file(tmp_path: Path) -> None:
    """Not in its folder, not in that of its interpreter's libraries: it is compiled in memory."""
    library = Path(json.__file__).parent.parent
    before = {path for path in library.rglob("*.pyc") if "site-packages" not in path.parts}
    words = ssh.command(address="x", python=sys.executable)
    done = subprocess.run(
        ("sh", "-c", words[-1]), input=ssh.bundle(), capture_output=True, check=True, cwd=tmp_path, timeout=30
    )
    assert b'"blackstart"' in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert {path for path in library.rglob("*.pyc") if "site-packages" not in path.parts} <= before
