"""PostgreSQL and NATS from wheels: as whoever runs the tests, and as an ordinary user too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import nats
import psutil
import pytest

from blackstart.target.manifest import packaged, read
from paperfirm.recorder import tables
from paperfirm.recorder.database import Database
from paperfirm.recorder.tables import Batch, execution_values
from paperfirm.servers import (
    Identity,
    Kind,
    ServerPlan,
    choose_identity,
    enter,
    is_ready,
    make_cluster,
    placement,
    plan_postgres,
    prepare_nats,
)
from paperfirm.wire import ExecutionRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = os.geteuid() == 0


def free_port() -> int:
    """Return a port that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepare_postgres(folder: Path, port: int, *, identity: Identity | None = None) -> ServerPlan:
    """Plan a server and make its cluster."""
    plan = plan_postgres(folder, port, identity=identity)
    asyncio.run(make_cluster(plan))
    return plan


def start(plan: ServerPlan) -> subprocess.Popen[bytes]:
    """Start a planned server as a child of the tests."""
    with plan.log.open("ab") as log:
        return subprocess.Popen(
            plan.argv,
            stdout=log,
            stderr=log,
            preexec_fn=enter(plan.identity, plan.death_signal),  # noqa: PLW1509 - no threads here
            cwd="/",
        )


def wait_until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "condition not reached in time"
        time.sleep(0.005)


def inhabited(plan: ServerPlan) -> bool:
    """Say whether a process works in the data folder.

    A killed server's children end a moment after it, and while one lives the next server refuses to start.
    """
    assert plan.ready_file is not None
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()) == plan.ready_file.parent:
                return True
    return False


