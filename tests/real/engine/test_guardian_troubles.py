"""The guardian on a disk that is full, at the kill switch beside others' runs, and when work is under way."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ordinary_user
import pytest

from blackstart.cli.halt import halt as halt_command
from blackstart.engine import alarm, guard, journal, leftovers, locks, openruns
from blackstart.errors import FaultError
from blackstart.model.fault import Undo

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL = textwrap.dedent(
    """
    import asyncio, json, sys
    from pathlib import Path
    from blackstart.engine import guard, journal
    from blackstart.host import mounts
    from blackstart.model.fault import Undo

    async def main(run):
        mounts.tmpfs(str(run), 1 << 20)
        guardian = await guard.start(run)
        held, refused = [], None

        async def protect(number):
            path = str(run / f"{number}{'x' * 300}")
            await guardian.protect([Undo(id=f"{number}", action="unlink", arguments={"path": path})])
            held.append(f"{number}")

        await protect(0)
        ballast = mounts.Ballast(str(run))
        ballast.fill()
        for number in range(1, 40):  # the last page of the journal has room yet
            try:
                await protect(number)
            except OSError as error:
                refused = error.errno
                break
        whole = (run / journal.OWED).read_bytes().endswith(b"\\n")
        told = [one["id"] for one in journal.owed(str(run))] == held
        ballast.close()
        await protect(99)
        owed = [one["id"] for one in journal.owed(str(run))]
        await guardian.close()
        print(json.dumps({"refused": refused, "whole": whole, "told": told, "held": held, "owed": owed}))

    asyncio.run(main(Path(sys.argv[1])))
    """
)


@pytest.fixture(autouse=True)
def own_index(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the other runs of whoever runs the tests alone."""
    place = tmp_path_factory.mktemp("open")
    monkeypatch.setenv("XDG_STATE_HOME", str(place))
    monkeypatch.setattr(openruns, "places", lambda: [str(place / "blackstart" / "open")])


