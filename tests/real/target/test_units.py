"""Units of a real systemd: found, broken, stopped and started by their manager, left as they were."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import systemd_kit
from managed_kit import Context, Owner, described, killed_while_broken, waits
from target_kit import until

from blackstart.cli import doctor
from blackstart.engine import verbs
from blackstart.errors import TargetError
from blackstart.host import managed, procs, systemd
from blackstart.target.managed import problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from systemd_kit import Systemd

SLEEP = "/bin/sleep 600"


@pytest.fixture(scope="module")
def manager() -> Iterator[Systemd]:
    """Have a systemd of our own."""
    if (why := systemd_kit.missing()) is not None:
        pytest.skip(why)
    with systemd_kit.running() as made:
        yield made


@pytest.fixture
def sd(manager: Systemd, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    """Have Blackstart find it as the manager of its user."""
    for key, text in manager.environment.items():
        monkeypatch.setenv(key, text)
    return manager


def unit(name: str) -> dict[str, str]:
    """Describe the component."""
    return {"unit": f"{name}.service", "manager": "user"}


def test_a_unit_that_systemd_restarts_is_found_again_with_systemds_own_stamp(
    sd: Systemd, tmp_path: Path
) -> None:
    """Its death is the kernel's notice, and its new start is when systemd began it, not when we looked."""
    sd.service("again", SLEEP, Restart="always", RestartSec="100ms")

    async def run() -> None:
        ctx = Context(described(main=unit("again")), tmp_path)
        await ctx.target.open()
        assert ctx.target.manifest.components["main"].restart == "self"
        first = await ctx.target.watch("main")
        assert first.pid == sd.main_pid("again")
        receipt, witness = await ctx.carry_out("kill")
        assert witness.bit
        await until(lambda: ctx.notes.seen("exited"))
        await until(lambda: sd.main_pid("again") not in (0, first.pid))
        looked = time.monotonic_ns()
        second = await ctx.target.process("main")
        assert second.pid == sd.main_pid("again")
        (started,) = ctx.notes.seen("started")
        assert (started.pid, started.component) == (second.pid, "main")
        assert receipt.t0_mono_ns < ctx.notes.seen("exited")[0].mono_ns < started.mono_ns < looked
        assert started.mono_ns // 1000 == int(sd.value("again", "ExecMainStartTimestampMonotonic"))
        assert not ctx.notes.seen("starting"), "nobody but systemd started it"
        await ctx.target.close()

    asyncio.run(run())


# Is ready a while after its start, and says so.
NOTIFYING = """
import os, socket, time
time.sleep(0.2)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(600)
"""


@pytest.mark.parametrize("restart", ["always", "no"])
def test_a_unit_that_says_when_it_is_ready_is_believed(sd: Systemd, tmp_path: Path, restart: str) -> None:
    """`Type=notify`: it runs when it says so, and the moment is systemd's, whoever started it."""
    program = tmp_path / "program.py"
    program.write_text(NOTIFYING)
    sd.service("ready", f"/usr/bin/python3 {program}", Type="notify", Restart=restart, RestartSec="10ms")

    async def run() -> None:
        ctx = Context(described(main=unit("ready")), tmp_path)
        await ctx.target.open()
        before = await ctx.target.process("main")
        _, witness = await ctx.carry_out("kill")
        assert witness.bit
        await until(
            lambda: sd.main_pid("ready") not in (0, before.pid) and sd.value("ready", "SubState") == "running"
        )
        after = await ctx.target.process("main")
        (started,), (ready,) = ctx.notes.seen("started"), ctx.notes.seen("ready")
        assert (started.pid, ready.pid) == (after.pid, after.pid)
        assert ready.mono_ns // 1000 == int(sd.value("ready", "ActiveEnterTimestampMonotonic"))
        assert ready.mono_ns - started.mono_ns > 100_000_000

    asyncio.run(run())


