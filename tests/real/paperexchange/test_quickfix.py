"""The exchange with an engine that is not ours on the other side: QuickFIX."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from paperexchange.testing import Running

SETTINGS = """[DEFAULT]
ConnectionType=initiator
ReconnectInterval=1
StartTime=00:00:00
EndTime=00:00:00
HeartBtInt=5
UseDataDictionary=N
FileStorePath={directory}/store
FileLogPath={directory}/log
[SESSION]
BeginString=FIX.4.4
SenderCompID=FIRM
TargetCompID=PAPEREX
SocketConnectHost={host}
SocketConnectPort={port}
"""


class QuickFix:
    """The process and the events that it told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.told: list[dict[str, Any]] = []

    def send(self, command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def order(self, cl_ord_id: str, **more: str) -> None:
        fields = {"35": "D", "11": cl_ord_id, "21": "1", "55": "ALFA", "54": "1", "38": "100", "40": "2", "44": "99.5", "59": "0"}
        self.send(fields | {tag[1:]: value for tag, value in more.items()})

    def wait(self, **wanted: str) -> dict[str, Any]:
        """The next event with these values (`t150="0"` is field 150); events before it are kept in `told`."""
        fields = {name.removeprefix("t"): value for name, value in wanted.items()}
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self.told.append(event)
            if all(event.get(name) == value for name, value in fields.items()):
                return event
        raise AssertionError(f"QuickFIX ended; it told {self.told}")


@contextmanager
def quickfix(directory: Path, exchange: Running) -> Iterator[QuickFix]:
    directory.mkdir(exist_ok=True)
    settings = directory / "settings.cfg"
    settings.write_text(SETTINGS.format(directory=directory, **exchange.endpoints["fix"]))
    command = [sys.executable, str(Path(__file__).with_name("quickfix_member.py")), str(settings)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield QuickFix(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[Running], QuickFix]]:
    """Starts QuickFIX members that share one store, so that a later one continues the earlier one's session."""
    with ExitStack() as stack:
        yield lambda exchange: stack.enter_context(quickfix(tmp_path / "quickfix", exchange))


def test_quickfix_trades_cancels_and_asks(exchange: Running, connect: Callable[[Running], QuickFix]) -> None:
    """Order, fill, cancel with its pending state, status and mass status; neither side rejects anything."""
    member = connect(exchange)
    member.wait(event="logon")
    member.order("Q1")
    assert member.wait(t11="Q1", t150="0")["151"] == "100"
    member.order("Q2", t54="2", t38="40")
    assert member.wait(t11="Q2", t150="F")["31"] == "99.5"
    member.send({"35": "H", "11": "Q1", "55": "ALFA", "54": "1"})
    assert member.wait(t11="Q1", t150="I")["14"] == "40"
    member.send({"35": "AF", "584": "M", "585": "7"})
    assert member.wait(t150="I", t911="1")["11"] == "Q1"
    member.send({"35": "F", "11": "Q3", "41": "Q1", "55": "ALFA", "54": "1"})
    member.wait(t11="Q3", t150="6")
    assert member.wait(t11="Q3", t150="4")["41"] == "Q1"
    member.send({"35": "F", "11": "Q4", "41": "Q1", "55": "ALFA", "54": "1"})
    assert member.wait(t35="9", t11="Q4")["102"] == "0"
    member.send("logout")
    member.wait(event="logout")
    assert not [event for event in member.told if event["event"].startswith("reject")]


def test_quickfix_gets_what_it_missed_after_a_cut(exchange: Running, connect: Callable[[Running], QuickFix]) -> None:
    """Cut in mid-message and killed, QuickFIX comes back, asks, and gets the report with PossDup, once."""
    member = connect(exchange)
    member.wait(event="logon")
    exchange.post("/control/fills", account="FIRM", min_quantity=100, slices=[10, 20, 30], interval_ms=50)
    exchange.post(
        "/control/misbehave", action="disconnect_mid_message", session="FIRM", on={"kind": "fill", "account": "FIRM"}
    )
    member.order("Q1")
    member.wait(event="logout")
    member.process.kill()
    exchange.until("/oracle/summary", lambda s: s["fills"] == 3)
    again = connect(exchange)
    again.wait(event="logon")
    fills = [again.wait(t11="Q1", t150="F") for _ in range(3)]
    assert [(fill["14"], fill.get("43")) for fill in fills] == [("10", "Y"), ("30", "Y"), ("60", "Y")]
    again.send({"35": "H", "11": "Q1", "55": "ALFA", "54": "1"})
    again.wait(t11="Q1", t150="I")
    assert [event for event in again.told if event.get("150") == "F"] == fills


def test_quickfix_continues_after_the_exchange_was_killed(
    start: Callable[..., Running], connect: Callable[[Running], QuickFix]
) -> None:
    """Killed and recovered on the same port, the exchange goes on with QuickFIX's session and orders."""
    exchange = start("--participants", "0")
    member = connect(exchange)
    member.wait(event="logon")
    member.order("Q1")
    member.wait(t11="Q1", t150="0")
    exchange.kill()
    member.wait(event="logout")
    config = exchange.ledger.parent / "ports.toml"
    config.write_text(f"[ports]\nfix = {exchange.endpoints['fix']['port']}")
    start("--participants", "0", "--recover", "--config", str(config))
    member.wait(event="logon")
    member.order("Q2", t54="2")
    assert member.wait(t11="Q1", t150="F")["14"] == "100"
    assert not [event for event in member.told if event["event"].startswith("reject")]
