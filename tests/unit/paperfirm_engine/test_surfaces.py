from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperfirm import wire
from paperfirm.config import ConfigError, Settings, StrategySettings, load_settings
from paperfirm.engine import documents
from paperfirm.engine import events as ev
from paperfirm.engine.outbox import Letter, Outbox, letter
from paperfirm.engine.state import Indicator, State, load
from paperfirm.engine.strategy import quote, updated
from paperfirm.frames import FrameError, Splitter, listen, pack
from paperfirm.http import _Connection as HttpConnection
from paperfirm.http import common_routes, fetch, take_request

if TYPE_CHECKING:
    from pathlib import Path

MESSAGES: list[wire.Message] = [wire.Approve("1-C0000001"), wire.Top("ALFA", 1, 2, 3, 4, 5, 6), wire.Beat(9)]


@given(st.lists(st.integers(1, 30), max_size=20))
def test_frames_cut_anywhere(cuts: list[int]) -> None:
    """However a stream of frames is cut, the same messages come out."""
    data = b"".join(map(pack, MESSAGES * 3))
    splitter, found, position = Splitter(), [], 0
    for cut in [*cuts, len(data)]:
        found += splitter.feed(data[position : position + cut])
        position += cut
    assert found == MESSAGES * 3


def test_a_foreign_stream_is_refused() -> None:
    """What is no frame raises an error that says so."""
    with pytest.raises(FrameError):
        Splitter().feed(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(FrameError):
        Splitter().feed(b"\0\0\0\2\xff\xff")


@given(st.integers(0, 120))
def test_requests_cut_anywhere(cut: int) -> None:
    """A request arriving in two pieces is the same request; two in one piece are two."""
    data = b"POST /promote?a=1&b=%20x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    buffer = bytearray(data[:cut])
    early = take_request(buffer)
    buffer += data[cut:] + data
    requests = [one[0] for one in (early, take_request(buffer), take_request(buffer)) if one is not None]
    assert len(requests) == 2
    assert {(one.method, one.path, one.body) for one in requests} == {("POST", "/promote", b"abc")}
    assert requests[0].query == {"a": "1", "b": " x"}


@pytest.mark.parametrize(
    "data", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"x" * 40_000]
)
def test_bad_requests_are_refused(data: bytes) -> None:
    """What is not HTTP raises ValueError, which becomes a 400."""
    with pytest.raises(ValueError, match=r"request|Content"):
        take_request(bytearray(data))


def test_common_routes_over_a_socket() -> None:
    """Health, readiness with its reason, metrics, and errors with a hint, over a real connection."""

    async def work() -> list[tuple[int, bytes]]:
        routes = common_routes(lambda: "not yet", lambda: {"a_total": 1.0}, component="x")
        routes.add("GET", "/broken", lambda _: 1 / 0)  # type: ignore[arg-type,return-value]
        server = await listen(0, lambda: HttpConnection(routes))
        port = server.sockets[0].getsockname()[1]
        paths = ("health", "ready", "metrics", "nothing", "broken")
        answers = [await fetch(f"http://127.0.0.1:{port}/{path}") for path in paths]
        server.close()
        return answers

    answers = asyncio.run(work())
    assert [status for status, _ in answers] == [200, 503, 200, 404, 500]
    assert b"not yet" in answers[1][1]
    assert b"paperfirm_a_total 1.0" in answers[2][1]
    assert b"ZeroDivisionError" in answers[4][1]


class Broker:
    """A stream that numbers what it stores and drops duplicates."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.lose = 0

    async def publish(self, _subject: str, _payload: bytes, **options: Any) -> Any:
        """Store, unless told to lose it or having it already."""
        name = options["headers"]["Nats-Msg-Id"]
        duplicate = name in self.stored
        if self.lose:
            self.lose -= 1
        elif not duplicate:
            self.stored.append(name)
        return SimpleNamespace(seq=len(self.stored), duplicate=duplicate)

    async def publish_async(self, subject: str, payload: bytes, **options: Any) -> Any:
        """Store and give the acknowledgement as a future."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result(await self.publish(subject, payload, headers=options["headers"]))
        return future


@pytest.mark.parametrize(("lose", "there"), [(0, 0), (1, 0), (3, 0), (0, 2)])
def test_a_batch_is_stored_whole(lose: int, there: int) -> None:
    """One acknowledgement is believed only if it proves the batch; losses and duplicates lead to one each."""
    broker, letters = Broker(), [Letter("s", f"m{number}", b"") for number in range(6)]
    broker.stored += [one.id for one in letters[:there]]
    broker.lose = lose
    outbox = Outbox(None, "", emit=lambda *_, **__: 0, clock=lambda: 0)  # type: ignore[arg-type]
    outbox._client = broker
    outbox._stream_seq = there

    async def work() -> bool:
        certain = await outbox._in_one(broker, letters)
        if not certain:
            await outbox._one_by_one(broker, letters)
        return certain

    assert asyncio.run(work()) is (lose == 0 and there == 0)
    assert sorted(broker.stored) == sorted(one.id for one in letters)