def test_a_unit_that_nobody_restarts_is_started_by_its_operator(sd: Systemd, tmp_path: Path) -> None:
    """`Restart=no` makes Blackstart the operator, and nobody has to say so; neighbours are left alone."""
    sd.service("alone", SLEEP, Restart="no")
    sd.service("neighbour", SLEEP, Restart="no")
    neighbour = sd.main_pid("neighbour")

    async def run() -> None:
        ctx = Context(described(main=unit("alone")), tmp_path)
        await ctx.target.open()
        assert ctx.target.manifest.components["main"].restart == "blackstart"
        first = await ctx.target.process("main")
        _, witness = await ctx.carry_out("kill")
        assert witness.bit
        second = await ctx.target.process("main")
        assert second != first
        assert sd.value("alone", "ActiveState") == "active"
        assert [one.what for one in ctx.notes.seen_all()] == ["starting", "started"]

    asyncio.run(run())
    assert sd.main_pid("neighbour") == neighbour


def test_a_clean_stop_is_asked_of_systemd(sd: Systemd, tmp_path: Path) -> None:
    """With `Restart=always` a mere signal would be no stop: systemd would bring it back at once."""
    sd.service("clean", SLEEP, Restart="always", RestartSec="0")

    async def run() -> None:
        ctx = Context(described(main=unit("clean")), tmp_path)
        await ctx.target.open()
        first = await ctx.target.watch("main")
        receipt, witness = await ctx.carry_out("terminate")
        assert witness.bit
        assert receipt.mechanism == "systemctl --user stop clean.service"
        # sleep knows no better than to die of it; to systemd that is clean, and such a unit is forgotten
        assert witness.evidence["main"]["status"] is None
        assert (await ctx.target.process("main")).pid not in (0, first.pid)
        assert sd.value("clean", "NRestarts") == "0"
        (gone,) = ctx.notes.seen("exited")
        assert gone.mono_ns > receipt.t0_mono_ns
        assert sd.value("clean", "Result") == "success"
        await ctx.target.close()

    asyncio.run(run())


def test_an_end_that_systemd_calls_a_failure_is_told(sd: Systemd, tmp_path: Path) -> None:
    """The exit status of a unit that was asked to stop and did not end in order."""
    sd.service("unclean", "/bin/sh -c \"trap 'exit 3' TERM; while :; do sleep 0.1; done\"", Restart="no")

    async def run() -> None:
        ctx = Context(described(main=unit("unclean")), tmp_path)
        await ctx.target.open()
        await ctx.target.watch("main")
        _, witness = await ctx.carry_out("terminate")
        assert witness.evidence["main"]["status"] == 3
        await ctx.target.close()

    asyncio.run(run())


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_stopped_service_stays_down_for_its_time(sd: Systemd, tmp_path: Path, how: str) -> None:
    """Whatever `Restart=` says: nothing of it runs meanwhile, and it runs afterwards."""
    sd.service("down", SLEEP, Restart="always", RestartSec="50ms")
    states: list[str] = []

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.05)
            found = procs.stat(sd.main_pid("down"))
            states.append("none" if found is None else found.state)

    async def run() -> None:
        ctx = Context(described(main=unit("down")), tmp_path)
        await ctx.target.open()
        receipt, witness = await asyncio.wait_for(ctx.carry_out("stop_service", duration_s=1.0, how=how), 30)
        assert witness.bit
        after = await ctx.target.process("main")
        assert after not in receipt.processes.values()
        await until(lambda: (found := procs.stat(after.pid)) is not None and found.state == "S")

    async def both() -> None:
        watching = asyncio.ensure_future(watch())
        await run()
        watching.cancel()

    asyncio.run(both())
    assert set(states) & {"none", "T"}, states


@pytest.mark.parametrize(
    ("kind", "restart"), [("terminate", "always"), ("kill", "no"), ("pause_service", "always")]
)
def test_a_unit_runs_again_when_blackstart_is_killed(
    sd: Systemd, tmp_path: Path, kind: str, restart: str
) -> None:
    """The guardian starts what was stopped, and wakes what was paused."""
    sd.service("held", SLEEP, Restart=restart, RestartSec="50ms")
    before = sd.main_pid("held")
    owner = Owner(tmp_path / "run", "unit", "held.service", kind)
    killed_while_broken(owner, before)
    sd.until(lambda: sd.value("held", "ActiveState") == "active" and waits(sd.main_pid("held")))
    assert (sd.main_pid("held") == before) == (kind == "pause_service")


def depending(sd: Systemd, name: str, how: str) -> None:
    """Start a service, and another that depends on it."""
    sd.service(name, SLEEP, Restart="no")
    depends = f"StartLimitIntervalSec=0\n{how}={name}.service\nAfter={name}.service"
    sd.service(f"{name}-user", SLEEP, depends, Restart="always")


