from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from paperfirm.config import StrategySettings
from paperfirm.engine import documents
from paperfirm.engine import events as ev
from paperfirm.engine.links import FeedPeer
from paperfirm.engine.recorderwatch import Expected, RecorderWatch, Stored, expected, lacking
from paperfirm.engine.state import State
from paperfirm.engine.strategy import MarketMaker
from paperfirm.http import Router, json, serve
from paperfirm.wire import FeedStatus, Top

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Log:
    """Remembers events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **detail: Any) -> int:
        """Take an event."""
        self.events.append((event, detail))
        return len(self.events)

    def names(self) -> list[str]:
        """Return the names in order."""
        return [name for name, _ in self.events]


def state_of(*events: ev.Event) -> State:
    """Apply events."""
    state = State()
    for number, event in enumerate(events, start=1):
        state.apply(ev.Record(number, number, number, event))
    return state


def fill(number: int) -> ev.Executed:
    """Fill the whole of an order."""
    return ev.Executed(number, f"E{number}", f"1-S{number}", "O", "ALFA", "buy", 5, 100, late=False)


def entered(number: int) -> ev.OrderEntered:
    """Enter an order."""
    return ev.OrderEntered(f"1-S{number}", "", "strategy", "ALFA", "buy", "day", 100, 5)


def test_expected_is_what_left_the_outbox() -> None:
    """Fills, busts and finished orders that wait in the outbox are not expected in the database yet."""
    state = state_of(entered(1), fill(1), entered(2), fill(2), ev.Busted(3, "B1", "E1"), ev.Published(3))
    assert [entry.kind for entry in state.outbox] == ["order", "bust"]
    assert expected(state) == Expected(2, 1, "E2")
    assert expected(State()) == Expected(0, 0, "")


@pytest.mark.parametrize(
    ("found", "agrees"),
    [
        (Stored(2, 1, has=True), True),
        (Stored(3, 4, has=True), True),
        (Stored(1, 1, has=True), False),
        (Stored(2, 0, has=True), False),
        (Stored(2, 1, has=False), False),
    ],
)
def test_the_database_must_hold_what_was_published(found: Stored, agrees: bool) -> None:
    """Fewer rows than were published, or another newest execution, is no agreement; more rows are."""
    assert (lacking(Expected(2, 1, "E2"), found) is None) == agrees


class Recorder:
    """A recorder's HTTP surface whose answers a test sets."""

    def __init__(self) -> None:
        self.pid = 1
        self.rows = 2
        self.routes = Router()
        self.routes.add("GET", "/state", lambda _: json(self.state()))
        self.routes.add(
            "GET", "/stored", lambda _: json({"executions": self.rows, "orders": 2, "has": self.rows >= 2})
        )

    def state(self) -> dict[str, Any]:
        """Say that both links are up."""
        link = {"connected": True, "since_mono_ns": 5}
        return {"database": link, "queue": link, "pid": self.pid, "progress": {}}


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another task
            await asyncio.sleep(0.005)


def test_a_recorder_that_came_back_is_compared() -> None:
    """Another process in the recorder's place: the database is in step once the tables have caught up."""

    async def watch() -> None:
        log, recorder = Log(), Recorder()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        state = state_of(entered(1), fill(1), entered(2), fill(2), ev.Published(4))
        watching = RecorderWatch(port, state, emit=log, clock=lambda: 7)
        task = asyncio.ensure_future(watching.run())
        web = await serve(port, recorder.routes)
        await until(lambda: "database_in_step" in log.names())
        assert log.names() == ["link_restored", "database_in_step"]
        assert watching.connected
        recorder.pid, recorder.rows = 2, 1
        web.close()
        await until(lambda: not watching.connected)
        web = await serve(port, recorder.routes)
        await until(lambda: watching.connected)
        assert log.names().count("database_in_step") == 1
        recorder.rows = 2
        await until(lambda: log.names().count("database_in_step") == 2)
        assert log.names()[-3:] == ["link_lost", "link_restored", "database_in_step"]
        task.cancel()
        web.close()

    asyncio.run(watch())


class QuietDesk:
    """A desk that trades and places nothing."""

    def __init__(self) -> None:
        self.trading = True
        self.state = State()
        self.reference: dict[str, int] = {}
        self.placed = 0

    def place(self, *_: Any, **__: Any) -> str:
        """Count."""
        self.placed += 1
        return ""


def test_a_lost_feed_is_validated_before_quotes_resume() -> None:
    """The feed's return alone is not enough: each symbol must have been heard of again, uncrossed."""
    log, desk = Log(), QuietDesk()
    feed = FeedPeer(0, engine="x", emit=log, clock=lambda: 5, on_top=lambda top: maker.on_top(top))  # noqa: PLW0108
    maker = MarketMaker(desk, feed, StrategySettings(), symbols=["ALFA"], clock=lambda: 5, emit=log)  # type: ignore[arg-type]
    good = Top("ALFA", 100, 1, 200, 1, 1, 5)
    feed.message(FeedStatus(up=True, seq=1, mono_ns=5))
    feed.message(good)
    maker.step()
    assert log.names() == ["link_restored", "quotes_resumed"]
    feed.closed("killed")
    maker.step()
    feed.renewed.clear()
    feed.message(FeedStatus(up=True, seq=1, mono_ns=5))
    before = desk.placed
    maker.step()
    feed.message(Top("ALFA", 300, 1, 200, 1, 1, 6))
    maker.step()
    assert (desk.placed, maker.quoting) == (before, False)
    feed.message(good)
    maker.step()
    assert log.names()[-2:] == ["state_validated", "quotes_resumed"]
    assert maker.quoting


def test_a_feed_that_is_back_by_the_next_step_was_lost_all_the_same() -> None:
    """Quotes made on prices that were in doubt are pulled, however short the doubt was."""
    log, desk = Log(), QuietDesk()
    feed = FeedPeer(
        0,
        engine="x",
        emit=log,
        clock=lambda: 5,
        on_top=lambda top: maker.on_top(top),  # noqa: PLW0108
        on_status=lambda: maker.look(),  # noqa: PLW0108
    )
    maker = MarketMaker(desk, feed, StrategySettings(), symbols=["ALFA"], clock=lambda: 5, emit=log)  # type: ignore[arg-type]
    feed.message(FeedStatus(up=True, seq=1, mono_ns=5))
    feed.message(Top("ALFA", 100, 1, 200, 1, 1, 5))
    maker.step()
    log.events.clear()
    feed.message(FeedStatus(up=False, seq=1, mono_ns=5, reason="gap"))
    feed.message(FeedStatus(up=True, seq=2, mono_ns=5))
    maker.step()
    expected = ["link_lost", "quotes_pulled", "link_restored", "state_validated", "quotes_resumed"]
    assert log.names() == expected


def test_last_written_is_the_newest_of_all_logs(tmp_path: Path) -> None:
    """Whichever component wrote last counts, on the monotonic clock; none at all is none."""
    assert documents.last_written(tmp_path, lambda: 0, lambda: 0) is None
    for name, wall_ns in (("engine-a", 1_000_000_000), ("feed", 3_000_000_000)):
        (tmp_path / f"{name}.jsonl").write_text("{}\n")
        os.utime(tmp_path / f"{name}.jsonl", ns=(wall_ns, wall_ns))
    assert documents.last_written(tmp_path, lambda: 50_000_000_000, lambda: 4_000_000_000) == 49_000_000_000
