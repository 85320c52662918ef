"""What breaks less plainly than a death: processes that do not answer, and what is told of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import urllib.request
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import get, until

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@contextlib.contextmanager
def paused(pid: int) -> Iterator[int]:
    """Stop a process and let it go on afterwards; gives the time (monotonic ns)."""
    at_ns = time.monotonic_ns()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield at_ns
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def told(system: Any, component: str, event: str, /, *, after_ns: int, **detail: Any) -> dict[str, Any]:
    """Wait for an event of a component with these details; returns it."""

    def look() -> dict[str, Any] | None:
        found = (one for one in system.events(component) if one["mono_ns"] > after_ns)
        return next(
            (one for one in found if one["event"] == event and detail.items() <= one["detail"].items()), None
        )

    return dict(until(look, f"{component} tells {event} {detail}"))


def of_epoch(system: Any, epoch: int) -> set[str]:
    """Return the orders at the exchange that an engine of this epoch sent."""
    orders = get(f"{system.market['http']}/accounts/FIRM/orders")["orders"]
    return {one["cl_ord_id"] for one in orders if one["cl_ord_id"].startswith(f"{epoch}-")}


def test_a_paused_primary_is_passed_over_and_fenced(system: Any, client: Any) -> None:
    """Alive and silent: the standby takes over; woken up, the old primary sends nothing and follows."""
    primary, standby = system.primary()
    pid = system.components()["components"][primary]["pid"]
    epoch = system.components()["epoch"]
    with paused(pid) as at_ns:
        told(system, "supervisor", "primary_hung", after_ns=at_ns, engine=primary, pid=pid, stopped=True)
        told(system, "supervisor", "alert", after_ns=at_ns, code="primary_hung", engine=primary)
        started = told(system, standby, "trading_started", after_ns=at_ns)
        assert started["epoch"] == epoch + 1
        client.new_acceptances(30)
        sent = of_epoch(system, epoch)
        assert system.components()["components"][primary]["role"] is None
        assert system.components()["components"][primary]["pid"] == pid
    told(system, primary, "role", after_ns=at_ns, role="fenced")
    told(system, "supervisor", "component_exited", after_ns=at_ns, component=primary, exit_status=75)
    told(system, "supervisor", "alert_cleared", after_ns=at_ns, code="primary_hung")
    system.settled()
    told(system, "router", "engine_fenced", after_ns=at_ns)
    assert sent
    assert of_epoch(system, epoch) == sent
    system.audit(client)


def test_a_silent_risk_manager_halts_trading(system: Any, client: Any) -> None:
    """A peer that is connected and says nothing counts as lost; the supervisor calls an operator."""
    primary, _ = system.primary()
    with paused(system.components()["components"]["risk"]["pid"]) as at_ns:
        lost = told(system, primary, "link_lost", after_ns=at_ns, link="risk")
        assert "silent" in lost["detail"]["reason"]
        told(system, primary, "trading_halted", after_ns=at_ns, reason="risk lost")
        told(system, "supervisor", "alert", after_ns=at_ns, code="component_silent", component="risk")
        told(system, "supervisor", "degraded", after_ns=at_ns, trading=False)
    told(system, primary, "trading_started", after_ns=at_ns)
    told(system, "supervisor", "restored", after_ns=at_ns)
    client.new_acceptances(20)
    until(lambda: get(system.ends["http"] + "/alerts")["alerts"] == [], "no alert lasts")
    system.audit(client)


def test_a_checkpoint_can_be_asked_for(system: Any, client: Any) -> None:
    """`POST /checkpoint` at the supervisor has the primary write one, of a record not older than that."""
    primary, _ = system.primary()
    client.new_acceptances(5)
    at_ns = time.monotonic_ns()
    request = urllib.request.Request(system.ends["http"] + "/checkpoint", method="POST")
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.status == 202
    started = told(system, primary, "checkpoint_started", after_ns=at_ns)
    written = told(system, primary, "checkpoint_written", after_ns=at_ns)
    assert written["detail"]["seq"] == started["detail"]["seq"]
    assert os.path.exists(written["detail"]["file"])  # noqa: PTH110 - a path as it stands in an event


def test_a_dead_recorder_stops_no_order(system: Any, client: Any) -> None:
    """Without the recorder orders go on; the firm says what is missing, and that it trades."""
    components = system.components()["components"]
    with paused(components["recorder"]["pid"]) as at_ns:
        client.new_acceptances(100)
        degraded = told(system, "supervisor", "degraded", after_ns=at_ns, trading=True)
        assert "postgres" in degraded["detail"]["parts"]
    told(system, "supervisor", "restored", after_ns=at_ns)
    system.audit(client)


def flip(path: Any, row_bytes: int, key: str, offset: int) -> None:
    """Flip a bit in the row of a key, as a particle would."""
    data = path.read_bytes()
    rows = range(0, len(data), row_bytes)
    at = next(row for row in rows if data[row : row + 64].split(b"\0")[0] == key.encode())
    with path.open("r+b") as file:
        file.seek(at + offset)
        file.write(bytes([data[at + offset] ^ 0x20]))


def test_a_flipped_bit_of_a_position_is_told_and_corrected(system: Any, client: Any) -> None:
    """One bit in shared memory: told with its symbol, the symbol halted, the exchange asked, resumed."""
    primary, _ = system.primary()
    path = system.folder / "firm" / "state" / primary / "shm" / "positions"
    symbol = "BRAVO"
    at_ns = time.monotonic_ns()
    flip(path, 44, symbol, 16 + 3)
    alert = told(system, primary, "alert", after_ns=at_ns, code="position_corrupt", symbol=symbol)
    assert alert["detail"]["where"] == "checksum"
    told(system, primary, "symbol_halted", after_ns=at_ns, symbol=symbol)
    told(system, primary, "position_corrected", after_ns=at_ns, symbol=symbol, source="exchange")
    told(system, primary, "symbol_resumed", after_ns=at_ns, symbol=symbol)
    told(system, primary, "alert_cleared", after_ns=at_ns, code="position_corrupt", symbol=symbol)

    def sealed() -> bool:
        data = path.read_bytes()
        rows = (data[at : at + 44] for at in range(0, len(data), 44))
        row = next(row for row in rows if row.startswith(symbol.encode()))
        return zlib.crc32(row[:40]).to_bytes(4, "big") == row[40:]

    until(sealed, "the row has its checksum again")
    system.audit(client)


def test_a_damaged_order_book_is_rebuilt_from_the_exchange(system: Any, client: Any) -> None:
    """Overwritten memory of the book of open orders is told and rebuilt after the exchange was asked."""
    primary, _ = system.primary()
    path = system.folder / "firm" / "state" / primary / "shm" / "orders"
    at_ns = time.monotonic_ns()
    with path.open("r+b") as file:
        file.write(b"\xa5" * 136 * 64)
    told(system, primary, "alert", after_ns=at_ns, code="order_book_corrupt")
    told(system, primary, "order_book_rebuilt", after_ns=at_ns, source="exchange")
    told(system, primary, "alert_cleared", after_ns=at_ns, code="order_book_corrupt")
    client.new_acceptances(20)
    system.audit(client)


def post(url: str, document: dict[str, Any]) -> None:
    """Send a JSON document."""
    request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=5).close()


def test_a_day_is_settled_once_though_the_primary_dies_in_it(system: Any, client: Any) -> None:
    """Killed when settlement begins: the next primary settles the day, once, at the exchange's positions."""
    market = system.market["http"]
    primary, standby = system.primary()
    try:
        at_ns = time.monotonic_ns()
        post(f"{market}/control/phase", {"phase": "close"})
        post(f"{market}/control/phase", {"phase": "settlement"})
        started = told(system, primary, "settlement_started", after_ns=at_ns)
        system.kill(primary)
        until(lambda: system.primary()[0] == standby, "the standby leads")
        until(lambda: system.state("settlements")["settlements"], "the day is settled")
        (close,) = system.state("settlements")["settlements"]
        assert close["day"] == started["detail"]["day"]
        theirs = get(f"{market}/accounts/FIRM/positions")["positions"]
        assert {name: one for name, one in close["positions"].items() if one} == {
            name: one["quantity"] for name, one in theirs.items() if one["quantity"]
        }
        assert get(f"{market}/accounts/FIRM/orders?open=1")["orders"] == []
        finished = [one for one in system.events(primary, standby) if one["event"] == "settlement_finished"]
        assert len(finished) in {0, 1}  # the old primary may have died between its journal and its event
        profit = system.state("pnl")["by_symbol"]
        assert close["by_symbol"] == {name: one["realised"] for name, one in profit.items()}
    finally:
        for phase in ("pre_open", "open", "continuous"):
            post(f"{market}/control/phase", {"phase": phase})
    client.new_acceptances(20)
    system.settled()
    system.audit(client)


