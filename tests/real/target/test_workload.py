"""The workload against a client library that misbehaves."""

from __future__ import annotations

import asyncio
import json
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
from target_kit import rig, until

from blackstart.errors import TargetError
from blackstart.model.record import Problem
from blackstart.target import manifest as manifests
from blackstart.target import workload_runner
from blackstart.target.workload_runner import Config, Glue, Runner

if TYPE_CHECKING:
    from pathlib import Path

GLUE = """
import asyncio

async def connect(settings):
    settings["connections"] += 1
    return settings, settings["connections"]

async def write(connection, record):
    settings, number = connection
    while number == 1 and record["id"] == "5-3" and not settings["over"]:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
"""


def test_a_write_that_cannot_be_cancelled_does_not_hold_up_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no answer, once, and the next connection goes on with the writes that follow."""
    monkeypatch.setattr(workload_runner, "ABANDON_S", 0.05)
    monkeypatch.setattr(workload_runner, "LAST_ANSWERS_S", 0.05)
    ledger = tmp_path / "ledger.jsonl"

    async def run() -> None:
        with ledger.open("wb", buffering=0) as file:
            runner = load(tmp_path, file.fileno())
            work = asyncio.ensure_future(runner.run())
            await until(lambda: outcomes(ledger, 21) == ["ok"])
            runner.stopping.set()
            await work
            runner.settings["over"] = True  # now it may be cancelled, as the loop does when it ends

    asyncio.run(run())
    assert outcomes(ledger, 3) == ["info"]
    assert max(one.get("connected", 0) for one in lines(ledger)) == 2


def test_a_write_that_is_given_up_before_it_began_does_not_hold_up_the_load(tmp_path: Path) -> None:
    """Cancelled before its first step it runs nothing of its own: it has no answer all the same, once."""
    ledger = tmp_path / "ledger.jsonl"

    async def run() -> None:
        with ledger.open("wb", buffering=0) as file:
            runner = load(tmp_path, file.fileno())
            runner.settings["over"] = True
            runner.submit({"id": "mine"})
            runner._cancel_all()
            work = asyncio.ensure_future(runner.run())
            await until(lambda: outcomes(ledger, 2) == ["ok"])
            runner.stopping.set()
            await work

    asyncio.run(run())
    assert outcomes(ledger, 1) == ["info"]


STRANGE = """
async def connect(settings):
    return settings

async def write(connection, record):
    return {"said": object()} if record["id"] == "5-3" else {}
"""


def test_an_acknowledged_write_that_cannot_be_noted_ends_the_load(tmp_path: Path) -> None:
    """The glue returns what is no JSON: without its outcome the write would count as never answered."""
    ledger = tmp_path / "ledger.jsonl"

    async def run() -> None:
        with ledger.open("wb", buffering=0) as file:
            async with asyncio.timeout(10):
                await load(tmp_path, file.fileno(), STRANGE).run()

    with pytest.raises(TypeError, match="object"):
        asyncio.run(run())
    assert outcomes(ledger, 2) == ["ok"]
    assert outcomes(ledger, 3) == []


def test_a_disk_that_is_full_ends_the_load(tmp_path: Path) -> None:
    """What was acknowledged cannot be noted any more: the load ends with an error of its own."""
    full = os.open("/dev/full", os.O_WRONLY)
    runner = load(tmp_path, full, STRANGE)
    runner._under_way[1] = (0.0, None)  # type: ignore[assignment]
    runner._outcome(1, "ok")
    assert runner.stopping.is_set()
    with pytest.raises(OSError, match="No space left"):
        asyncio.run(runner.run())
    os.close(full)


DYING = """
async def connect(settings):
    return settings

async def write(connection, record):
    return {}

def make(n, rng):
    if n == 100:
        raise RuntimeError("no more records")
    return {"id": str(n)}
"""


@pytest.mark.parametrize("watched", [True, False])
def test_a_load_that_ends_by_itself_is_told_once(tmp_path: Path, *, watched: bool) -> None:
    """By whoever watches it, with the moment; else by whoever stops it. The target is not to blame."""
    (tmp_path / "glue.py").write_text(DYING)
    (tmp_path / "t.toml").write_text(
        'schema = 1\nname = "t"\nenvironment = "test"\nglue = "glue.py"\n'
        '[processes.server]\ncommand = ["sleep", "60"]\n[components.main]\nprocess = "server"\n'
        '[workload]\n[services.orders]\nsource = "workload"\nkey = "id"\n'
    )

    async def run() -> None:
        async with rig(manifests.load(str(tmp_path / "t.toml")), tmp_path) as (made, notes):
            assert made.workload is not None
            await made.workload.start()
            if not watched:
                await until(lambda: not made.workload.running)
                with pytest.raises(TargetError, match="ended by itself") as told:
                    await made.workload.stop()
                assert "no more records" in told.value.render()
                return
            watching = asyncio.create_task(made.watch(["orders"], []))
            await until(lambda: notes.of(Problem))
            watching.cancel()
            await asyncio.wait([watching])
            (problem,) = notes.of(Problem)
            assert problem.code == "workload-failed"
            assert problem.text.endswith("ended by itself (status 1): RuntimeError: no more records")
            last_ns = max(event[0] for event in notes.events())
            assert last_ns <= problem.mono_ns <= last_ns + 2_000_000_000
            await made.workload.stop()

    asyncio.run(run())


def load(folder: Path, ledger: int, glue: str = GLUE) -> Runner:
    """Make a load of 200 writes a second, one at a time."""
    file = folder / "glue.py"
    file.write_text(glue)
    settings = {"connections": 0, "over": False}
    paced = {"rate_per_s": 200.0, "concurrency": 1, "timeout_s": 0.2}
    config = Config(glue=str(file), ledger="", seed=5, settings=settings, **paced)  # type: ignore[arg-type]
    return Runner(config, Glue(file, random.Random(5), 5), ledger)


def lines(ledger: Path) -> list[dict[str, Any]]:
    """Read what is written."""
    return [json.loads(line) for line in ledger.read_text().splitlines()]


def outcomes(ledger: Path, number: int) -> list[str]:
    """Return what came of a write."""
    return [one["outcome"] for one in lines(ledger) if one.get("n") == number and "outcome" in one]