def listening(port: int) -> bool:
    """Say whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that only we can enter, as a run folder below root's home is."""
    path = Path(tempfile.mkdtemp(prefix="services-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
    placement.sweep()


def test_templates_of_old_installations_do_not_pile_up(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not used for a week goes when a new one is built; what was used lately stays."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old, recent = (tmp_path / "blackstart" / name for name in ("postgres-2-a", "postgres-2-b"))
    for one, days in ((old, 8), (recent, 6)):
        one.mkdir(parents=True)
        os.utime(one, (time.time() - days * 86_400,) * 2)
    plan = plan_postgres(folder, free_port())
    assert plan.template is not None
    assert plan.template.is_dir()
    assert recent.exists()
    assert not old.exists()
    assert not (plan.template / "base" / "4").exists()  # template0, which only costs time


def identities() -> list[Identity]:
    """Return every way in which the server can run here."""
    best = choose_identity()
    return [best, Identity(Kind.SET_UID, best.uid, best.gid)] if best.kind is Kind.USER_NAMESPACE else [best]


def query(url: str, *statements: str) -> object:
    """Run statements on one connection and return the last one's value."""

    async def ask() -> object:
        connection = await asyncpg.connect(url)
        try:
            answers = [await connection.fetchval(statement) for statement in statements]
            return answers[-1]
        finally:
            await connection.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("identity", identities(), ids=lambda identity: identity.kind.value)
def test_committed_rows_survive_sigkill(folder: Path, identity: Identity) -> None:
    """What PostgreSQL committed is there after a kill -9 and a second start on the same folder."""
    plan = prepare_postgres(folder / "postgres", free_port(), identity=identity)
    first = start(plan)
    try:
        wait_until(lambda: is_ready(plan, first.pid))
        query(plan.url, "create table kept (n int)", "insert into kept select generate_series(1, 500)")
        first.kill()
        assert first.wait() == -signal.SIGKILL
        assert not is_ready(plan, first.pid + 1)
        wait_until(lambda: not listening(plan.port) and not inhabited(plan))
        again = prepare_postgres(folder / "postgres", plan.port, identity=identity)
        assert again == plan
        second = start(again)
        try:
            wait_until(lambda: is_ready(again, second.pid))
            assert query(again.url, "select count(*) from kept") == 500
            assert query(again.url, "show fsync") == "on"
            assert query(again.url, "show data_checksums") == "on"
            # What a killed server has in /dev/shm stays there for ever.
            assert "/dev/shm/" not in Path(f"/proc/{second.pid}/maps").read_text()
            assert query(again.url, "show dynamic_shared_memory_type") == "mmap"
        finally:
            second.send_signal(again.stop_signal)
            assert second.wait(timeout=20) == 0
    finally:
        first.kill()
        first.wait()


def test_rows_carry_the_order_of_their_booking(folder: Path) -> None:
    """Tables, earlier ones too, take epoch and number of a booking, and the manifest reads them."""
    plan = prepare_postgres(folder / "postgres", free_port())
    server = start(plan)
    stream = read(packaged()["paperfirm"]).streams["database"]
    assert stream.sql is not None
    assert stream.ordered is not None

    async def store() -> list[Any]:
        database = Database(plan.url, lambda *_, **__: 0)
        rows = [
            ExecutionRow(f"E{n}", "1-C1", "ALFA", "buy", 5, 100, n, late=False, epoch=2, seq=n)
            for n in (2, 1)
        ]
        await database.store(Batch([execution_values(row) for row in rows], [], []))
        found = await (await database.connection()).fetch(stream.sql)
        await database.close()
        return [(row["exec_id"], row[stream.ordered], row["late"]) for row in found]

    try:
        wait_until(lambda: is_ready(plan, server.pid))
        former = tables.SCHEMA.replace(",\n    epoch bigint, seq bigint", "").partition("alter table")[0]
        assert "epoch" not in former
        query(plan.url, *filter(str.strip, former.split(";")))
        assert sorted(asyncio.run(store())) == [("E1", 2_000_000_001, False), ("E2", 2_000_000_002, False)]
    finally:
        server.send_signal(plan.stop_signal)
        server.wait(timeout=20)


def test_postgres_refuses_a_stranger_without_the_password(folder: Path) -> None:
    """Another user of the machine cannot enter the database over loopback."""
    plan = prepare_postgres(folder / "postgres", free_port())
    server = start(plan)
    try:
        wait_until(lambda: is_ready(plan, server.pid))
        with pytest.raises(asyncpg.InvalidPasswordError):
            query(f"postgresql://firm:wrong@127.0.0.1:{plan.port}/postgres", "select 1")
    finally:
        server.send_signal(plan.stop_signal)
        server.wait(timeout=20)


def test_nats_keeps_published_messages_over_sigkill(folder: Path) -> None:
    """A message that JetStream acknowledged is in the stream after a kill -9."""
    plan = prepare_nats(folder / "nats", free_port())

    async def publish() -> None:
        client = await nats.connect(plan.url)
        stream = client.jetstream()
        await stream.add_stream(name="T", subjects=["t.>"])
        for number in range(20):
            await stream.publish("t.x", str(number).encode(), headers={"Nats-Msg-Id": str(number)})
        await client.close()

    async def count() -> int:
        client = await nats.connect(plan.url)
        try:
            return (await client.jetstream().stream_info("T")).state.messages
        finally:
            await client.close()

    first = start(plan)
    wait_until(lambda: listening(plan.port))
    asyncio.run(publish())
    first.kill()
    first.wait()
    second = start(plan)
    try:
        wait_until(lambda: listening(plan.port))
        assert asyncio.run(count()) == 20
    finally:
        second.send_signal(plan.stop_signal)
        second.wait(timeout=10)


DIES_WITH_PARENT = """
import asyncio, subprocess, sys, time
from pathlib import Path
from paperfirm.servers import make_cluster, plan_postgres, prepare_nats, enter
folder, ports = Path(sys.argv[1]), list(map(int, sys.argv[2:]))
plans = [plan_postgres(folder / "postgres", ports[0]), prepare_nats(folder / "nats", ports[1])]
asyncio.run(make_cluster(plans[0]))
for plan in plans:
    child = subprocess.Popen(plan.argv, stdout=plan.log.open("ab"), stderr=subprocess.STDOUT,
                             preexec_fn=enter(plan.identity, plan.death_signal), cwd="/")
    print(child.pid, flush=True)
time.sleep(600)
"""


def test_servers_die_with_their_starter(folder: Path) -> None:
    """Kill -9 of the starter leaves neither server, nor any of PostgreSQL's processes, behind."""
    ports = [free_port(), free_port()]
    starter = subprocess.Popen(
        [sys.executable, "-c", DIES_WITH_PARENT, str(folder), *map(str, ports)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    pids = [int(starter.stdout.readline()) for _ in ports]
    wait_until(lambda: all(map(listening, ports)))
    starter.kill()
    starter.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}/status").exists() and alive(pid) for pid in pids))
    wait_until(lambda: not any(map(listening, ports)))


def alive(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return False


@pytest.mark.skipif(
    not ROOT, reason="only root can become somebody else; as an ordinary user every test here is that test"
)
def test_works_as_an_ordinary_user() -> None:
    """The other tests of this file pass for an ordinary user with a home of its own."""
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
        "-x",
        __file__,
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
        assert "1 skipped" in done.stdout  # this very test, which shows that the inner run was no root
    finally:
        shutil.rmtree(home, ignore_errors=True)
