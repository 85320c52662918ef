import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paperexchange.ledger.lines import verify
from paperexchange.testing import Running, command


def state(exchange: Running) -> dict[str, Any]:
    """Everything a member can see, apart from what names the moment of asking."""
    return {
        "positions": exchange.get("/accounts/FIRM/positions")["positions"],
        "orders": exchange.get("/accounts/FIRM/orders")["orders"],
        "executions": exchange.get("/accounts/FIRM/executions")["executions"],
        "books": exchange.get("/market_data/snapshot")["books"],
        "numbers": {
            name: (session["next_in"], session["next_out"])
            for name, session in exchange.get("/oracle/summary")["sessions"].items()
        },
    }


def test_killed_exchange_recovers_to_the_very_same_state(start: Callable[..., Running]) -> None:
    """After kill -9 and --recover, orders, books, fills, positions and session numbers are the same."""
    exchange = start("--participants", "0")
    exchange.post("/control/preload", account="FIRM", executions=50)
    member = exchange.member().connect()
    sent = [member.order(price=f"{99 + number % 4}.00", side=str(1 + number % 2)) for number in range(40)]
    member.report(sent[-1], "0")
    member.report(member.cancel(sent[0]), "4")
    before = state(exchange)
    exchange.kill()
    again = start("--participants", "0", "--recover")
    after = state(again)
    for part in before:
        assert after[part] == before[part], part
    assert verify(again.ledger).damage is None


def test_sessions_go_on_after_a_kill(start: Callable[..., Running]) -> None:
    """The member reconnects with its old numbers, gets what it missed and trades on; connections count on."""
    exchange = start("--participants", "0")
    member = exchange.member().connect()
    exchange.post("/control/fills", account="FIRM", slices=[10, 10, 10], min_quantity=100, interval_ms=1)
    order = member.order(quantity=100)
    member.report(order, "0")
    member.disconnect()
    exchange.until("/oracle/summary", lambda s: s["fills"] == 3)
    exchange.kill()
    again = start("--participants", "0", "--recover")
    member._address = (again.endpoints["fix"]["host"], again.endpoints["fix"]["port"])
    member.connect()
    assert [member.report(order, "F").get(14) for _ in range(3)] == ["10", "20", "30"]
    member.report(member.cancel(order), "4")
    assert again.get("/oracle/summary")["sessions"]["FIRM"]["conn"] == 2


@pytest.mark.parametrize("cut", [1, 7, 60, 333, 1500])
def test_cut_ledger_recovers_up_to_the_last_whole_entry(start: Callable[..., Running], cut: int) -> None:
    """However much of the tail is missing, recovery works and the accounts still add up."""
    exchange = start("--participants", "0")
    member = exchange.member().connect()
    for number in range(10):
        member.order(price="100.00", side=str(1 + number % 2))
    member.wait(lambda m: m.get(150) == "F")
    exchange.kill()
    size = exchange.ledger.stat().st_size
    with exchange.ledger.open("r+b") as file:
        file.truncate(size - cut)
    again = start("--participants", "0", "--recover")
    fills = again.get("/accounts/FIRM/executions")["executions"]
    signed = sum(f["quantity"] * (1 if f["side"] == "buy" else -1) for f in fills)
    positions = again.get("/accounts/FIRM/positions")["positions"]
    assert signed == sum(p["quantity"] for p in positions.values())
    assert verify(again.ledger).damage is None


