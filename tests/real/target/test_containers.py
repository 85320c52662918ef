"""Containers of a real docker engine: found, broken, stopped and started by the engine, left as they were."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socketserver
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

import docker_kit
import pytest
from managed_kit import Context, Owner, described, killed_while_broken, waits
from target_kit import until

from blackstart.cli import doctor
from blackstart.engine import verbs
from blackstart.errors import TargetError
from blackstart.host import managed, procs
from blackstart.target.managed import problems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docker_kit import Docker

SLEEP = ("/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")


@pytest.fixture(scope="module")
def engine() -> Iterator[Docker]:
    """Have a docker engine of our own."""
    if (why := docker_kit.missing()) is not None:
        pytest.skip(why)
    with docker_kit.running() as made:
        yield made


@pytest.fixture
def docker(engine: Docker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Docker]:
    """Have Blackstart find it, and remove its containers afterwards."""
    for key, text in engine.environment.items():
        monkeypatch.setenv(key, text)
    yield engine
    for name in engine.docker("ps", "--all", "--quiet").stdout.split():
        engine.docker("rm", "--force", name)


def restart(policy: str) -> tuple[str, ...]:
    """Return the option for a restart policy."""
    return ("--restart", policy)


def test_a_container_that_the_engine_restarts_is_found_again(docker: Docker, tmp_path: Path) -> None:
    """A kill from outside is a death: the engine brings it back, and the new process is recorded."""
    docker.run("engine", *SLEEP, options=restart("always"))

    async def run() -> None:
        ctx = Context(described(main={"container": "engine"}), tmp_path)
        await ctx.target.open()
        assert ctx.target.manifest.components["main"].restart == "self"
        first = await ctx.target.watch("main")
        assert first.pid == docker.main_pid("engine")
        receipt, witness = await ctx.carry_out("kill")
        assert witness.bit
        await until(lambda: ctx.notes.seen("exited"))
        await until(lambda: docker.main_pid("engine") not in (0, first.pid))
        second = await ctx.target.process("main")
        assert second.pid == docker.main_pid("engine")
        (started,) = ctx.notes.seen("started")
        assert started.pid == second.pid
        assert receipt.t0_mono_ns - started.uncertainty_ns < started.mono_ns < time.monotonic_ns()
        assert docker.value("engine", ".RestartCount") == "1"
        await ctx.target.close()

    asyncio.run(run())


def test_a_container_that_nobody_restarts_is_started_by_its_operator(docker: Docker, tmp_path: Path) -> None:
    """Without a restart policy Blackstart is the operator; its neighbours are left alone."""
    docker.run("engine", *SLEEP)
    docker.run("neighbour", *SLEEP)
    neighbour = docker.main_pid("neighbour")

    async def run() -> None:
        ctx = Context(described(main={"container": "engine"}), tmp_path)
        await ctx.target.open()
        assert ctx.target.manifest.components["main"].restart == "blackstart"
        first = await ctx.target.process("main")
        _, witness = await ctx.carry_out("kill")
        assert witness.bit
        assert await ctx.target.process("main") != first
        assert [one.what for one in ctx.notes.seen_all()] == ["starting", "started"]

    asyncio.run(run())
    assert docker.main_pid("neighbour") == neighbour


def test_a_clean_stop_is_asked_of_the_engine(docker: Docker, tmp_path: Path) -> None:
    """As by `docker stop`: the restart policy does not undo it, and the program ends by itself."""
    docker.run("engine", *SLEEP, options=restart("always"))
    first = docker.main_pid("engine")

    async def run() -> None:
        ctx = Context(described(main={"container": "engine"}), tmp_path)
        await ctx.target.open()
        receipt, witness = await ctx.carry_out("terminate")
        assert witness.bit
        assert receipt.mechanism == "docker stop engine"
        assert witness.evidence["main"]["status"] == 0
        assert (await ctx.target.process("main")).pid not in (0, first)

    asyncio.run(run())
    assert docker.value("engine", ".RestartCount") == "0"
    assert docker.value("engine", ".State.OOMKilled") == "false"


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_stopped_container_stays_down_for_its_time(docker: Docker, tmp_path: Path, how: str) -> None:
    """Whatever its restart policy says, and it runs afterwards."""
    docker.run("engine", *SLEEP, options=restart("always"))

    async def run() -> None:
        ctx = Context(described(main={"container": "engine"}), tmp_path)
        await ctx.target.open()
        receipt, witness = await asyncio.wait_for(ctx.carry_out("stop_service", duration_s=1.5, how=how), 60)
        assert witness.bit
        after = await ctx.target.process("main")
        assert after not in receipt.processes.values()
        await until(lambda: (found := procs.stat(after.pid)) is not None and not found.stopped)

    asyncio.run(run())


WAYS = [("terminate", "always"), ("kill", "no"), ("pause_service", "always")]


@pytest.mark.parametrize(("kind", "policy"), WAYS)
def test_a_container_runs_again_when_blackstart_is_killed(
    docker: Docker, tmp_path: Path, kind: str, policy: str
) -> None:
    """The guardian starts what was stopped, and wakes what was paused."""
    docker.run("held", *SLEEP, options=restart(policy))
    before = docker.main_pid("held")
    owner = Owner(tmp_path / "run", "container", "held", kind)
    killed_while_broken(owner, before)
    docker.until(lambda: docker.value("held", ".State.Running") == "true" and waits(docker.main_pid("held")))
    assert (docker.main_pid("held") == before) == (kind == "pause_service")


SLOW = ("/bin/sh", "-c", "trap 'sleep 2; exit 0' TERM; while :; do sleep 0.1; done")


@pytest.mark.parametrize("policy", ["no", "always"])
def test_a_container_that_is_still_being_stopped_runs_afterwards(
    docker: Docker, tmp_path: Path, policy: str
) -> None:
    """The engine calls it running until it has ended, and no policy brings it back then: its undo waits."""
    docker.run("slow", *SLOW, options=restart(policy))
    first = docker.main_pid("slow")

    async def run() -> list[tuple[bool | None, dict[str, Any]]]:
        ctx = Context(described(main={"container": "slow"}), tmp_path)
        await ctx.target.open()
        await ctx.target.ask_stop("main")
        assert docker.value("slow", ".State.Running") == "true"
        return await asyncio.to_thread(ctx.last_undo)

    outcomes = asyncio.run(run())
    assert [verified for verified, _ in outcomes] == [True, True]
    assert outcomes[-1][1]["pid"] == docker.main_pid("slow") not in (0, first)


def test_a_container_that_was_not_stopped_after_all_is_left_alone(docker: Docker, tmp_path: Path) -> None:
    """Its undo was written down before the engine was asked: nothing came of that."""
    docker.run("kept", *SLEEP, options=("--stop-timeout", "0"))
    first = docker.main_pid("kept")

    async def run() -> list[tuple[bool | None, dict[str, Any]]]:
        ctx = Context(described(main={"container": "kept"}), tmp_path)
        await ctx.target.open()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(managed, "ask_stop", lambda _place: None)
            await ctx.target.ask_stop("main")
        return await asyncio.to_thread(ctx.last_undo)

    assert [verified for verified, _ in asyncio.run(run())] == [True, True]
    assert docker.main_pid("kept") == first


def test_what_cannot_be_attached_is_said_clearly(docker: Docker, tmp_path: Path) -> None:
    """Removed, stopped, paused, found by the beginning of its id only: each is one error that says so."""
    docker.run("off", *SLEEP)
    docker.docker("stop", "off")
    docker.run("still", *SLEEP)
    docker.docker("pause", "still")
    docker.run("once", *SLEEP, options=("--rm",))
    docker.run("other", *SLEEP)
    identifier = docker.value("other", ".Id")

    def said(name: str) -> str:
        ctx = Context(described(main={"container": name}), tmp_path)
        with pytest.raises(TargetError) as caught:
            asyncio.run(ctx.target.open())
        assert not ctx.notes.undos, "what does not run is not protected"
        (same,) = problems(ctx.target.manifest)
        assert caught.value.what in same
        return caught.value.render()

    assert "there is no such container" in said("nowhere")
    assert "there is no such container" in said(identifier[:12])
    assert "off does not run: exited (exit code 0)" in said("off")
    assert f"DOCKER_HOST=unix://{docker.socket} docker start off" in said("off")
    assert "still does not run: paused" in said("still")
    assert "once is removed by its engine when it ends (--rm): run it without" in said("once")
    docker.docker("unpause", "still")
    assert managed.look(managed.Place("container", identifier, str(docker.socket))).running


def test_doctor_reaches_the_engine(docker: Docker) -> None:
    """It is asked, and tells its version and its socket."""
    found = {one.what: one for one in doctor._managers()}
    assert found["containers"].state == "works"
    assert re.search(rf"Engine \d+\..*, {docker.socket}", found["containers"].how)


def test_an_engine_that_is_not_running_is_said(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No socket, a socket that nobody serves, an engine of another host: the error names the way out."""
    del docker

    def said(where: str) -> str:
        monkeypatch.setenv("DOCKER_HOST", where)
        ctx = Context(described(main={"container": "any"}), tmp_path)
        assert ctx.target.manifest.components["main"].restart is None
        with pytest.raises(TargetError) as caught:
            asyncio.run(ctx.target.open())
        return caught.value.render()

    assert "cannot be reached: No such file or directory" in said(f"unix://{tmp_path}/none")
    assert "is docker running" in said(f"unix://{tmp_path}/none")
    dead = socketserver.UnixStreamServer(str(tmp_path / "dead"), socketserver.BaseRequestHandler)
    dead.server_close()
    assert "Connection refused" in said(f"unix://{tmp_path}/dead")
    assert "only an engine of this host" in said("tcp://10.0.0.1:2375")
    assert verbs.begin("start_managed", {"kind": "container", "name": "x", "at": "/none"}, "-")()[0] is False