def mounts_of_its_own() -> tuple[str, ...]:
    """Return the command that gives a program mounts of its own; skips where there is none."""
    command = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-Urm")
    tried = subprocess.run((*command, "true"), capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no mounts of its own here: {tried.stderr.strip()}")
    return command


def test_on_a_full_disk_no_undo_is_half_written(tmp_path: Path) -> None:
    """The kernel fills the journal's last page without an error: what does not fit is refused."""
    command = (*mounts_of_its_own(), sys.executable, "-c", FULL, str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["refused"] == 28
    assert found["whole"]
    assert found["told"], "what was acknowledged is owed, and nothing else"
    assert len(found["held"]) > 3, "the page had room for some"
    assert found["owed"] == found["held"], "what comes later is not glued to a torn line"


@pytest.mark.parametrize("end", ["goodbye", "death"])
def test_the_kill_switch_looks_once_more_when_all_is_at_rest(tmp_path: Path, end: str) -> None:
    """What was under way when it was pulled, and came to be after the first look, is taken back, too."""
    told: list[str] = []
    file = tmp_path / "late"

    async def main() -> None:
        halted = asyncio.Event()

        def heard(why: str) -> None:
            told.append(why)
            halted.set()

        guardian = await guard.start(tmp_path, on_halt=heard)
        await guardian.protect([Undo(id="late", action="unlink", arguments={"path": str(file)})])
        guard.halt_now(guardian)
        async with asyncio.timeout(10):
            await halted.wait()
        with pytest.raises(FaultError, match="guardian is gone"):
            await guardian.undo()  # answered when it has looked for the first time
        assert journal.owed(str(tmp_path)) == []
        file.write_text("a system call that came to its end only now")
        if end == "death":
            guardian._writer.close()
        await guard.last_undo(guardian, str(tmp_path), by="test")

    asyncio.run(main())
    assert told == ["halted"]
    assert not file.exists()
    outcomes = journal.read(str(tmp_path), journal.PAID)
    assert [(one["id"], one["verified"], one["by"]) for one in outcomes] == [("late", True, "halt")] * 2
    assert list(openruns.noted()) == []


def test_a_fault_that_cannot_be_ended_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Past its time it is tried once, and then not at every turn; who asks meanwhile is answered."""

    async def main() -> float:
        guardian = await guard.start(tmp_path)
        never = Undo(id="never", action="unlink", arguments={"path": "/etc/x"}, expires_mono_ns=1)
        await guardian.protect([never])
        await asyncio.sleep(1.5)
        began = time.monotonic()
        await guardian.protect([Undo(id="x", action="unlink", arguments={"path": str(tmp_path / "x")})])
        took = time.monotonic() - began
        await guardian.close()
        return took

    assert asyncio.run(main()) < 1.0
    tried = journal.read(str(tmp_path), journal.PAID)
    assert [(one["id"], one["verified"], one["by"]) for one in tried] == [("never", False, "lifetime")]


HALTING = textwrap.dedent(
    """
    import asyncio, json
    from pathlib import Path
    from blackstart.engine import guard, journal, leftovers, locks
    from blackstart.errors import FaultError
    from blackstart.model.fault import Undo

    async def main(run):
        run.mkdir()
        lock = locks.hold(str(run), locks.OWNER_LOCK)
        guardian = await guard.start(run)
        (run / "file").write_text("x")
        await guardian.protect([Undo(id="file", action="unlink", arguments={"path": str(run / "file")})])
        try:
            leftovers.clear(run.parent)
            refused = None
        except FaultError as error:
            refused = error.render()
        halted = await asyncio.to_thread(leftovers.halt, run.parent)
        await guardian.close()
        owed = {folder.name: [one["id"] for one in left] for folder, left in halted}
        print(json.dumps({"refused": refused, "owed": owed, "left": (run / "file").exists()}))

    asyncio.run(main(Path(RUNS) / "b-ours"))
    """
)


@pytest.fixture
def shared() -> Iterator[Path]:
    """Make a folder of runs in which all may write, with a dead run of somebody else that owes something."""
    runs = Path(tempfile.mkdtemp(prefix="blackstart-shared-"))
    runs.chmod(0o777)
    other = runs / "a-other"
    other.mkdir()
    owed = {"id": "theirs", "action": "unlink", "arguments": {"path": str(other / "x")}}
    journal.append(str(other), journal.OWED, [owed])
    for name in (locks.OWNER_LOCK, locks.GUARDIAN_LOCK):
        (other / name).write_text("1")
        (other / name).chmod(0o444)
    other.chmod(0o555)
    yield runs
    other.chmod(0o755)
    shutil.rmtree(runs)


def test_the_kill_switch_goes_past_a_run_that_it_may_not_write(shared: Path) -> None:
    """Another user's dead run is told, with who can take it back; the own one behind it is halted."""
    found = json.loads(ordinary_user.run(f"RUNS = {str(shared)!r}{HALTING}", needs="msgspec"))
    assert found["owed"] == {"a-other": ["theirs"], "b-ours": []}
    assert not found["left"]
    command = f"sudo -u '#{os.geteuid()}' blackstart halt --out {shared}"
    assert "LEFT IN PLACE" in found["refused"]
    assert command in found["refused"]
    assert not (shared / "a-other" / alarm.HALT).exists()


def test_a_full_disk_does_not_keep_the_kill_switch_from_calling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file cannot be made the guardian is called by its signal."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "file").write_text("x")

    really = os.open

    def full(path: Any, *more: Any, **named: Any) -> int:
        if str(path).endswith(f"/{alarm.HALT}"):
            raise OSError(28, "No space left on device")
        return really(path, *more, **named)

    async def main() -> list[Any]:
        guardian = await guard.start(run)
        await guardian.protect([Undo(id="file", action="unlink", arguments={"path": str(run / "file")})])
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", full)
            halted = await asyncio.to_thread(leftovers.halt, tmp_path)
        await guardian.close()
        return halted

    assert asyncio.run(main()) == [(run, [])]
    assert not (run / "file").exists()


def test_a_run_that_has_paid_before_it_is_looked_at_is_told_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The alarm may be quicker than the search: what it took back is not "nothing was broken"."""
    run = tmp_path / "elsewhere"
    run.mkdir()
    (run / "file").write_text("x")

    async def main() -> list[str]:
        halted = asyncio.Event()
        guardian = await guard.start(run, on_halt=lambda _why: halted.set())
        await guardian.protect([Undo(id="file", action="unlink", arguments={"path": str(run / "file")})])
        called = alarm.sound()
        await asyncio.wait_for(halted.wait(), 30)
        await guardian.close()
        return called

    called = asyncio.run(main())
    assert called == [str(run)]
    assert not (run / "file").exists()
    assert openruns.noted() == []
    assert halt_command(tmp_path / "none", called=called) == 0
    assert capsys.readouterr().out == f"{run}: taken back\n"


def test_the_alarm_is_sounded_once_and_by_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call leaves the stamp of the first; the pid of a dead guardian gets no signal."""
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("nobody holds the lock"))
    (tmp_path / locks.GUARDIAN_LOCK).write_text(str(os.getpid()))
    assert not alarm.call(str(tmp_path))
    os.utime(tmp_path / alarm.HALT, ns=(1, 1))
    assert not alarm.call(str(tmp_path))
    assert (tmp_path / alarm.HALT).stat().st_mtime_ns == 1
