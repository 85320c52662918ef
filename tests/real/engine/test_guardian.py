"""The guardian with real processes: whatever kills the owner, nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blackstart.cli.halt import halt as halt_command
from blackstart.engine import guard, journal, leftovers, locks, openruns
from blackstart.engine.guardian import Guardian
from blackstart.errors import FaultError
from blackstart.host import procs
from blackstart.model.fault import Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]

OWNER = textwrap.dedent(
    """
    import asyncio, signal, subprocess, sys
    from pathlib import Path
    from blackstart.engine import guard, locks
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it (nohup)
    from blackstart.host import procs
    from blackstart.model.fault import Undo

    async def main(run):
        lock = locks.hold(str(run), locks.OWNER_LOCK)
        guardian = await guard.start(run)
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = subprocess.Popen(sleeper, start_new_session=True)
        ticks = procs.stat(child.pid).start_ticks
        who = {"pid": child.pid, "start_ticks": ticks}
        (run / "file").write_text("x")
        await guardian.protect([
            Undo(id="kill", action="kill", arguments=who),
            Undo(id="file", action="unlink", arguments={"path": str(run / "file")}),
        ])
        print(guardian.process.pid, child.pid, flush=True)
        await asyncio.sleep(600)

    asyncio.run(main(Path(sys.argv[1])))
    """
)


def poll(test: Callable[[], bool], limit_s: float = 20.0) -> bool:
    """Look until `test` holds."""
    end = time.monotonic() + limit_s
    while not test():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def dead(pid: int) -> bool:
    """Gone, or a zombie."""
    found = procs.stat(pid)
    return found is None or found.dead


@pytest.fixture(autouse=True)
def own_index(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the other runs of whoever runs the tests alone."""
    place = tmp_path_factory.mktemp("open")
    monkeypatch.setenv("XDG_STATE_HOME", str(place))
    monkeypatch.setattr(openruns, "places", lambda: [str(place / "blackstart" / "open")])


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that sleeps, in a session of its own."""
    process = subprocess.Popen(SLEEPER, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def undo(process: subprocess.Popen[bytes], action: str = "kill", **more: object) -> Undo:
    """Make an undo for a process."""
    found = procs.stat(process.pid)
    assert found is not None
    arguments = {"pid": process.pid, "start_ticks": found.start_ticks, **more}
    return Undo(id=f"{action}:{process.pid}", action=action, arguments=arguments)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGHUP, signal.SIGSEGV]
)
def test_nothing_is_left_when_the_owner_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    """However the owner dies, the guardian takes everything back, proves it, and ends."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert owner.stdout is not None
    guardian, child = map(int, owner.stdout.readline().split())
    # The whole group is hit, as a terminal does; the guardian lives in a session of its own.
    os.killpg(owner.pid, number)
    owner.wait()
    assert poll(lambda: dead(child))
    assert poll(lambda: dead(guardian))
    owner.stdout.close()
    assert not (tmp_path / "file").exists()
    assert journal.owed(str(tmp_path)) == []
    paid = journal.read(str(tmp_path), journal.PAID)
    assert {(one["id"], one["verified"], one["by"]) for one in paid} == {
        ("kill", True, "guardian"),
        ("file", True, "guardian"),
    }


def test_when_guardian_and_owner_die_the_next_start_takes_back(tmp_path: Path) -> None:
    """Both killed: what they owed is found by its journal and carried out, once."""
    run = tmp_path / "run"
    run.mkdir()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(run)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert owner.stdout is not None
    guardian, child = map(int, owner.stdout.readline().split())
    assert leftovers.clear(tmp_path) == [], "a live run is left alone"
    assert not dead(child)
    os.kill(guardian, signal.SIGKILL)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert poll(lambda: dead(guardian))
    cleared = leftovers.clear(tmp_path)
    assert dead(child)
    assert [(folder, {one["id"] for one in outcomes}) for folder, outcomes in cleared] == [
        (run, {"kill", "file"})
    ]
    assert leftovers.clear(tmp_path) == []


