"""The firm as a whole: up, trading, hurt, back, down."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from paperfirm.servers import Identity, Kind, choose_identity, enter, placement

if TYPE_CHECKING:
    from collections.abc import Callable

COMPONENTS = ("risk", "feed", "router", "recorder", "postgres", "nats")


def test_up_trades_and_stops_cleanly(world: Any) -> None:
    """A fresh firm's books and database equal the exchange's executions, and SIGTERM leaves nothing."""
    answers = world.trade(60, tag="t")
    assert not [answer for answer in answers.values() if answer.startswith("rejected")]
    world.wait(world.books_agree)
    assert len(world.firm_executions()) >= 60
    world.wait(world.database_agrees)
    processes = world.processes()
    assert len(processes) >= 8
    assert world.down() == 0
    assert not [pid for pid in processes if world.runs(pid)]
    assert [event["event"] for event in world.events("supervisor")][-1] == "stopped"


def test_a_stopped_firm_starts_warm(world: Any) -> None:
    """A second start on the same directory takes up its checkpoint and its books."""
    world.trade(30, tag="t")
    world.wait(world.books_agree)
    before = {execution["exec_id"] for execution in world.firm_executions()}
    assert world.down() == 0
    world.up()
    assert world.events(world.primary(), "checkpoint_loaded")
    world.trade(10, tag="u")
    world.wait(world.books_agree)
    assert before < {execution["exec_id"] for execution in world.firm_executions()}
    assert world.down() == 0


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_killed_component_comes_back(world: Any, component: str) -> None:
    """A component killed with -9 comes back, the firm trades again, nothing is lost or booked twice."""
    world.trade(20, tag="t")
    world.wait(lambda: world.components()[component]["state"] == "running")
    pid = world.kill(component)
    world.wait(lambda: world.components()[component]["pid"] not in {None, pid})
    world.wait(lambda: world.components()[component]["state"] == "running" and world.trades())
    assert world.components()[component]["restarts"] >= 1
    (exited,) = [e for e in world.events("supervisor", "component_exited") if e["detail"]["pid"] == pid]
    assert exited["detail"]["signal"] == 9
    world.trade(20, tag="u")
    world.wait(world.books_agree)
    world.wait(world.database_agrees)
    assert world.down() == 0


def test_a_killed_primary_is_succeeded(world: Any) -> None:
    """The standby succeeds a killed primary with the next epoch; the old engine returns as standby."""
    world.wait(
        lambda: world.events("engine-a", "standby_synced") + world.events("engine-b", "standby_synced")
    )
    world.trade(20, tag="t")
    old = world.primary()
    world.kill(old)
    world.wait(lambda: world.primary() not in {None, old} and world.trades())
    world.trade(20, tag="u")
    world.wait(world.books_agree)
    world.wait(lambda: world.components()[old]["role"] == "standby")
    grants = [event["epoch"] for event in world.events("supervisor", "epoch_granted")]
    assert grants == [1, 2]
    assert world.down() == 0


def test_both_engines_killed_at_once(world: Any) -> None:
    """After the double kill the firm comes back by itself with every execution booked once."""
    world.trade(20, tag="t")
    pids = {name: world.kill(name) for name in ("engine-a", "engine-b")}
    world.wait(lambda: all(world.components()[name]["pid"] not in {None, pids[name]} for name in pids))
    world.wait(lambda: world.primary() is not None and world.trades())
    world.trade(20, tag="u")
    world.wait(world.books_agree)
    assert world.down() == 0


def test_recorder_queue_and_database_killed_together(world: Any) -> None:
    """Whatever of the recording dies at once, trading goes on and every execution is in the database once."""
    world.wait(lambda: world.components()["postgres"]["state"] == "running")
    world.trade(20, tag="t")
    pids = {name: world.kill(name) for name in ("recorder", "nats", "postgres")}
    world.trade(20, tag="u")
    world.wait(lambda: all(world.components()[name]["pid"] not in {None, pids[name]} for name in pids))
    world.wait(world.books_agree)
    world.wait(world.database_agrees)
    assert world.down() == 0


def test_a_firm_that_lost_everything_starts_cold(world: Any) -> None:
    """Without a single file of its own the firm rebuilds its books from the exchange and trades on."""
    world.trade(30, tag="t")
    world.wait(world.books_agree)
    assert world.down() == 0
    shutil.rmtree(world.firm_folder)
    world.up()
    world.wait(world.books_agree)
    assert len(world.firm_executions()) >= 30
    assert not [answer for answer in world.trade(10, tag="u").values() if answer.startswith("rejected")]
    world.wait(world.books_agree)
    assert world.down() == 0


def test_a_killed_supervisor_takes_everything_along(world: Any) -> None:
    """Kill -9 of the supervisor leaves no process of the firm running, and the next start recovers."""
    world.trade(20, tag="t")
    processes = world.processes()
    world.kill_supervisor()
    world.wait(lambda: not [pid for pid in processes if world.runs(pid)])
    world.up()
    world.wait(world.books_agree)
    assert world.down() == 0


def test_a_second_supervisor_is_refused(world: Any) -> None:
    """A directory in use is refused, naming the process that uses it; the first firm goes on."""
    command = [
        sys.executable,
        "-c",
        "from paperfirm.cli import main; main()",
        "up",
        "--dir",
        str(world.firm_folder),
    ]
    second = subprocess.run(
        [*command, "--exchange", str(world.folder / "exchange" / "endpoints.json")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert second.returncode == 1
    assert f"in use by process {world.supervisor.pid}" in second.stderr
    assert world.trades()
    assert not [child for child in world.components().values() if child["restarts"]]


def test_two_firms_at_once(make_world: Callable[[], Any]) -> None:
    """Two firms with two exchanges on one machine do not touch each other."""
    worlds = [make_world(), make_world()]
    for each in worlds:
        each.up()
    for each in worlds:
        each.trade(20, tag="t")
    for each in worlds:
        each.wait(each.books_agree)
        assert not [child for child in each.components().values() if child["restarts"]]
    assert [each.down() for each in worlds] == [0, 0]


def test_a_disconnect_by_the_exchange_is_healed(world: Any) -> None:
    """After a cut and half a second of refused logons the session returns and no fill is missing."""
    world.trade(20, tag="t")
    world.misbehave("disconnect", refuse_ms=500)
    world.wait(lambda: world.events("router", "session_lost"))
    world.wait(lambda: len(world.events("router", "session_established")) == 2)
    world.wait(world.trades)
    assert [e["event"] for e in world.events(world.primary(), "trading_halted", "trading_started")][-2:] == [
        "trading_halted",
        "trading_started",
    ]
    world.trade(20, tag="u")
    world.wait(world.books_agree)
    assert world.down() == 0


def test_the_firm_moves_to_the_backup_gateway_and_back(make_world: Callable[[], Any]) -> None:
    """Primary gateway gone, backup promoted: the firm trades there; and back; no fill is missing or twice."""
    world = make_world()
    config = world.folder / "firm.toml"
    config.write_text("[router]\nbackup_gateway = true\n")
    world.up("--config", config)
    world.trade(20, tag="t")
    world.control("gateway", gateway="primary", up=False)
    world.wait(lambda: world.events("router", "session_lost"))
    world.control("gateway", gateway="backup", promoted=True)
    world.wait(lambda: world.events("router", "gateway_changed"))
    world.wait(world.trades)
    world.trade(20, tag="u")
    world.wait(world.books_agree)
    world.control("gateway", gateway="primary", up=True)
    world.control("gateway", gateway="backup", promoted=False, up=False)
    world.wait(lambda: len(world.events("router", "gateway_changed")) == 2)
    world.wait(world.trades)
    world.trade(20, tag="v")
    world.wait(world.books_agree)
    moves = [event["detail"]["gateway"] for event in world.events("router", "gateway_changed")]
    assert moves == ["backup", "primary"]
    assert world.down() == 0


def test_a_paused_router_sends_nothing_stale(world: Any) -> None:
    """Orders that waited in a stopped router are not sent when it goes on; the engine binds anew."""
    world.wait(lambda: world.components()["router"]["state"] == "running")
    pid = world.components()["router"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    world.wait(lambda: time.monotonic() - began > 1.5)
    os.kill(pid, signal.SIGCONT)
    world.wait(lambda: world.events("router", "paused"))
    world.wait(lambda: len(world.events("router", "engine_bound")) >= 2)
    world.wait(world.trades)
    assert world.components()["router"]["pid"] == pid
    world.trade(20, tag="u")
    world.wait(world.books_agree)
    assert world.down() == 0


def test_rapid_crashes_end_in_back_off_and_recovery(world: Any) -> None:
    """A component killed again and again is restarted ever more slowly and works once it is left alone."""
    world.trade(10, tag="t")
    for count in range(1, 5):
        pid = world.kill("router")
        world.wait(lambda count=count: world.components()["router"]["restarts"] >= count)
        world.wait(lambda pid=pid: world.components()["router"]["pid"] not in {None, pid})
    assert [e["detail"]["delay_ms"] for e in world.events("supervisor", "component_back_off")] == [
        100,
        200,
        400,
    ]
    world.wait(world.trades)
    world.trade(10, tag="u")
    world.wait(world.books_agree)
    assert world.down() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test here already runs as an ordinary user")
def test_an_ordinary_user_needs_nothing_more() -> None:
    """The firm comes up, trades and stops for an ordinary user with a home of its own."""
    best = choose_identity()
    direct = Identity(Kind.SET_UID, best.uid, best.gid)
    # An interpreter below /root cannot be run by others: there, a user namespace makes the ordinary user.
    identity = direct if placement.reachable(Path(sys.executable), direct) else best
    home = Path(tempfile.mkdtemp(prefix="home-", dir="/var/tmp"))
    placement.give_to(home, identity)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        __file__,
        "-k",
        "cleanly",
    ]
    try:
        done = subprocess.run(
            command,
            preexec_fn=enter(identity),
            env={**os.environ, "HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[3],
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 passed" in done.stdout
    finally:
        shutil.rmtree(home, ignore_errors=True)
