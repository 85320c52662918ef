from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STEPS = ("engine_ready", "state_validated", "trading_started")


def recovered(system: Any, engine: str, at_ns: int) -> list[str]:
    """Return the three closing steps as they came after a time."""
    return [
        event["event"]
        for event in system.events(engine)
        if event["mono_ns"] > at_ns and event["event"] in STEPS
    ]


def ask(address: tuple[str, int], line: dict[str, Any]) -> dict[str, Any]:
    """Send one line, read one."""
    with socket.create_connection(address, timeout=10) as connection, connection.makefile("rwb") as stream:
        stream.write(json.dumps(line).encode() + b"\n")
        stream.flush()
        answer: dict[str, Any] = json.loads(stream.readline())
        return answer


def test_hot_failover(system: Any, client: Any) -> None:
    """The standby takes over in its own process, validated before trading; nothing accepted is lost."""
    primary, standby = system.primary()
    epoch = system.components()["epoch"]
    pid = system.components()["components"][standby]["pid"]
    at_ns = system.kill(primary)
    client.new_acceptances(30)
    assert system.primary() == (standby, primary)
    assert system.components()["epoch"] == epoch + 1
    assert system.components()["components"][standby]["pid"] == pid
    assert recovered(system, standby, at_ns)[:3] == list(STEPS)
    system.settled()
    system.audit(client)


def test_first_outcome_survives(system: Any, client: Any) -> None:
    """After a failover a repeated client_order_id gets its first ClOrdID, and no second order."""
    name, cl_ord_id = next(reversed(client.accepted.items()))
    primary, _ = system.primary()
    system.kill(primary)
    client.new_acceptances(5)
    primary, _ = system.primary()
    address = system.order_entry[("engine-a", "engine-b").index(primary)]
    answer = ask(address, {"new": system.order(name, 1)})
    assert (answer["accepted"], answer["cl_ord_id"]) == (name, cl_ord_id)
    named = [one for one in system.state("orders?all=1")["orders"] if one["client_order_id"] == name]
    assert len(named) == 1


def test_standby_sends_clients_away(system: Any) -> None:
    """A standby says so and closes."""
    system.settled()
    _, standby = system.primary()
    address = system.order_entry[("engine-a", "engine-b").index(standby)]
    with socket.create_connection(address, timeout=10) as connection:
        data = b""
        while part := connection.recv(1000):
            data += part
    assert json.loads(data) == {"error": "standby"}


@pytest.mark.parametrize(
    "victims",
    [
        ("engine-a", "engine-b"),
        ("engine-b", "router"),
        ("engine-a", "risk"),
        ("router", "risk"),
        ("nats", "postgres"),
    ],
    ids="+".join,
)
def test_two_at_once(system: Any, client: Any, victims: tuple[str, str]) -> None:
    """Whichever two processes are killed together, trading comes back and all books agree."""
    for victim in victims:
        system.kill(victim)
    client.new_acceptances(30)
    system.settled()
    system.audit(client)


def test_killed_while_promoting(system: Any, client: Any) -> None:
    """The standby killed in the middle of its promotion: the engines sort it out, and nothing is lost."""
    primary, standby = system.primary()
    system.kill(primary)
    os.kill(system.components()["components"][standby]["pid"], signal.SIGKILL)
    client.new_acceptances(30)
    system.settled()
    system.audit(client)


def test_clean_stop_and_warm_start(system: Any) -> None:
    """SIGTERM leaves a sound journal and a final checkpoint; the next start replays nothing and trades."""
    system.settled()
    at_ns = time.monotonic_ns()
    assert system.stop() == 0
    state = system.folder / "firm" / "state"
    for engine in ("engine-a", "engine-b"):
        events = [event["event"] for event in system.events(engine) if event["mono_ns"] > at_ns]
        assert "checkpoint_written" in events
        files = [str(path) for path in sorted((state / engine / "journal").glob("*.seg"))]
        verdict = subprocess.run(
            [sys.executable, "-m", "paperfirm.cli", "journal", "--verify", *files],
            check=False,
            capture_output=True,
        )
        assert verdict.returncode == 0, verdict.stdout
        newest = max((state / engine / "checkpoint").glob("*.ckpt"))
        verdict = subprocess.run(
            [sys.executable, "-m", "paperfirm.cli", "checkpoint", str(newest)],
            check=False,
            capture_output=True,
        )
        assert verdict.returncode == 0, verdict.stdout
    started_ns = time.monotonic_ns()
    system.start()
    replays = [
        event
        for event in system.events("engine-a", "engine-b")
        if event["event"] == "journal_replayed" and event["mono_ns"] > started_ns
    ]
    assert [event["detail"]["records"] for event in replays] == [0, 0]