def test_the_kill_switch_works_from_outside(tmp_path: Path) -> None:
    """`halt` makes a live run take everything back and proves that nothing is owed."""
    run = tmp_path / "run"
    run.mkdir()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(run)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert owner.stdout is not None
    _, child = map(int, owner.stdout.readline().split())
    try:
        assert leftovers.halt(tmp_path) == [(run, [])]
        assert dead(child)
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()


@pytest.mark.parametrize("again", [False, True])
def test_the_kill_switch_works_beside_a_stopped_guardian(tmp_path: Path, *, again: bool) -> None:
    """A stopped guardian is woken; one that is stopped again at once is not waited for."""
    run = tmp_path / "run"
    run.mkdir()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(run)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert owner.stdout is not None
    guardian, child = map(int, owner.stdout.readline().split())
    try:
        os.kill(guardian, signal.SIGSTOP)
        assert poll(lambda: procs.stat(guardian).state == "T")  # type: ignore[union-attr]
        with pytest.MonkeyPatch.context() as patch:
            if again:
                patch.setattr(leftovers, "wake", lambda _folder: True)  # as if it were stopped once more
            halted = leftovers.halt(tmp_path, limit_s=10.0)
        assert halted == [(run, [])]
        assert poll(lambda: dead(child))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(guardian, signal.SIGKILL)
        owner.kill()
        owner.wait()
        owner.stdout.close()


def test_a_stopped_guardian_is_lost_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked with a limit, told as lost once, and ended, so that what it held can be paid directly."""
    monkeypatch.setattr(guard, "_ANSWER_LIMIT_S", 0.3)
    told: list[str] = []
    (tmp_path / "x").touch()

    async def main() -> int | None:
        guardian = await guard.start(tmp_path, on_halt=told.append)
        await guardian.protect([Undo(id="x", action="unlink", arguments={"path": str(tmp_path / "x")})])
        guardian.process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(20.0):
            for _ in range(2):
                with pytest.raises(FaultError, match="guardian is gone"):
                    await guardian.undo()
            await guardian.close()
        return guardian.process.returncode

    assert asyncio.run(main()) == -signal.SIGKILL
    assert told == ["guardian-lost"]
    assert [one["id"] for one in journal.owed(str(tmp_path))] == ["x"]


def test_saying_goodbye_to_a_stopped_guardian_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing does not hang either."""
    monkeypatch.setattr(guard, "_ANSWER_LIMIT_S", 0.3)

    async def main() -> int | None:
        guardian = await guard.start(tmp_path)
        guardian.process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(20.0):
            await guardian.close()
        return guardian.process.returncode

    assert asyncio.run(main()) == -signal.SIGKILL


def killed_run(run: Path) -> int:
    """Kill an owner and its guardian at once; returns the pid that they owe."""
    run.mkdir(parents=True)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(run)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert owner.stdout is not None
    guardian, child = map(int, owner.stdout.readline().split())
    os.kill(guardian, signal.SIGKILL)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert poll(lambda: dead(guardian))
    return child


@pytest.mark.parametrize("how", ["halt", "clear"])
def test_what_a_run_elsewhere_owes_is_found(tmp_path: Path, how: str) -> None:
    """Another `--out` does not hide an open fault from the kill switch, nor from the next start."""
    run, other = tmp_path / "here" / "run", tmp_path / "there"
    child = killed_run(run)
    assert list(openruns.noted()) == [str(run)]
    found = leftovers.halt(other) if how == "halt" else leftovers.clear(other)
    assert [folder for folder, _ in found] == [run]
    assert dead(child)
    assert list(openruns.noted()) == []