class Podman(socketserver.StreamRequestHandler):
    """Answers as podman does: what it is still stopping it does not start, and says so."""

    states: ClassVar[list[str]] = []
    asked: ClassVar[list[str]] = []

    def handle(self) -> None:
        """Answer one request."""
        what = self.rfile.readline().decode().split()[1]
        while self.rfile.readline().strip():
            pass
        status = self.states[0] if len(self.states) == 1 else self.states.pop(0)
        if what.endswith("/json"):
            state = {"Status": status, "Running": status == "running", "Pid": os.getpid()}
            self.answer(200, {"Id": "f" * 64, "Name": "book", "State": state})
            return
        self.asked.append(f"{what} while {status}")
        self.states[:] = ["running"]
        self.answer(204 if status == "exited" else 500, {"message": "container state improper"})

    def answer(self, status: int, document: object) -> None:
        """Send a whole answer."""
        body = json.dumps(document).encode() if status != 204 else b""
        self.wfile.write(f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def test_what_podman_still_stops_is_started_afterwards() -> None:
    """Its process has ended, but podman refuses to start it for another moment."""
    Podman.states[:] = ["stopping"] * 4 + ["exited"] * 3
    with tempfile.TemporaryDirectory(prefix="bs-pm-") as folder:
        place = managed.Place("container", "book", f"{folder}/podman.sock")
        with socketserver.UnixStreamServer(place.at, Podman) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            managed.start(place)
            assert managed.look(place).running
            server.shutdown()
    assert Podman.asked == [f"/containers/{'f' * 64}/start while exited"]