def test_participants_go_on_after_a_recovery(start: Callable[..., Running]) -> None:
    """The maker adopts its quotes: no symbol has more levels than it quotes."""
    exchange = start("--participants", "500")
    exchange.until("/health", lambda h: h["seq"] > 1500)
    exchange.kill()
    again = start("--participants", "500", "--recover")
    seq = again.get("/health")["seq"]
    again.until("/health", lambda h: h["seq"] > seq + 1500)
    for book in again.get("/market_data/snapshot")["books"].values():
        assert 1 <= len(book["bids"]) <= 6


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("again", ["--recover", "--fresh"])
def test_a_restarted_exchange_is_where_it_was(start: Callable[..., Running], again: str) -> None:
    """After a kill it listens on the same ports, with its state or without."""
    first = start("--participants", "0")
    first.member().connect()
    first.kill()
    second = start("--participants", "0", again)
    names = ("http", "member", "fix", "fix_backup", "drop_copy", "market_data")
    assert [second.endpoints[name] for name in names] == [first.endpoints[name] for name in names]
    assert second.get("/health")["status"] == "ok"


def test_directory_in_use_is_refused(exchange: Running) -> None:
    """A second exchange in the same directory names the first one's process and does not start."""
    directory = str(exchange.ledger.parent)
    refused = run("serve", "--dir", directory)
    assert refused.returncode == 64
    assert str(exchange.endpoints["pid"]) in refused.stderr


def test_existing_ledger_needs_a_decision(start: Callable[..., Running]) -> None:
    """A ledger is neither overwritten nor continued by accident; --fresh sets it aside."""
    first = start("--participants", "0")
    assert first.stop() == 0
    directory = str(first.ledger.parent)
    refused = run("serve", "--dir", directory)
    assert refused.returncode == 64
    assert "--recover" in refused.stderr
    fresh = start("--participants", "0", "--fresh")
    assert fresh.get("/oracle/summary")["fills"] == 0
    assert len(list(Path(directory).glob("ledger*.jsonl"))) == 2


def test_damaged_ledger_is_not_recovered(start: Callable[..., Running]) -> None:
    """Damage in the middle is refused with its place, by --recover and by verify."""
    first = start("--participants", "0")
    first.kill()
    data = bytearray(first.ledger.read_bytes())
    data[20] ^= 1
    first.ledger.write_bytes(data)
    refused = run("serve", "--dir", str(first.ledger.parent), "--recover")
    assert refused.returncode == 64
    assert "byte 0 (line 1" in refused.stderr
    checked = run("ledger", "verify", str(first.ledger))
    assert checked.returncode == 1
    assert "byte 0 (line 1" in checked.stderr


def test_port_in_use_is_named(exchange: Running, tmp_path: Path) -> None:
    """A port that is taken is refused with the setting that asked for it."""
    config = tmp_path / "c.toml"
    config.write_text(f"[ports]\nfix = {exchange.endpoints['fix']['port']}")
    refused = run("serve", "--dir", str(tmp_path / "other"), "--config", str(config))
    assert refused.returncode == 64
    assert "ports.fix" in refused.stderr


def test_sigterm_ends_in_order(exchange: Running) -> None:
    """A member gets a Logout, the ledger its last entry, the caller exit status 0."""
    member = exchange.member().connect()
    assert exchange.stop() == 0
    assert member.closed()
    assert b"\x0135=5\x01" in member.received
    result = run("ledger", "verify", str(exchange.ledger))
    assert result.returncode == 0
    assert "ended in order" in result.stdout


def test_command_line_asks_and_steers(exchange: Running, tmp_path: Path) -> None:
    """`phase` and `misbehave` act on a running exchange; `ledger export` writes its executions."""
    url = exchange.endpoints["http"]
    assert run("phase", "--url", url).stdout.startswith("continuous")
    assert run("phase", "--url", url, "close").stdout.startswith("close")
    assert '"id": "M1"' in run("misbehave", "--url", url, "drop", "--on", '{"kind": "fill"}').stdout
    wrong = run("misbehave", "--url", url, "explode")
    assert wrong.returncode == 64
    assert "disconnect_mid_message" in wrong.stderr
    exchange.post("/control/preload", account="FIRM", executions=5)
    out = tmp_path / "fills.parquet"
    exported = run("ledger", "export", str(exchange.ledger), "--out", str(out), "--account", "FIRM")
    assert exported.stdout.startswith("5 entries")