def test_a_recovery_begins_again_when_the_exchange_is_lost_in_it(system: Any, client: Any) -> None:
    """It does not wait for an answer that was asked for before the loss, nor finish without the exchange."""
    market, (primary, _) = system.market["http"], system.primary()
    slow = {"action": "slow_answers", "session": "FIRM", "parameters": {"delay_ms": 2000, "ms": 60_000}}
    post(f"{market}/control/misbehave", slow)
    try:
        at_ns = time.monotonic_ns()
        post(f"{market}/control/session", {"session": "FIRM", "action": "disconnect"})
        first = told(system, primary, "reconciliation_started", after_ns=at_ns)
        cut = {"session": "FIRM", "action": "disconnect", "refuse_ms": 500}
        post(f"{market}/control/session", cut)
        interrupted = told(system, primary, "recovery_interrupted", after_ns=first["mono_ns"])
        assert "exchange session lost during recovery" in interrupted["detail"]["reason"]
        assert interrupted["mono_ns"] - first["mono_ns"] < 2e9, "before the answer could come"
        told(system, primary, "reconciliation_started", after_ns=interrupted["mono_ns"])
        early = [one for one in system.events(primary) if first["mono_ns"] < one["mono_ns"]]
        assert "reconciliation_finished" not in {
            one["event"] for one in early if one["mono_ns"] < interrupted["mono_ns"]
        }
    finally:
        request = urllib.request.Request(f"{market}/control/misbehave", method="DELETE")
        urllib.request.urlopen(request, timeout=5).close()
    told(system, primary, "trading_started", after_ns=interrupted["mono_ns"])
    client.new_acceptances(20)
    system.settled()
    system.audit(client)


def test_nonsense_from_the_exchange_is_put_aside_and_no_fill_is_lost(system: Any, client: Any) -> None:
    """Fills of another century or with impossible numbers are put aside and fetched; trading goes on."""
    market = system.market["http"]
    at_ns = time.monotonic_ns()
    for tag, value in ((60, "19700101-00:00:00"), (60, "20991231-23:59:59"), (32, "999999")):
        lie = {"action": "corrupt", "session": "FIRM", "parameters": {"tag": tag, "value": value}}
        post(f"{market}/control/misbehave", lie | {"on": {"kind": "report_sent", "exec_type": "F"}})
        found = told(system, "router", "quarantined", after_ns=at_ns)
        assert value in found["detail"]["message"]
        assert found["detail"]["action"] == "fetched again"
        at_ns = found["mono_ns"]
    post(f"{market}/control/market_data", {"action": "nonsense", "n": 5, "field": "mono_ns"})
    told(system, "feed", "quarantined", after_ns=at_ns)
    lines = (system.folder / "firm" / "state" / "router" / "quarantine.jsonl").read_text().splitlines()
    assert len(lines) >= 3
    client.new_acceptances(20)
    system.audit(client)
