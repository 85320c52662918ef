"""What an account's or the exchange's configuration changes."""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from paperexchange.testing import Running, command


@pytest.fixture
def configured(start: Callable[..., Running], tmp_path: Path) -> Callable[[str], Running]:
    """Start an exchange without participants and with the given TOML."""

    def make(text: str) -> Running:
        path = tmp_path / "exchange.toml"
        path.write_text(text)
        return start("--participants", "0", "--config", str(path))

    return make


def test_orders_survive_a_disconnect_unless_told(exchange: Running) -> None:
    """Cancel on disconnect is off by default."""
    member = exchange.member().connect()
    member.report(member.order(), "0")
    member.disconnect()
    exchange.until("/oracle/summary", lambda s: not s["sessions"]["FIRM"]["logged_on"])
    assert len(exchange.get("/accounts/FIRM/orders?open=1")["orders"]) == 1


def test_cancel_on_disconnect_reports_at_the_next_logon(configured: Callable[[str], Running]) -> None:
    """With the option, open orders are cancelled; the owner hears of it when it is back (FIX 23)."""
    exchange = configured("[accounts.FIRM]\ncancel_on_disconnect = true\ncancel_grace_ms = 20")
    member = exchange.member().connect()
    order = member.order()
    member.report(order, "0")
    member.disconnect()
    exchange.until("/accounts/FIRM/orders?open=1", lambda answer: not answer["orders"])
    canceled = member.connect().report(order, "4")
    assert (canceled.get(58), canceled.poss_dup) == ("cancel on disconnect", True)


def test_grace_time_spares_who_comes_back(configured: Callable[[str], Running]) -> None:
    """Whoever is back within the grace time keeps its orders."""
    exchange = configured("[accounts.FIRM]\ncancel_on_disconnect = true\ncancel_grace_ms = 1500")
    member = exchange.member().connect()
    member.report(member.order(), "0")
    exchange.get("/health")  # its first answer may take a while
    member.disconnect()
    exchange.until("/oracle/summary", lambda s: not s["sessions"]["FIRM"]["logged_on"])
    member.connect()
    listen_until = time.monotonic() + 1.8  # longer than the grace time
    while time.monotonic() < listen_until:
        with contextlib.suppress(TimeoutError):
            member.pump(0.1)
    assert len(exchange.get("/accounts/FIRM/orders?open=1")["orders"]) == 1


def test_a_cause_that_is_not_named_does_not_cancel(configured: Callable[[str], Running]) -> None:
    """With only `disconnect` as cause, an orderly logout keeps the orders."""
    exchange = configured('[accounts.FIRM]\ncancel_on_disconnect = true\ncancel_causes = ["disconnect"]')
    member = exchange.member().connect()
    member.report(member.order(), "0")
    member.log_out()
    exchange.until("/oracle/summary", lambda s: not s["sessions"]["FIRM"]["logged_on"])
    assert len(exchange.get("/accounts/FIRM/orders?open=1")["orders"]) == 1
    member.connect().disconnect()
    exchange.until("/accounts/FIRM/orders?open=1", lambda answer: not answer["orders"])


def test_drop_copy_can_carry_fills_only(configured: Callable[[str], Running]) -> None:
    """With `fills`, acknowledgements do not appear on the drop copy (FIX 24)."""
    exchange = configured('[accounts.FIRM]\ndrop_copy = "fills"')
    copy = exchange.member("drop_copy", comp_id="FIRMDC").connect()
    member = exchange.member().connect()
    member.order(price="100.00")
    member.report(member.order(side="2", price="100.00"), "F")
    assert [copy.wait(lambda m: m.msg_type == "8").get(150) for _ in range(2)] == ["F", "F"]


@pytest.mark.parametrize(("buffered", "expected"), [("true", ["A", "B"]), ("false", ["B"])])
def test_drop_copy_is_buffered_or_not(
    configured: Callable[[str], Running], buffered: str, expected: list[str]
) -> None:
    """What happens while the drop copy is disconnected comes at its next logon, or never, as configured."""
    exchange = configured(f"[accounts.FIRM]\ndrop_copy_buffered = {buffered}")
    member = exchange.member().connect()
    member.report(member.order(t11="A"), "0")
    copy = exchange.member("drop_copy", comp_id="FIRMDC").connect()
    member.report(member.order(t11="B"), "0")
    assert [copy.wait(lambda m: m.msg_type == "8").get(11) for _ in expected] == expected


def test_echo_mode_gives_orders_back(configured: Callable[[str], Running]) -> None:
    """In echo mode an order comes back as it was received and nothing is booked."""
    exchange = configured("echo = true")
    member = exchange.member().connect()
    member.order(t11="E1", t58="hello")
    echoed = member.wait(lambda m: m.msg_type == "D")
    assert (echoed.get(11), echoed.get(58), echoed.get(38)) == ("E1", "hello", "100")
    assert exchange.get("/accounts/FIRM/orders")["orders"] == []