def test_a_run_that_owes_nothing_is_struck_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is noted for as long as its guardian lives; the kill switch says where it looked."""

    async def main() -> list[str]:
        guardian = await guard.start(tmp_path)
        noted = list(openruns.noted())
        await guardian.close()
        return noted

    assert asyncio.run(main()) == [str(tmp_path)]
    assert list(openruns.noted()) == []
    assert halt_command(tmp_path / "elsewhere") == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "elsewhere") in said
    assert openruns.places()[0] in said


def test_an_index_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    """What is noted is carried out with our rights."""
    openruns.note(str(tmp_path))
    assert list(openruns.noted()) == [str(tmp_path)]
    os.chmod(openruns.places()[0], 0o777)  # noqa: PTH101
    assert list(openruns.noted()) == []


def test_children_and_grandchildren_die_too(tmp_path: Path) -> None:
    """The undo of a process ends its whole family.

    Its session, its descendants in other sessions, and marked orphans.
    """
    script = (
        "import subprocess, sys, time\n"
        "sleeper = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "a = subprocess.Popen(sleeper); b = subprocess.Popen(sleeper, start_new_session=True)\n"
        "print(a.pid, b.pid, flush=True); time.sleep(600)"
    )
    marker = f"{tmp_path}:server"
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, procs.MARKER: marker},
    )
    assert parent.stdout is not None
    near, far = map(int, parent.stdout.readline().split())
    one = undo(parent, marker=marker)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert not dead(near)
    outcome = journal.pay(
        str(tmp_path), [{"id": one.id, "action": "kill", "arguments": one.arguments}], by="test"
    )
    assert outcome[0]["verified"] is True
    assert dead(near)
    assert dead(far)


def test_a_reused_pid_is_never_hit(tmp_path: Path, victim: subprocess.Popen[bytes]) -> None:
    """A process with the same pid but another start time is somebody else."""
    other = {"pid": victim.pid, "start_ticks": 1}
    for action in ("kill", "continue"):
        outcome = journal.pay(
            str(tmp_path), [{"id": action, "action": action, "arguments": other}], by="test"
        )
        assert outcome[0]["verified"] is True
    assert not dead(victim.pid)


def test_a_stopped_process_runs_on_when_its_undo_is_carried_out(
    tmp_path: Path, victim: subprocess.Popen[bytes]
) -> None:
    """SIGCONT is verified by the kernel's own view of the process."""

    async def main() -> list[object]:
        guardian = await guard.start(tmp_path)
        await guardian.protect([undo(victim, "continue")])
        victim.send_signal(signal.SIGSTOP)
        assert poll(lambda: procs.stat(victim.pid).state == "T")  # type: ignore[union-attr]
        outcomes = await guardian.undo()
        await guardian.close()
        return [one.verified for one in outcomes]

    assert asyncio.run(main()) == [True]
    found = procs.stat(victim.pid)
    assert found is not None
    assert found.state != "T"


def test_a_fault_ends_with_its_lifetime(tmp_path: Path, victim: subprocess.Popen[bytes]) -> None:
    """An undo with an expiry is carried out by the guardian alone when the time is over."""

    async def main() -> None:
        guardian = await guard.start(tmp_path)
        one = undo(victim, "continue")
        soon = time.monotonic_ns() + 200_000_000
        await guardian.protect(
            [Undo(id=one.id, action=one.action, arguments=one.arguments, expires_mono_ns=soon)]
        )
        victim.send_signal(signal.SIGSTOP)
        assert await asyncio.to_thread(poll, lambda: bool(journal.read(str(tmp_path), journal.PAID)))
        assert await guardian.undo(["another"]) == []
        (told,) = await guardian.undo()
        assert await guardian.undo() == [], "told once"
        await guardian.close()
        assert (told.undo_id, told.verified, told.evidence["by"]) == (one.id, True, "lifetime")

    asyncio.run(main())
    assert journal.read(str(tmp_path), journal.PAID)[0]["by"] == "lifetime"


