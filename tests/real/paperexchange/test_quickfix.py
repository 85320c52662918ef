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

PARTY = {"453": "1", "448": "FIRM", "447": "D", "452": "1"}
SETTINGS = """[DEFAULT]
ConnectionType=initiator
ReconnectInterval=1
StartTime=00:00:00
EndTime=00:00:00
HeartBtInt=5
UseDataDictionary=Y
DataDictionary={dictionary}
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
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def order(self, cl_ord_id: str, **more: str) -> None:
        """Let it send an order; `t38="40"` sets field 38."""
        fields = {
            "35": "D",
            "11": cl_ord_id,
            "21": "1",
            "55": "ALFA",
            "54": "1",
            "38": "100",
            "40": "2",
            "44": "99.5",
            "59": "0",
        }
        self.send(fields | {tag[1:]: value for tag, value in more.items()})

    def wait(self, **wanted: str) -> dict[str, Any]:
        """Give the next event with these values (`t150="0"` is field 150); earlier ones are kept."""
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
    """Run QuickFIX as a member."""
    directory.mkdir(exist_ok=True)
    settings = directory / "settings.cfg"
    dictionary = Path(sys.prefix) / "share/quickfix/FIX44.xml"  # every message is checked against FIX 4.4
    settings.write_text(
        SETTINGS.format(directory=directory, dictionary=dictionary, **exchange.endpoints["fix"])
    )
    command = [sys.executable, str(Path(__file__).with_name("quickfix_member.py")), str(settings)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield QuickFix(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[Running], QuickFix]]:
    """Start QuickFIX members that share one store: a later one continues the earlier one's session."""
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
    member.order("Q5")
    member.wait(t11="Q5", t150="0")
    member.send(
        {"35": "G", "11": "Q6", "41": "Q5", "55": "ALFA", "54": "1", "40": "2", "38": "70", "44": "99.25"}
    )
    assert member.wait(t11="Q6", t150="5")["151"] == "70"
    member.order("Q6")
    assert member.wait(t11="Q6", t150="8")["103"] == "6"
    exchange.post("/control/restate", order_id="O3", quantity=50)
    member.wait(t11="Q6", t150="D")
    member.send({"35": "AN", "710": "P1", "724": "0", "1": "FIRM", "581": "1", "715": "20260101"} | PARTY)
    member.wait(t35="AP")
    member.send({"35": "q", "11": "Q7", "530": "7"})
    member.wait(t35="r")
    member.wait(t11="Q6", t150="4")
    member.send({"35": "AF", "584": "M2", "585": "7"})
    assert member.wait(t150="I", t911="0")["39"] == "8"
    member.send({"35": "H", "11": "nobody", "55": "ALFA", "54": "1"})
    assert member.wait(t11="nobody", t150="I")["39"] == "8"
    member.send("logout")
    member.wait(event="logout")
    assert not [event for event in member.told if event["event"].startswith("reject")]


def test_quickfix_gets_what_it_missed_after_a_cut(
    exchange: Running, connect: Callable[[Running], QuickFix]
) -> None:
    """Cut in mid-message and killed, QuickFIX comes back, asks, and gets the report with PossDup, once."""
    member = connect(exchange)
    member.wait(event="logon")
    exchange.post("/control/fills", account="FIRM", min_quantity=100, slices=[10, 20, 30], interval_ms=50)
    exchange.post(
        "/control/misbehave",
        action="disconnect_mid_message",
        session="FIRM",
        on={"kind": "fill", "account": "FIRM"},
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