def test_comp_ids_and_accounts_are_settable(configured: Callable[[str], Running]) -> None:
    """Two members under other names trade with each other; their positions mirror each other."""
    exchange = configured('comp_id = "VENUE"\n[accounts.ONE]\ncomp_id = "BANK1"\n[accounts.TWO]')
    one = exchange.member(comp_id="BANK1", target="VENUE").connect()
    two = exchange.member(comp_id="TWO", target="VENUE").connect()
    one.report(one.order(quantity=30, price="100.00"), "0")
    two.report(two.order(side="2", quantity=30, price="100.00"), "F")
    positions = [exchange.get(f"/accounts/{name}/positions")["positions"]["ALFA"] for name in ("ONE", "TWO")]
    assert positions == [{"quantity": 30, "cash": -30_000_000}, {"quantity": -30, "cash": 30_000_000}]


def test_command_line_sets_names_and_echo(start: Callable[..., Running]) -> None:
    """CompIDs and echo mode need no configuration file."""
    exchange = start("--participants", "0", "--comp-id", "ISLD", "--member", "TW", "--echo")
    member = exchange.member(comp_id="TW", target="ISLD").connect()
    member.order(t11="E1")
    assert member.wait(lambda m: m.msg_type == "D").get(11) == "E1"


@pytest.mark.parametrize("text", ['session_start = "08:00"', 'session_start = "8"\nsession_end = "x"'])
def test_half_a_session_window_is_refused(text: str, tmp_path: Path) -> None:
    """A window needs both of its ends, as times of day; the error says so and names the settings."""
    config = tmp_path / "exchange.toml"
    config.write_text(text)
    line = command("serve", "--dir", str(tmp_path / "x"), "--config", str(config))
    refused = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 64
    assert "session_start" in refused.stderr


def test_bad_logons_close_the_port(configured: Callable[[str], Running]) -> None:
    """After the configured number of bad logons connections are refused by the kernel (FIX 12)."""
    exchange = configured("bad_logon_limit = 3")
    endpoint = exchange.endpoints["fix"]
    for _ in range(3):
        with socket.create_connection((endpoint["host"], endpoint["port"]), timeout=10) as sock:
            sock.sendall(b"8=FIX.4.4\x019=5\x0135=0\x0110=163\x01")
            assert sock.recv(100) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((endpoint["host"], endpoint["port"]), timeout=10)


def test_a_compressed_day_passes_while_members_trade(start: Callable[..., Running]) -> None:
    """A day of 3 s goes through every phase and begins again; day orders expire with it."""
    exchange = start("--participants", "20", "--calendar", "compressed:3")
    exchange.until("/phase", lambda answer: answer["phase"] == "continuous")
    member = exchange.member().connect()
    order = member.order()
    member.report(order, "0")
    member.report(order, "C")
    exchange.until("/phase", lambda answer: answer["day"] == 2 and answer["phase"] == "continuous")
    exchange.stop()
    text = exchange.ledger.read_text()
    lines = [line for line in text.splitlines() if '"kind":"phase"' in line]
    phases = [line.split('"phase":"')[1].split('"')[0] for line in lines]
    day = ["pre_open", "open", "continuous", "close", "settlement"]
    assert phases[:7] == [*day[1:], *day][:7]  # it begins in pre-open


def test_running_script_goes_on_after_a_recovery(start: Callable[..., Running]) -> None:
    """Slices not yet filled when the exchange was killed are filled after its recovery, none twice."""
    exchange = start("--participants", "0")
    exchange.post("/control/fills", account="FIRM", slices=[10] * 4, interval_ms=400, symbol="ALFA")
    member = exchange.member().connect()
    order = member.order(quantity=100)
    member.report(order, "F")
    exchange.kill()
    again = start("--participants", "0", "--recover")
    again.until("/oracle/summary", lambda s: s["fills"] == 4)
    found = again.get("/accounts/FIRM/orders?open=1")["orders"][0]
    assert (found["cum_quantity"], found["leaves_quantity"]) == (40, 60)


def test_planned_phases_begin_by_themselves(start: Callable[..., Running]) -> None:
    """The market closes and opens again in the planned order; a later plan replaces an earlier one."""
    exchange = start("--participants", "0")
    exchange.post("/control/calendar", phases=[{"phase": "settlement", "in_ms": 300}])
    plan = [
        {"phase": "close", "in_ms": 0},
        {"phase": "pre_open", "in_ms": 60},
        {"phase": "open", "in_ms": 120},
    ]
    exchange.post("/control/calendar", phases=plan)
    exchange.until("/phase", lambda answer: answer["phase"] == "open")
    entries = [json.loads(line.split(" ", 1)[1]) for line in exchange.ledger.read_text().splitlines()]
    phases = [entry["phase"] for entry in entries if entry["kind"] == "phase"]
    assert phases[-3:] == ["close", "pre_open", "open"]
    assert "settlement" not in phases
    status, answer = exchange.request(
        "POST", "/control/calendar", {"phases": [{"phase": "open", "in_ms": -1}]}
    )
    assert (status, "negative" in answer["error"]) == (400, True)