def test_http_undo_asks_and_a_gone_server_is_fine(tmp_path: Path) -> None:
    """DELETE reaches the server; when nobody is there any more, its misbehaviour is gone with it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_DELETE(self) -> None:
            """Answer."""
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    entry = {
        "id": "http",
        "action": "http",
        "arguments": {"method": "DELETE", "url": f"http://127.0.0.1:{server.server_port}/control/misbehave"},
    }
    assert journal.pay(str(tmp_path), [entry], by="test")[0]["verified"] is True
    assert asked == ["/control/misbehave"]
    server.shutdown()
    thread.join()
    server.server_close()
    assert journal.pay(str(tmp_path), [entry], by="test")[0]["evidence"].keys() == {"gone"}


@pytest.mark.parametrize("dies", [True, False])
def test_an_http_undo_that_gets_no_answer_asks_whether_anybody_is_there(tmp_path: Path, dies: bool) -> None:
    """A server that died with the request took its misbehaviours along; one that lives did not."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def hang_up() -> None:
        link, _ = server.accept()
        link.recv(1)  # leaves the rest unread: the close is a reset
        if dies:
            server.close()
        link.close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    entry = {"id": "http", "action": "http", "arguments": {"url": f"http://127.0.0.1:{port}/x"}}
    assert journal.pay(str(tmp_path), [entry], by="test")[0]["verified"] is dies
    thread.join()
    server.close()


def test_files_are_removed_only_below_the_run_folder(tmp_path: Path) -> None:
    """Neither a path outside, nor `..`, nor a symbolic link gets anything else removed."""
    run = tmp_path / "run"
    (run / "state").mkdir(parents=True)
    outside = tmp_path / "precious"
    outside.mkdir()
    (run / "way-out").symlink_to(tmp_path)
    for path in (outside, run / ".." / "precious", run / "way-out" / "precious"):
        outcome = journal.pay(
            str(run), [{"id": "x", "action": "rmtree", "arguments": {"path": str(path)}}], by="test"
        )
        assert outcome[0]["verified"] is False
    assert outside.is_dir()
    assert journal.pay(
        str(run), [{"id": "y", "action": "rmtree", "arguments": {"path": str(run / "state")}}], by="t"
    )
    assert not (run / "state").exists()


def test_one_undo_that_fails_does_not_hold_up_the_others(
    tmp_path: Path, victim: subprocess.Popen[bytes]
) -> None:
    """Each undo is independent, and what failed stays owed."""
    one = undo(victim)
    journal.append(
        str(tmp_path),
        journal.OWED,
        [
            {"id": "kill", "action": "kill", "arguments": one.arguments},
            {"id": "nonsense", "action": "fly", "arguments": {}},
            {"id": "broken", "action": "kill", "arguments": {"pid": "x"}},
        ],
    )
    leftovers.replay(tmp_path, by="test")
    assert dead(victim.pid)
    assert {entry["id"] for entry in journal.owed(str(tmp_path))} == {"nonsense", "broken"}


DYING = textwrap.dedent(
    """
    import ctypes, os, sys, threading, time
    from blackstart.engine import locks
    lock = locks.hold(sys.argv[1], locks.GUARDIAN_LOCK)

    def last():
        sys.stdin.readline()
        os._exit(0)

    threading.Thread(target=last).start()
    print("held", flush=True)
    ctypes.CDLL(None).pthread_exit(None)
    """
)


