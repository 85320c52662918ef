"""The workload against a client library that misbehaves."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any

from target_kit import until

from blackstart.target import workload_runner
from blackstart.target.workload_runner import Config, Glue, Runner

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

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


def load(folder: Path, ledger: int) -> Runner:
    """Make a load of 200 writes a second, one at a time."""
    file = folder / "glue.py"
    file.write_text(GLUE)
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
