"""Damaged memory: halted, asked about at the exchange, put right, resumed (R39, R40)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from paperfirm.alerts import Alerts
from paperfirm.engine import events as ev
from paperfirm.engine import guard as guard_module
from paperfirm.engine.decide import ExchangeOrder
from paperfirm.engine.errors import EngineError
from paperfirm.engine.guard import MemoryGuard
from paperfirm.engine.member import ExchangePosition
from paperfirm.engine.sharedmem import SharedMemory
from paperfirm.engine.state import State

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class Desk:
    """A desk, as far as the guard needs one."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.halted_symbols: dict[str, str] = {}


class Member:
    """The exchange's records; `silent` times it does not answer."""

    def __init__(self, quantity: int) -> None:
        self.quantity = quantity
        self.open: list[ExchangeOrder] = []
        self.silent = 0
        self.asked = 0

    async def positions(self) -> dict[str, ExchangePosition]:
        """Answer, or not."""
        self.asked += 1
        if self.silent:
            self.silent -= 1
            raise EngineError("no answer")
        return {"ALFA": ExchangePosition(self.quantity, -10 * self.quantity)}

    async def orders(self, *, only_open: bool) -> list[ExchangeOrder]:
        """Return the open orders."""
        assert only_open
        return self.open


class Router:
    """Remembers what was asked of the exchange."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        """Remember."""
        self.sent.append(message)


class Bench:
    """A guard over real tables and a real state."""

    def __init__(self, folder: Path, *, exchange: int = 7) -> None:
        self.state = State()
        self.apply(ev.OrderEntered("1-C1", "", "client", "ALFA", "buy", "day", 10, 20))
        self.apply(ev.OrderUpdated(0, "1-C1", "O1", "new", ""))
        self.apply(ev.Executed(0, "E1", "1-C1", "O1", "ALFA", "buy", 7, 10, late=False))
        self.memory = SharedMemory(folder, self.state)
        self.folder = folder
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.desk, self.member, self.router = Desk(self.state), Member(exchange), Router()
        self.member.open = [ExchangeOrder("O1", "1-C1", "ALFA", "buy", 20, "partially_filled")]
        self.recoveries: list[str] = []
        self.guard = MemoryGuard(
            self.desk,  # type: ignore[arg-type]
            self.member,  # type: ignore[arg-type]
            self.router,  # type: ignore[arg-type]
            lambda: self.memory,
            emit=self.emit,
            alerts=Alerts(self.emit),
            recover=self.recoveries.append,
        )

    def apply(self, event: ev.Event) -> None:
        """Apply the next record."""
        self.state.apply(ev.Record(self.state.seq + 1, 1, 2, event))

    def emit(self, event: str, **detail: Any) -> int:
        """Remember an event."""
        self.events.append((event, detail))
        return 1

    def spoil(self, table: str, at: int) -> None:
        """Change a byte of a table's file."""
        with (self.folder / table).open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x10]))

    def names(self) -> list[str]:
        """Return the events' names."""
        return [event for event, _ in self.events]

    async def until(self, event: str) -> None:
        """Let the guard work until it tells an event."""
        async with asyncio.timeout(10):
            while event not in self.names():  # noqa: ASYNC110 - the guard's task tells it
                await asyncio.sleep(0.001)

    def row(self, table: str) -> int:
        """Return where the one used row begins."""
        data = (self.folder / table).read_bytes()
        return next(at for at, byte in enumerate(data) if byte)


def test_a_damaged_position_halts_its_symbol_until_the_exchange_has_spoken(tmp_path: Path) -> None:
    """Told by symbol, halted, tried again while the exchange is silent, corrected, resumed."""
    bench = Bench(tmp_path)
    bench.member.silent = 2

    async def scenario() -> None:
        bench.spoil("positions", bench.row("positions") + 20)
        bench.guard.positions(bench.memory.check_positions())
        assert bench.desk.halted_symbols == {"ALFA": "position in memory damaged"}
        assert bench.memory.quantity("ALFA") is None
        bench.guard.positions(bench.memory.check_positions())  # seen again: not told again
        await bench.until("alert_cleared")

    asyncio.run(scenario())
    assert bench.member.asked == 3
    assert bench.memory.quantity("ALFA") == 7
    assert bench.desk.halted_symbols == {}
    names = [name for name in bench.names() if name != "reconciliation_failed"]
    assert names == ["symbol_halted", "alert", "position_corrected", "symbol_resumed", "alert_cleared"]
    assert bench.events[1][1]["where"] == "checksum"
    assert ("position_corrected", {"symbol": "ALFA", "quantity": 7, "source": "exchange"}) in bench.events


def test_a_position_damaged_behind_the_row_is_made_anew(tmp_path: Path) -> None:
    """The state's own number changed: the books are rebuilt from the executions, as the exchange has them."""
    bench = Bench(tmp_path)

    async def scenario() -> None:
        bench.state.positions["ALFA"].quantity ^= 1 << 20
        (damage,) = bench.memory.check_positions()
        assert (damage.key, damage.where) == ("ALFA", "books")
        bench.guard.positions([damage])
        await bench.until("alert_cleared")

    asyncio.run(scenario())
    assert bench.state.positions["ALFA"].quantity == 7
    assert bench.memory.quantity("ALFA") == 7


def test_what_the_exchange_does_not_confirm_stays_halted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executions and exchange differ: everything is recovered; no trade before they agree."""
    monkeypatch.setattr(guard_module, "AGREE_LIMIT_S", 0.05)
    bench = Bench(tmp_path, exchange=9)

    async def scenario() -> None:
        bench.guard.position("ALFA", "books")
        async with asyncio.timeout(10):
            while not bench.recoveries:  # noqa: ASYNC110 - the guard's task does it
                await asyncio.sleep(0.001)
        assert bench.desk.halted_symbols
        assert "position_corrected" not in bench.names()
        bench.apply(ev.Executed(0, "E2", "1-C1", "O1", "ALFA", "buy", 2, 10, late=True))
        await bench.until("position_corrected")

    asyncio.run(scenario())
    assert bench.state.positions["ALFA"].quantity == 9
    assert bench.desk.halted_symbols == {}


def test_a_damaged_book_of_orders_is_rebuilt_when_the_exchange_agrees(tmp_path: Path) -> None:
    """The order's status is asked for, its symbol halted, the table written anew, free rows too."""
    bench = Bench(tmp_path)

    async def scenario() -> None:
        bench.spoil("orders", bench.row("orders") + 120)
        bench.spoil("orders", 136 * 3 + 5)
        found = [one for _ in range(4) for one in bench.memory.check_orders()]
        bench.guard.orders(found)
        assert bench.desk.halted_symbols == {"ALFA": "order book in memory damaged"}
        await bench.until("alert_cleared")

    asyncio.run(scenario())
    assert [message.cl_ord_id for message in bench.router.sent] == ["1-C1"]
    (alert,) = [detail for event, detail in bench.events if event == "alert"]
    assert (alert["code"], alert["rows"], alert["symbols"]) == ("order_book_corrupt", 2, ["ALFA"])
    assert ("order_book_rebuilt", {"orders": 1, "source": "exchange"}) in bench.events
    assert [one for _ in range(8) for one in bench.memory.check_orders()] == []
    assert bench.desk.halted_symbols == {}