def test_the_next_start_waits_for_a_guardian_that_is_dying(tmp_path: Path) -> None:
    """A zombie whose last thread still ends may hold the lock: that is no guardian that watches."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "file").write_text("x")
    owed = {"id": "file", "action": "unlink", "arguments": {"path": str(run / "file")}}
    journal.append(str(run), journal.OWED, [owed])
    holder = subprocess.Popen(
        [sys.executable, "-c", DYING, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert poll(lambda: dead(holder.pid))
    last_word = threading.Timer(0.3, holder.stdin.close)
    last_word.start()
    assert [folder for folder, _ in leftovers.clear(tmp_path)] == [run]
    assert not (run / "file").exists()
    last_word.join()
    holder.wait()
    holder.stdout.close()


def test_a_torn_journal_counts_up_to_its_last_whole_line(tmp_path: Path) -> None:
    """A line that was not written wholly was never acknowledged: its fault never came to be."""
    line = json.dumps({"id": "a", "action": "unlink", "arguments": {"path": str(tmp_path / "x")}}) + "\n"
    for size in range(len(line) + 1):
        (tmp_path / journal.OWED).write_text(line + line.replace('"a"', '"b"')[:size])
        expected = ["a", "b"] if size == len(line) else ["a"]
        assert [entry["id"] for entry in journal.owed(str(tmp_path))] == expected


def test_a_dead_guardian_means_no_fault(tmp_path: Path) -> None:
    """Without its guardian the owner is told, and nothing can be protected any more."""
    told: list[str] = []

    async def main() -> None:
        guardian = await guard.start(tmp_path, on_halt=told.append)
        guardian.process.kill()
        await guardian.process.wait()
        with pytest.raises(FaultError, match="guardian is gone"):
            await guardian.protect([Undo(id="x", action="unlink", arguments={"path": "x"})])
        await guardian.close()

    asyncio.run(main())
    assert told == ["guardian-lost"]


def test_a_second_guardian_for_one_folder_is_refused(tmp_path: Path) -> None:
    """Two guardians would pay everything twice: the second says so and does not start."""

    async def main() -> None:
        first = await guard.start(tmp_path)
        with pytest.raises(FaultError, match="did not start") as caught:
            await guard.start(tmp_path)
        assert "another guardian" in caught.value.hint
        await first.close()

    asyncio.run(main())


def test_an_answer_that_nobody_waits_for_any_more_is_not_taken_for_another(tmp_path: Path) -> None:
    """After a cancelled question the next one gets its own answer."""

    async def ask() -> list[str]:
        guardian = await guard.start(tmp_path)
        undos = [
            Undo(id=str(n), action="unlink", arguments={"path": str(tmp_path / str(n))}) for n in range(3)
        ]
        for undo in undos[:2]:
            cancelled = asyncio.ensure_future(guardian.protect([undo]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            cancelled.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await cancelled
        await guardian.protect(undos[2:])
        outcomes = await guardian.undo()
        await guardian.close()
        return sorted(outcome.undo_id for outcome in outcomes)

    assert asyncio.run(ask()) == ["0", "1", "2"]


PARENT = textwrap.dedent(
    """
    import subprocess, sys
    from blackstart.host.lifeline import Lifeline
    line = Lifeline()
    command = [sys.executable, "-c", sys.argv[1], sys.argv[2], str(line.fd)]
    child = subprocess.Popen(command, pass_fds=(line.fd,), start_new_session=True)
    sys.stdin.readline()
    line.let_go()
    sys.stdin.readline()
    """
)
LIVED_WITH = textwrap.dedent(
    """
    import asyncio, os, signal, subprocess, sys
    from pathlib import Path
    from blackstart.engine import guard, locks
    from blackstart.model.fault import Undo

    async def main(run, parents):
        lock = locks.hold(str(run), locks.OWNER_LOCK)
        guardian = await guard.start(run, parents=parents)
        # What a thread in the middle of a system call would be: the end of the link does not come yet.
        link = guardian._writer.get_extra_info("socket").fileno()
        keeps = subprocess.Popen(["sleep", "600"], pass_fds=(link,))
        (run / "file").write_text("x")
        await guardian.protect([Undo(id="file", action="unlink", arguments={"path": str(run / "file")})])
        print(os.getpid(), guardian.process.pid, keeps.pid, flush=True)
        await asyncio.sleep(600)

    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
    """
)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start an owner and its parent; yields the parent, and pids: owner, guardian, who keeps the link."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, LIVED_WITH, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    yield parent, pids
    for pid in (*pids, parent.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    parent.communicate()


@pytest.mark.parametrize("who", ["owner", "parent"])
def test_the_guardian_acts_before_the_dead_is_gone_and_once_more_after(
    family: tuple[subprocess.Popen[str], list[int]], tmp_path: Path, who: str
) -> None:
    """The death alone is enough; what still came to be before the end of the link is taken back, too."""
    parent, (owner, guardian, keeps) = family
    os.kill(owner if who == "owner" else parent.pid, signal.SIGKILL)
    assert poll(lambda: journal.read(str(tmp_path), journal.PAID) != [])
    assert not (tmp_path / "file").exists()
    assert poll(lambda: dead(owner))
    assert not dead(guardian)
    (tmp_path / "file").write_text("what the dead was still about to do")
    os.kill(keeps, signal.SIGKILL)
    assert poll(lambda: dead(guardian))
    assert not (tmp_path / "file").exists()
    assert journal.owed(str(tmp_path)) == []
    assert list(openruns.noted()) == []


def test_a_parent_that_lets_go_is_no_reason_to_act(
    family: tuple[subprocess.Popen[str], list[int]], tmp_path: Path
) -> None:
    """As long as both live, and after the parent has let go, nothing is taken back."""
    parent, (owner, guardian, _) = family
    assert parent.stdin is not None
    parent.stdin.write("let go\n")
    parent.stdin.flush()
    assert not poll(lambda: journal.read(str(tmp_path), journal.PAID) != [], limit_s=0.5)
    assert not dead(owner)
    assert not dead(guardian)


def test_of_several_outcomes_the_last_one_counts(tmp_path: Path) -> None:
    """What was taken back, and then was found in place again, is owed."""
    run = str(tmp_path)
    journal.append(run, journal.OWED, [{"id": "x", "action": "unlink", "arguments": {"path": "x"}}])
    for verified, owed in ((False, ["x"]), (True, []), (False, ["x"]), (None, [])):
        journal.append(run, journal.PAID, [{"id": "x", "verified": verified}])
        assert [one["id"] for one in journal.owed(run)] == owed


def test_an_undo_that_was_carried_out_is_owed_again_when_its_fault_comes_again(tmp_path: Path) -> None:
    """The same process stopped a second time: killed then, the next start knows of it."""
    one = Undo(id="x", action="unlink", arguments={"path": str(tmp_path / "x")})

    async def main() -> list[str]:
        guardian = await guard.start(tmp_path)
        owed = []
        for _ in range(2):
            await guardian.protect([one])
            owed += [entry["id"] for entry in journal.owed(str(tmp_path))]
            await guardian.undo(["x"])
        await guardian.close()
        return owed

    assert asyncio.run(main()) == ["x", "x"]
    assert journal.owed(str(tmp_path)) == []


def test_what_is_held_already_is_held_once_and_what_differs_beside_it(tmp_path: Path) -> None:
    """The same undo twice is one; another of the same name is carried out as well, the newest first."""

    def named(path: str) -> Undo:
        return Undo(id="x", action="unlink", arguments={"path": str(tmp_path / path)})

    async def main() -> list[str]:
        guardian = await guard.start(tmp_path)
        for path in ("a", "a", "b", "a"):
            await guardian.protect([named(path)])
        outcomes = await guardian.undo(["x"])
        await guardian.close()
        return [str(outcome.evidence["path"]) for outcome in outcomes]

    assert asyncio.run(main()) == [str(tmp_path / "b"), str(tmp_path / "a")]
    assert len(journal.read(str(tmp_path), journal.OWED)) == 2
    assert journal.owed(str(tmp_path)) == []


def test_what_a_verb_needs_is_there_before_it_must_act() -> None:
    """The guardian, which has no packages, can import all of it; and it does so when it takes an undo on."""
    script = (
        "import sys\n"
        "from blackstart.engine import verbs\n"
        "slow = [name for family in verbs._FAMILIES for name in getattr(family, 'NEEDS', ())]\n"
        "assert slow\n"
        "def ready(*actions): verbs.make_ready([{'action': one, 'arguments': {}} for one in actions])\n"
        "ready('continue')\n"
        "assert 'blackstart.host.cgroups' not in sys.modules\n"
        "ready(*verbs.VERBS)\n"
        "print(*sorted(set(slow) - set(sys.modules)))\n"
    )
    source = {**os.environ, "PYTHONPATH": str(Path(guard.__file__).parents[2])}
    command = [sys.executable, "-S", "-s", "-c", script]
    done = subprocess.run(command, env=source, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.skipif(not importlib.util.find_spec("asyncpg"), reason="no asyncpg")
def test_the_client_of_a_database_is_there_before_it_is_needed() -> None:
    """It lies among the packages, without which the guardian starts; a missing one breaks nothing."""
    where = str(Path(str(importlib.util.find_spec("asyncpg").origin)).parents[1])  # type: ignore[union-attr]
    script = (
        "import sys\n"
        "from blackstart.engine import verbs\n"
        "for packages in ('/nowhere', sys.argv[1]):\n"
        "    verbs.make_ready([{'action': 'sql', 'arguments': {'packages': packages}}])\n"
        "    print('asyncpg' in sys.modules)\n"
    )
    source = {**os.environ, "PYTHONPATH": str(Path(guard.__file__).parents[2])}
    command = [sys.executable, "-S", "-s", "-c", script, where]
    done = subprocess.run(command, env=source, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_the_kill_switch_is_pulled_before_anything_else_is_imported() -> None:
    """The undos' code is fetched only by who needs it: for a live run its own guardian does the work."""
    script = (
        "import sys\n"
        "from blackstart.cli.halt import halt\n"
        "from pathlib import Path\n"
        "assert halt(Path('/nowhere')) == 0\n"
        "print('blackstart.engine.verbs' in sys.modules, file=sys.stderr)\n"
    )
    source = {**os.environ, "PYTHONPATH": str(Path(guard.__file__).parents[2]), "XDG_STATE_HOME": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=source, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "False"


def test_an_undo_is_synced_before_it_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer lets the fault begin: by then the disk has every byte of the record, and its name."""
    told: list[tuple[str, int]] = []
    really, run = os.fsync, str(tmp_path)

    def synced(handle: int) -> None:
        really(handle)
        path = Path(f"/proc/self/fd/{handle}").readlink()
        told.append((str(path), path.stat().st_size if path.is_file() else 0))

    def said(guardian: Guardian, answer: dict[str, object]) -> None:
        written = Path(run, journal.OWED).stat().st_size
        told.append(("answered" if "protected" in answer else str(answer), written))

    monkeypatch.setattr("blackstart.engine.journal.os.fsync", synced)
    monkeypatch.setattr(Guardian, "_say", said)
    _, link = socket.socketpair()
    try:
        guardian = Guardian(run, link)
        for number in (1, 2):
            undo = {"id": f"x{number}", "action": "continue", "arguments": {"pid": 1}}
            assert guardian._answer({"number": number, "protect": [undo]})
    finally:
        signal.set_wakeup_fd(-1)
    journal_file = f"{run}/{journal.OWED}"
    first = told[0][1]
    whole = Path(journal_file).stat().st_size
    assert told == [
        (journal_file, first),
        (run, 0),
        ("answered", first),
        (journal_file, whole),
        ("answered", whole),
    ]
    assert 0 < first < whole


def test_a_fault_waits_for_the_answer(tmp_path: Path) -> None:
    """While the guardian has not said that the record is safe, `protect` does not return."""

    async def wait() -> bool:
        guardian = await guard.start(tmp_path)
        pid = locks.holder(str(tmp_path), locks.GUARDIAN_LOCK)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        undo = Undo(id="x", action="continue", arguments={"pid": 2**22 + 1, "start_ticks": 1})
        asking = asyncio.ensure_future(guardian.protect([undo]))
        done, _ = await asyncio.wait([asking], timeout=0.3)
        os.kill(pid, signal.SIGCONT)
        await asking
        await guardian.undo(None)
        await guardian.close()
        return bool(done)

    assert asyncio.run(wait()) is False
