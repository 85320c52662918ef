from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from target_kit import Clock, Notes, manifest, rig, until

from blackstart.errors import ManifestError, TargetError
from blackstart.host import procs, refs
from blackstart.model.manifest import Component, Manifest, Process, Ready
from blackstart.target import ports
from blackstart.target.rig import build

if TYPE_CHECKING:
    from blackstart.model.fault import ProcessRef

# Serves TCP on a port, and starts a grandchild in a session of its own that outlives its parent.
SERVER = """
import os, socket, subprocess, sys, time
s = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(sys.argv[2], "w").write(str(child.pid))
while True:
    s.accept()
"""


def serving(folder: Path) -> Manifest:
    """Return a manifest of the server above."""
    command = ["{python}", "-c", SERVER, "{port.a}", str(folder / "grandchild")]
    described = manifest(command, ready=Ready(tcp="127.0.0.1:{port.a}", limit_s=10.0))
    return msgspec.structs.replace(described, ports=("a",))


def test_a_killed_process_is_noticed_and_started_again(tmp_path: Path) -> None:
    """Death, start and readiness are recorded in order; each start is under protection before it happens."""

    async def run() -> None:
        async with rig(serving(tmp_path), tmp_path / "run") as (made, notes):
            first = await made.target.process("main")
            assert any(undo.arguments["pid"] == first.pid for undo in notes.undos)
            os.kill(first.pid, signal.SIGKILL)
            await until(lambda: notes.seen("exited"))
            assert notes.seen("exited")[0].detail == {"status": -signal.SIGKILL}
            with pytest.raises(TargetError, match="not running"):
                await made.target.process("main")
            await made.target.start("server")
            second = await made.target.process("main")
            assert second != first
            told = [record.what for record in notes.seen_all()]
            assert told == ["starting", "started", "ready", "exited", "starting", "started", "ready"]
            assert any(undo.arguments["pid"] == second.pid for undo in notes.undos)

    asyncio.run(run())


def test_a_process_whose_end_somebody_else_heard_first_is_started_again(tmp_path: Path) -> None:
    """A fault may hear of a death before the operator, who then must not call it running."""

    async def run() -> None:
        async with rig(serving(tmp_path), tmp_path / "run") as (made, _):
            first = await made.target.process("main")
            os.kill(first.pid, signal.SIGKILL)
            while refs.alive(first):  # our loop gets no turn meanwhile
                continue
            await made.target.start("server")
            assert await made.target.process("main") != first

    asyncio.run(run())


def test_closing_leaves_nothing_not_even_orphans_in_other_sessions(tmp_path: Path) -> None:
    """A grandchild that made a session of its own and lost its parent is found and ended."""

    async def run() -> int:
        async with rig(serving(tmp_path), tmp_path / "run") as (made, notes):
            ref = await made.target.process("main")
            await until((tmp_path / "grandchild").exists)
            await until((tmp_path / "grandchild").read_text)
            os.kill(ref.pid, signal.SIGKILL)
            await until(lambda: notes.seen("exited"))
        return int((tmp_path / "grandchild").read_text())

    orphan = asyncio.run(run())
    found = procs.stat(orphan)
    assert found is None or found.dead


def test_a_restart_clears_what_the_life_before_left(tmp_path: Path) -> None:
    """An operator does not start a server beside the remains of the last one."""

    async def run() -> None:
        async with rig(serving(tmp_path), tmp_path / "run") as (made, notes):
            await until(lambda: (tmp_path / "grandchild").exists() and (tmp_path / "grandchild").read_text())
            orphan = int((tmp_path / "grandchild").read_text())
            os.kill((await made.target.process("main")).pid, signal.SIGKILL)
            await until(lambda: notes.seen("exited"))
            await made.target.start("server")
            found = procs.stat(orphan)
            assert found is None or found.dead

    asyncio.run(run())