def test_indicators_converge_and_quotes_stay_apart() -> None:
    """A steady price is learned, and the quotes never touch the market.

    Lean with it and respect the position.
    """
    settings = StrategySettings()
    indicator: Indicator | None = None
    top = wire.Top("ALFA", 1_000_000, 10, 1_000_200, 30, 1, 0)
    for number in range(200):
        top = wire.Top("ALFA", 1_000_000, 10, 1_000_200, 30, number, number * 100_000_000)
        indicator = updated(indicator, top, settings)
    assert indicator is not None
    assert indicator.samples == 200
    assert indicator.ema_mid == pytest.approx(1_000_100)
    assert indicator.imbalance == pytest.approx(-0.5)
    flat = quote(indicator, top, 0, settings)
    long = quote(indicator, top, settings.max_position, settings)
    assert flat.buy is not None
    assert flat.sell is not None
    assert flat.buy < top.ask
    assert flat.sell > top.bid
    assert long.buy is None
    assert long.sell is not None
    assert long.sell < flat.sell
    assert updated(indicator, wire.Top("ALFA", 0, 0, 5, 1, 1, 10**15), settings) is indicator


def test_documents_agree_with_each_other() -> None:
    """Positions, executions and profit tell the same story of the same state."""
    state = State()
    events: list[ev.Event] = [
        ev.OrderEntered("1-C1", "a", "client", "ALFA", "buy", "day", None, 10),
        ev.Executed(1, "E1", "1-C1", "O", "ALFA", "buy", 4, 100, late=False),
        ev.Executed(2, "E2", "1-C1", "O", "ALFA", "buy", 6, 200, late=True),
    ]
    for number, event in enumerate(events, start=1):
        state.apply(ev.Record(number, number, number, event))
    profit = documents.profit(state, {"ALFA": 300})
    assert documents.positions(state, 7)["positions"] == [
        {"symbol": "ALFA", "quantity": 10, "average_price": 160, "cash": -1600, "realised_pnl": 0}
    ]
    assert profit["total"] == -1600 + 10 * 300
    page = documents.executions(state, since=1, limit=5)
    assert ([one["exec_id"] for one in page["executions"]], page["next"], page["last"]) == (["E2"], 2, 2)
    assert documents.orders(state, 7, everything=False)["orders"] == []
    assert documents.orders(state, 7, everything=True)["orders"][0]["status"] == "filled"
    msgspec.json.encode(profit)


def test_what_came_late_says_so_and_booking_numbers_never_go_back() -> None:
    """An order learned from the exchange is marked late; a fill carries epoch and number of its booking."""
    state = State()
    events: list[ev.Event] = [
        ev.EpochStarted(3, "engine-a"),
        ev.OrderAdopted("1-C1", "a", "client", "ALFA", "buy", "day", None, 10, "O1", "new", ""),
        ev.OrderEntered("3-C2", "b", "client", "ALFA", "buy", "day", None, 10),
        ev.Executed(1, "E1", "1-C1", "O1", "ALFA", "buy", 4, 100, late=True),
        ev.EpochStarted(4, "engine-b"),
        ev.Executed(2, "E2", "1-C1", "O1", "ALFA", "buy", 6, 200, late=False),
    ]
    for number, event in enumerate(events, start=1):
        state.apply(ev.Record(number, number, number, event))
    assert [one["late"] for one in documents.orders(state, 7, everything=True)["orders"]] == [True, False]
    rows = [
        msgspec.msgpack.decode(letter(state, one).payload, type=wire.ExecutionRow)
        for one in state.outbox
        if one.kind == "execution"
    ]
    assert [(one.epoch, one.seq) for one in rows] == [(3, 1), (4, 2)]
    again = load(state.dump())
    assert again.dump() == state.dump()
    assert [one.epoch for one in again.executions] == [3, 4]


def test_all_orders_come_in_pages_too() -> None:
    """Every order stands on exactly one page, in their order, and the cursor stays where the last ended."""
    state = State()
    for number in range(1, 6):
        entered = ev.OrderEntered(f"1-C{number}", f"a{number}", "client", "ALFA", "buy", "day", 1, 10)
        state.apply(ev.Record(number, number, number, entered))
    since, seen = 0, []
    for _ in range(4):
        page = documents.orders(state, 7, everything=True, since=since, limit=2)
        seen.append([one["cl_ord_id"] for one in page["orders"]])
        since = page["next"]
    assert seen == [["1-C1", "1-C2"], ["1-C3", "1-C4"], ["1-C5"], []]
    assert since == 5


def test_settings_name_what_is_wrong(tmp_path: Path) -> None:
    """A missing, broken or misspelt configuration is refused with file and field; none at all is fine."""
    assert load_settings(None)[0] == Settings()
    path = tmp_path / "firm.toml"
    with pytest.raises(ConfigError, match="existing TOML file"):
        load_settings(path)
    for text, what in (
        ("[limits", "Expected"),
        ("[limts]\n", "limts"),
        ("[engine]\ncheckpoint_s = 'x'\n", "checkpoint_s"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=what):
            load_settings(path)
    path.write_text("[limits]\ngross_notional = 5\n")
    assert load_settings(path)[0].limits.gross_notional == 5
