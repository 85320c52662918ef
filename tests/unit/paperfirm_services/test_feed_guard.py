"""The feed's books in checksummed memory: damage is told and not sent, a snapshot rebuilds them (R40)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from paperfirm.alerts import Alerts
from paperfirm.config import Account, Endpoint, Exchange
from paperfirm.feed.guard import LEVEL_ROW, BookGuard
from paperfirm.feed.messages import BookSnapshot, Levels, Update
from paperfirm.feed.service import FeedService

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 10**12
BOOK = {"ALFA": Levels([(100, 5), (99, 7)], [(101, 6)]), "BRAVO": Levels([(50, 1)], [])}


class Engine:
    """Stands for an engine's link: keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        """Keep it."""
        self.sent.append(message)


class World:
    """A feed with books, a guard and an engine."""

    def __init__(self, folder: Path) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        where = Endpoint("127.0.0.1", 1)
        exchange = Exchange("http://127.0.0.1:1", where, where, ["ALFA"], "X", {"FIRM": Account("FIRM")})
        self.feed = FeedService(exchange, self.emit, lambda: NOW)
        self.state = self.feed.state
        self.file = folder / "book"
        self.alerts = Alerts(self.emit)
        self.guard = self.feed.guard = BookGuard(self.state, folder, emit=self.emit, alerts=self.alerts)
        self.engine = Engine()
        self.feed.engines.add(self.engine)  # type: ignore[arg-type]
        self.snapshot()

    def emit(self, event: str, **detail: Any) -> int:
        """Keep an event."""
        self.events.append((event, detail))
        return 1

    def snapshot(self) -> None:
        """Give the feed the truth."""
        assert self.state.load(BookSnapshot(9, BOOK, NOW), NOW)
        self.state.receive([Update(heartbeat=10, mono_ns=NOW)], NOW)

    def update(self, seq: int, price: int, quantity: int) -> None:
        """Give the feed a level of ALFA's bids."""
        self.state.receive([Update(seq, "ALFA", "buy", price, quantity, mono_ns=NOW)], NOW)

    def rows(self) -> set[tuple[str, str, int, int]]:
        """Read the table as another program would."""
        data = self.file.read_bytes()
        found = (LEVEL_ROW.unpack_from(data, at) for at in range(0, len(data), LEVEL_ROW.size))
        return {
            (r[0].rstrip(b"\0").decode(), r[1].rstrip(b"\0").decode(), r[2], r[3])
            for r in found
            if any(r[2:])
        }

    def flip(self, symbol: bytes, price: int) -> None:
        """Turn one bit of a level's quantity."""
        data = self.file.read_bytes()
        for at in range(0, len(data), LEVEL_ROW.size):
            row = LEVEL_ROW.unpack_from(data, at)
            if row[0].startswith(symbol) and row[2] == price:
                with self.file.open("r+b") as file:
                    file.seek(at + 39)
                    file.write(bytes([data[at + 39] ^ 1]))

    def look(self) -> None:
        """Look at every row."""
        for _ in range(8):
            self.guard.look(NOW)

    def told(self, name: str) -> list[dict[str, Any]]:
        """Return the details of all events of a name."""
        return [detail for event, detail in self.events if event == name]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Make a feed whose books are true."""
    made = World(tmp_path)
    yield made
    made.guard.close()


def test_the_table_holds_the_books(world: World) -> None:
    """Whoever maps the table sees every level, as snapshot and updates left it, and nothing else."""
    world.look()
    assert world.rows() == {("ALFA", "buy", 100, 5), ("ALFA", "buy", 99, 7), ("ALFA", "sell", 101, 6),
                            ("BRAVO", "buy", 50, 1)}  # fmt: skip
    world.update(10, 100, 0)
    world.update(11, 99, 8)
    world.update(12, 98, 1)
    world.look()
    assert world.rows() == {("ALFA", "buy", 99, 8), ("ALFA", "buy", 98, 1), ("ALFA", "sell", 101, 6),
                            ("BRAVO", "buy", 50, 1)}  # fmt: skip
    assert world.state.synchronised
    assert not world.told("alert")


def test_damage_is_told_and_a_snapshot_rebuilds(world: World) -> None:
    """A turned bit makes the books untrue at once; the snapshot replaces them, and the alert ends."""
    world.look()
    world.flip(b"ALFA", 99)
    world.look()
    (alert,) = world.told("alert")
    assert (alert["code"], alert["rows"], alert["symbols"]) == ("market_data_corrupt", 1, ["ALFA"])
    assert alert["first"] == ["ALFA buy 99"]
    assert not world.state.synchronised
    assert world.feed.trouble(NOW) == "gap"
    assert not world.told("market_data_rebuilt")
    world.snapshot()
    world.look()
    assert world.told("market_data_rebuilt") == [{"levels": 4, "source": "exchange"}]
    assert [one["code"] for one in world.told("alert_cleared")] == ["market_data_corrupt"]
    assert ("ALFA", "buy", 99, 7) in world.rows()
    assert world.guard.damaged == 1


def test_damage_in_the_books_themselves_is_found(world: World) -> None:
    """A level that changed behind everybody's back disagrees with its row: neither is believed."""
    world.look()
    world.state.books["BRAVO"].bids[50] = 1_000_000
    world.look()
    assert world.told("alert")[0]["first"] == ["BRAVO buy 50"]
    assert not world.state.synchronised


def test_damage_that_is_written_over_is_told_all_the_same(world: World) -> None:
    """An update does not heal a damaged row unseen."""
    world.look()
    world.flip(b"ALFA", 99)
    world.update(10, 99, 8)
    world.look()
    assert world.told("alert")[0]["first"] == ["ALFA buy 99"]


def test_a_damaged_best_price_is_not_sent(world: World) -> None:
    """What the rows of a symbol do not confirm goes to no engine; the other symbols' prices do."""
    world.look()
    world.flip(b"ALFA", 100)
    world.feed._publish(NOW)
    assert [top.symbol for top in world.engine.sent] == ["BRAVO"]
    world.look()
    world.snapshot()
    world.look()
    world.feed._publish(NOW)
    assert [top.symbol for top in world.engine.sent if top.symbol == "ALFA"] == ["ALFA"]