def test_a_process_that_ignores_sigterm_is_killed_after_its_limit(tmp_path: Path) -> None:
    """Closing always ends."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
    described = manifest(["{python}", "-c", code], ready=Ready(log="^up"), stop_limit_s=0.2)

    async def run() -> ProcessRef:
        async with rig(described, tmp_path) as (made, _):
            return await made.target.process("main")

    ref = asyncio.run(run())
    assert not procs.is_alive(ref.pid, ref.start_ticks)


def opening(described: Manifest, folder: Path) -> str:
    """Return the error of a target that does not open; nothing of it may be left."""

    async def run() -> str:
        with pytest.raises((TargetError, ManifestError)) as caught:
            async with rig(described, folder):
                pass
        return str(caught.value)

    text = asyncio.run(run())
    census = procs.Census()
    left = [one for one in census.table if census.carries(one.pid, f"{folder}:server#1")]
    assert left == []
    return text


def test_a_process_that_dies_at_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    """The error has the status and the end of the log."""
    described = manifest(
        ["{python}", "-c", "print('no licence'); raise SystemExit(3)"], ready=Ready(file="x")
    )
    text = opening(described, tmp_path)
    assert "server: ended before it was ready (status 3)" in text
    assert "no licence" in text


def test_a_server_that_never_becomes_ready_is_told_after_its_limit(tmp_path: Path) -> None:
    """The limit is the manifest's."""
    code = "import time; print('thinking'); time.sleep(600)"
    described = manifest(["{python}", "-c", code], ready=Ready(file="{run}/never", limit_s=0.5))
    text = opening(described, tmp_path)
    assert "not ready after 0.5 s" in text
    assert "thinking" in text


def test_a_command_that_does_not_exist_is_told(tmp_path: Path) -> None:
    """The launcher's reason is the log's last line."""
    text = opening(manifest(["/no/such/program"], ready=Ready(file="x")), tmp_path)
    assert "cannot execute /no/such/program" in text


def test_a_taken_port_names_its_owner(tmp_path: Path) -> None:
    """Somebody else's server must not be taken for the target."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        described = manifest(["{python}", "-c", "1"], ready=Ready(tcp=f"127.0.0.1:{port}"))
        text = opening(described, tmp_path)
    assert f"port 127.0.0.1:{port} is taken by pid {os.getpid()}" in text


def test_a_stale_file_does_not_make_a_process_ready(tmp_path: Path) -> None:
    """The ready file of an earlier life is removed before the start."""
    (tmp_path / "ready").touch()
    code = "import time; time.sleep(600)"
    described = manifest(["{python}", "-c", code], ready=Ready(file="{run}/ready", limit_s=0.3))
    assert "not ready" in opening(described, tmp_path)


def test_preparation_runs_before_the_first_start_and_after_a_wipe(tmp_path: Path) -> None:
    """`prepare` makes the state that the command needs; it is not repeated while the state is there."""
    make = "import os, sys; os.mkdir(sys.argv[1]); print('prepared')"
    serve = "import os, sys, time; os.listdir(sys.argv[1]); print('up', flush=True); time.sleep(600)"
    state = str(tmp_path / "state")
    described = manifest(
        ["{python}", "-c", serve, state],
        prepare=("{python}", "-c", make, state),
        state=(state,),
        ready=Ready(log="^up"),
    )

    async def run() -> None:
        async with rig(described, tmp_path / "run") as (made, notes):
            for wipe in (False, True):
                before = len(notes.seen("exited"))
                os.kill((await made.target.process("main")).pid, signal.SIGKILL)
                await until(lambda before=before: len(notes.seen("exited")) > before)
                if wipe:
                    (path,) = made.target.state_paths("server")
                    path.rmdir()
                await made.target.start("server")

    asyncio.run(run())
    assert (tmp_path / "run/logs/server.log").read_text().count("prepared") == 2


def test_a_preparation_that_fails_is_told(tmp_path: Path) -> None:
    """What cannot be prepared is not started."""
    described = manifest(["true"], prepare=("{python}", "-c", "raise SystemExit('disk full')"))
    text = opening(described, tmp_path)
    assert "server.prepare" in text
    assert "disk full" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to leave root")
def test_an_unprivileged_process_is_not_root(tmp_path: Path) -> None:
    """Blackstart as root starts servers that refuse root."""
    code = "import os, time; print('uid', os.geteuid()); open('mine', 'w').close(); time.sleep(600)"
    described = manifest(["{python}", "-c", code], ready=Ready(log=r"^uid [1-9]"), user="unprivileged")

    async def run() -> None:
        async with rig(described, tmp_path):
            await until((tmp_path / "mine").exists)

    asyncio.run(run())


def test_components_are_found_by_pid_file_and_watched(tmp_path: Path) -> None:
    """A process that others started is found anew at each use, and its death is told by the kernel."""
    described = Manifest(
        schema=1, name="t", environment="test", components={"main": Component(pid_file=str(tmp_path / "pid"))}
    )

    async def run() -> None:
        async with rig(described, tmp_path / "run") as (made, notes):
            with pytest.raises(TargetError, match="no pid"):
                await made.target.process("main")
            other = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)")
            (tmp_path / "pid").write_text(f"{other.pid}\n")
            ref = await made.target.watch("main")
            assert ref.pid == other.pid
            other.kill()
            await made.target.death(ref)
            assert [record.pid for record in notes.seen("exited")] == [other.pid]
            await other.wait()
            with pytest.raises(TargetError, match="not running"):
                await made.target.process("main")

    asyncio.run(run())


def test_the_endpoints_of_a_process_become_variables(tmp_path: Path) -> None:
    """A later process, and the process's own readiness, can use what it tells of itself."""
    first = textwrap.dedent("""
        import json, os, socket, sys
        s = socket.create_server(("127.0.0.1", 0))
        open(sys.argv[1] + ".tmp", "w").write(json.dumps({"at": {"port": s.getsockname()[1]}}))
        os.rename(sys.argv[1] + ".tmp", sys.argv[1])
        while True: s.accept()
    """)
    second = "import sys, time; print('got', sys.argv[1], flush=True); time.sleep(600)"
    described = Manifest(
        schema=1,
        name="t",
        environment="test",
        processes={
            "one": Process(
                command=("{python}", "-c", first, "{run}/e.json"),
                endpoints="{run}/e.json",
                ready=Ready(tcp="127.0.0.1:{one.at.port}"),
            ),
            "two": Process(command=("{python}", "-c", second, "{one.at.port}"), ready=Ready(log="^got")),
        },
    )

    async def run() -> None:
        async with rig(described, tmp_path) as (made, _):
            port = made.target.expand("{one.at.port}", where="test")
            assert (tmp_path / "logs/two.log").read_text() == f"got {port}\n"

    asyncio.run(run())


