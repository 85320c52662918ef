"""What the guardian does in a turn, when undos fail and processes come and go by the thousand."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.engine import guardian, journal
from blackstart.host import procs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NS = 1_000_000_000


class Desk:
    """A guardian in this process, and its owner's end of the link."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.link, theirs = socket.socketpair()
        self.guardian = guardian.Guardian(str(run), theirs)
        self._theirs = theirs

    def ask(self, **request: Any) -> None:
        """Send a request."""
        self.link.sendall(json.dumps(request).encode() + b"\n")

    def turn(self) -> bool:
        """Let it do one turn."""
        return self.guardian._turn()

    def answers(self) -> list[dict[str, Any]]:
        """Read what it said by now."""
        if not select.select([self.link], [], [], 0)[0]:
            return []
        return [json.loads(line) for line in self.link.recv(1 << 20).splitlines()]

    def close(self) -> None:
        """Close both ends."""
        signal.set_wakeup_fd(-1)
        self.link.close()
        self._theirs.close()
        self.guardian._woken.close()
        os.close(self.guardian._waking)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Make one."""
    found = Desk(tmp_path)
    yield found
    found.close()


def failing(number: int, expires_ns: int | None = None) -> dict[str, Any]:
    """Make an undo that fails at once, for there is no such action."""
    return {"id": f"undo-{number}", "action": "fly", "arguments": {}, "expires_mono_ns": expires_ns}


def test_an_undo_that_goes_on_failing_is_tried_ever_more_rarely(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an hour of turns it is tried a few times, and the journal stays small."""
    now = NS
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _clock: now)
    desk.ask(protect=[failing(1, now + NS)])
    desk.turn()
    for _ in range(3600):
        now += NS
        desk.guardian._expire()
    tried = [one["mono_ns"] // NS for one in journal.read(str(desk.run), journal.PAID)]
    assert tried == [2, 32, 92, 212, 452, 932, 1892]
    assert [one["id"] for one in journal.owed(str(desk.run))] == ["undo-1"]


def test_a_question_is_answered_before_an_expired_undo_is_tried(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes long to fail would hold up the protection of a fault twice."""
    log: list[str] = []
    append, pay = journal.append, journal.pay

    def noted_append(run: str, name: str, entries: Any) -> None:
        log.append(name)
        append(run, name, entries)

    def noted_pay(run: str, entries: Any, *, by: str) -> Any:
        log.append(by)
        return pay(run, entries, by=by)

    desk.ask(protect=[failing(1, 1)], number=1)
    monkeypatch.setattr(journal, "append", noted_append)
    monkeypatch.setattr(journal, "pay", noted_pay)
    desk.turn()
    assert log == [journal.OWED, "lifetime", journal.PAID]
    assert [one["number"] for one in desk.answers()] == [1]


def kill(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Make the undo that ends a process."""
    found = procs.stat(process.pid)
    assert found is not None
    arguments = {"pid": found.pid, "start_ticks": found.start_ticks}
    return {"id": f"process:{found.pid}", "action": "kill", "arguments": arguments}


def test_of_processes_that_are_gone_the_end_is_held_no_longer(desk: Desk) -> None:
    """The living, one whose child lives on, and every other undo are held: else restarts add up for days."""
    script = "sleep 60 & echo $!"
    leader = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    living = subprocess.Popen(["sleep", "60"])
    short = [subprocess.Popen(["true"]) for _ in range(guardian._MANY)]
    held = [failing(1), kill(leader), kill(living)]
    desk.ask(protect=[*held, *map(kill, short)])
    desk.turn()
    assert leader.stdout is not None
    left = int(leader.stdout.readline())
    try:
        for one in (leader, *short):
            one.wait()
        assert len(desk.guardian._owed) == len(held) + len(short)
        desk.turn()
        assert [one["id"] for one in desk.guardian._owed.values()] == [one["id"] for one in held]
        assert [one["id"] for one in journal.owed(str(desk.run))] == [one["id"] for one in held]
        assert procs.stat(left) is not None, "it only looks"
        desk.ask(protect=[kill(living)])
        desk.turn()
        assert len(desk.guardian._owed) == len(held), "what is held is still known"
    finally:
        os.kill(left, signal.SIGKILL)
        living.kill()
        living.wait()
        leader.stdout.close()