@pytest.mark.parametrize("how", ["Requires", "PartOf"])
@pytest.mark.parametrize("kind", ["terminate", "kill"])
def test_units_that_depend_on_it_are_not_touched(sd: Systemd, tmp_path: Path, how: str, kind: str) -> None:
    """A stop takes them along, and a later start does not bring them back: it is kept to the one unit."""
    name = f"db-{how}-{kind}".lower()
    depending(sd, name, how)
    user = sd.main_pid(f"{name}-user")

    async def run() -> None:
        ctx = Context(described(main=unit(name)), tmp_path)
        await ctx.target.open()
        _, witness = await ctx.carry_out(kind)
        assert witness.bit

    asyncio.run(run())
    assert sd.main_pid(f"{name}-user") == user != 0
    assert sd.value(f"{name}-user", "ActiveState") == "active"


@pytest.mark.parametrize("kind", ["terminate", "kill"])
def test_units_that_are_bound_to_it_run_again_at_the_end(sd: Systemd, tmp_path: Path, kind: str) -> None:
    """Those end whenever it does, by whatever cause; the guardian starts what ran before."""
    name = f"bound-{kind}"
    depending(sd, name, "BindsTo")
    sd.service(f"{name}-last", SLEEP, f"BindsTo={name}-user.service\nAfter={name}-user.service", Restart="no")
    sd.service(f"{name}-off", SLEEP, f"BindsTo={name}.service\nAfter={name}.service", Restart="no")
    sd.ctl("stop", f"{name}-off.service")

    async def run() -> list[tuple[bool | None, dict[str, Any]]]:
        ctx = Context(described(main=unit(name)), tmp_path)
        await ctx.target.open()
        _, witness = await ctx.carry_out(kind)
        assert witness.bit
        await until(lambda: sd.value(f"{name}-last", "ActiveState") == "inactive")
        return await asyncio.to_thread(ctx.last_undo)

    assert [verified for verified, _ in asyncio.run(run())] == [True] * 3
    states = {one: sd.value(f"{name}-{one}", "ActiveState") for one in ("user", "last", "off")}
    assert states == {"user": "active", "last": "active", "off": "inactive"}


def test_a_unit_without_a_file_is_refused(sd: Systemd, tmp_path: Path) -> None:
    """Its manager forgets it when it ends: nobody could start it again."""
    run = shutil.which("systemd-run")
    if run is None:
        pytest.skip("no systemd-run")
    command = [run, "--user", "--quiet", "--unit=passing", "--property=DefaultDependencies=no"]
    subprocess.run([*command, "sleep", "600"], check=True, env={**os.environ, **sd.environment})
    ctx = Context(described(main=unit("passing")), tmp_path)
    with pytest.raises(TargetError, match=r"passing\.service has no unit file \(systemd-run\)"):
        asyncio.run(ctx.target.open())
    assert not ctx.notes.undos
    (same,) = problems(ctx.target.manifest)
    assert "no unit file" in same
    sd.ctl("stop", "passing.service")


def test_a_unit_that_systemd_gave_up_is_brought_back_at_the_end(sd: Systemd, tmp_path: Path) -> None:
    """Too many deaths reach its start limit: the trial tells it, and the last undo mends it."""
    sd.service(
        "weary", SLEEP, "StartLimitIntervalSec=60\nStartLimitBurst=2", Restart="always", RestartSec="10ms"
    )

    async def run() -> None:
        ctx = Context(described(main=unit("weary")), tmp_path)
        await ctx.target.open()
        _, witness = await ctx.carry_out("crash_loop", times=5, limit_s=1.0)
        assert witness.bit is False
        assert sd.value("weary", "ActiveState") == "failed"
        with pytest.raises(TargetError, match=r"weary\.service does not run: failed \(failed"):
            await ctx.target.process("main")
        ((verified, evidence),) = ctx.last_undo()
        assert verified
        assert evidence["was"].startswith("failed")

    asyncio.run(run())
    assert sd.value("weary", "ActiveState") == "active"