def test_nothing_survives_the_sudden_death_of_blackstart(tmp_path: Path) -> None:
    """Killed with SIGKILL, Blackstart takes its processes along, by the kernel's hand."""
    script = textwrap.dedent(f"""
        import asyncio, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from target_kit import manifest, rig
        from blackstart.model.manifest import Ready
        async def run():
            code = "import time; print('up', flush=True); time.sleep(600)"
            m = manifest(["{{python}}", "-c", code], ready=Ready(log="^up"))
            async with rig(m, Path({str(tmp_path)!r})) as (made, notes):
                print(*[undo.arguments["pid"] for undo in notes.undos], flush=True)
                await asyncio.sleep(600)
        asyncio.run(run())
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2  # the process and the spare that waits for its restart
    end = time.monotonic() + 10
    while any((one := procs.stat(pid)) is not None and not one.dead for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_guardian_that_cannot_protect_prevents_the_start(tmp_path: Path) -> None:
    """No undo record, no process."""
    notes = Notes()

    async def refuse(_: object) -> None:
        raise TargetError("no guardian")

    async def run() -> None:
        described = manifest(["{python}", "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"])
        made = build(
            described, run_dir=tmp_path, seed=1, clock=Clock(), sink=notes.records.append, protect=refuse
        )
        with pytest.raises(TargetError, match="no guardian"):
            await made.target.open()

    asyncio.run(run())
    assert not (tmp_path / "ran").exists()


def test_ports_are_free_distinct_and_never_a_clients() -> None:
    """A client that tries to reconnect must not be given the server's port by the kernel."""
    given = ports.allocate([f"p{n}" for n in range(20)], random.Random(3))
    low, high = ports.client_range()
    assert len(set(given.values())) == 20
    assert all(ports.is_free(port) and not low <= port <= high for port in given.values())