def test_the_cgroup_of_a_unit_is_where_its_faults_work(sd: Systemd, tmp_path: Path) -> None:
    """Paused by the freezer its main process is still that of the unit, and home again afterwards."""
    sd.service("cold", SLEEP, Restart="always")
    home = procs_group(sd.main_pid("cold"))

    async def run() -> None:
        ctx = Context(described(main=unit("cold")), tmp_path)
        await ctx.target.open()
        before = await ctx.target.process("main")
        receipt, _ = await ctx.carry_out("pause", duration_s=0.3, mechanism="freezer")
        assert "freez" in receipt.mechanism
        assert await ctx.target.process("main") == before

    asyncio.run(run())
    assert procs_group(sd.main_pid("cold")) == home


def procs_group(pid: int) -> str:
    """Return the control groups of a process."""
    return Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")


def test_what_cannot_be_attached_is_said_clearly(sd: Systemd, tmp_path: Path) -> None:
    """Masked, unknown, not running, no manager: each is one error that names the unit and the next step."""
    sd.service("off", SLEEP)
    sd.ctl("stop", "off.service")
    (sd.units / "hidden.service").symlink_to("/dev/null")
    sd.ctl("daemon-reload")

    def said(name: str) -> str:
        ctx = Context(described(main=unit(name)), tmp_path)
        with pytest.raises(TargetError) as caught:
            asyncio.run(ctx.target.open())
        assert not ctx.notes.undos, "what does not run is not protected"
        (same,) = problems(ctx.target.manifest)
        assert caught.value.what in same
        return caught.value.render()

    assert "is masked" in said("hidden")
    assert "systemctl --user unmask hidden.service" in said("hidden")
    assert "knows no such unit (not-found)" in said("nowhere")
    assert "off.service does not run: inactive (dead)" in said("off")
    assert f"XDG_RUNTIME_DIR={sd.runtime} systemctl --user start off.service" in said("off")
    assert sd.value("off", "ActiveState") == "inactive", "looking starts nothing"


def test_doctor_reaches_the_manager(sd: Systemd) -> None:
    """It is asked, and tells its version; the system's manager, which is not there, is not called missing."""
    del sd
    found = {one.what: one for one in doctor._managers()}
    assert found["units, user manager"].state == "works"
    assert re.search(r"systemd \d{3}", found["units, user manager"].how)
    assert found["units, system manager"].state in {"works", "optional"}


def test_a_manager_that_is_not_there_is_said(
    sd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a wrong runtime folder nor none is taken for a unit that is down."""
    del sd
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    ctx = Context(described(main=unit("any")), tmp_path)
    with pytest.raises(TargetError, match="connect to bus"):
        asyncio.run(ctx.target.open())
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(TargetError, match="XDG_RUNTIME_DIR is not set"):
        asyncio.run(ctx.target.open())
    assert ctx.target.manifest.components["main"].restart is None


def test_a_pid_that_means_somebody_else_here_is_refused(sd: Systemd) -> None:
    """A manager in another pid namespace tells numbers of its own: nobody is hit by mistake."""
    sd.service("own", SLEEP)
    place = managed.Place("unit", "own.service", str(sd.runtime))
    state = managed.look(place)
    managed.refuse_strange(place, state)
    with pytest.raises(TargetError, match="another pid namespace"):
        managed.refuse_strange(place, state._replace(pid=os.getpid()))


def test_an_undo_that_fails_tells_the_operators_command(sd: Systemd) -> None:
    """A unit that does not come up again is left in place, loudly."""
    sd.service("broken", "/bin/false", Restart="no")
    arguments = {"kind": "unit", "name": "gone.service", "at": str(sd.runtime)}
    verified, evidence = verbs.begin("start_managed", arguments, "-")()
    assert verified is False
    assert "knows no such unit" in evidence["error"]
    by_hand = verbs.by_hand("start_managed", arguments, "-")
    assert by_hand == f"XDG_RUNTIME_DIR={sd.runtime} systemctl --user start gone.service"


def test_a_start_brings_back_what_was_killed_too_often(sd: Systemd) -> None:
    """The start limit is systemd's protection against itself, not against an operator."""
    sd.service(
        "often", SLEEP, "StartLimitIntervalSec=60\nStartLimitBurst=1", Restart="always", RestartSec="10ms"
    )
    os.kill(sd.main_pid("often"), signal.SIGKILL)
    sd.until(lambda: sd.value("often", "ActiveState") == "failed")
    unit_ = systemd.Unit("often.service", str(sd.runtime))
    systemd.start(unit_, wait=True)
    assert sd.value("often", "ActiveState") == "active"
