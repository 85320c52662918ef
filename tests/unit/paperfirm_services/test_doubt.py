"""What is believed of the exchange's messages, and what is not (R42)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from fixsession.clock import format_utc
from fixsession.message import Message
from paperfirm.config import Account, Endpoint, Exchange
from paperfirm.feed import doubt as feed_doubt
from paperfirm.feed.messages import BookSnapshot, Levels, Update
from paperfirm.feed.service import FeedService
from paperfirm.quarantine import Quarantine
from paperfirm.router import doubt, fix

if TYPE_CHECKING:
    from pathlib import Path

NOW_NS = 1_700_000_000 * 1_000_000_000
MONO_NS = 5_000 * 1_000_000_000
SYMBOLS = frozenset({"ALFA"})
FILL = {37: "O1", 11: "1-C1", 17: "E1", 150: "F", 39: "1", 55: "ALFA", 54: "1", 38: 9, 44: "5"} | {
    32: 1,
    31: "5",
    14: 1,
    151: 8,
    60: format_utc(NOW_NS),
}


def test_a_true_fill_is_not_doubted() -> None:
    """An ordinary fill, one without TransactTime, and an order's acceptance are believed."""
    message = Message.of("8", FILL)
    report = fix.report(message)
    assert report is not None
    assert doubt.of_numbers(report, SYMBOLS) is None
    assert doubt.of_time(message, NOW_NS) is None
    assert doubt.of_time(Message.of("8", {17: "E1"}), NOW_NS) is None
    accepted = fix.report(Message.of("8", FILL | {150: "0", 39: "0", 32: 0, 31: None, 14: 0, 151: 9}))
    assert accepted is not None
    assert doubt.of_numbers(accepted, SYMBOLS) is None


@pytest.mark.parametrize(
    "text", ["19700101-00:00:00", "20991231-23:59:59.000", "-5", "NaN", "99999999999999", "0"]
)
def test_a_nonsense_time_is_named(text: str) -> None:
    """1970, 2099, negative, no number, no time at all."""
    assert "TransactTime" in (doubt.of_time(Message.of("8", FILL | {60: text}), NOW_NS) or "")


@pytest.mark.parametrize(
    "wrong",
    [
        {32: 10**12, 14: 10**12},
        {31: "99999999999999"},
        {31: "-5"},
        {32: 5},
        {151: 7},
        {55: "NOSUCH"},
        {17: None},
        {31: None},
        {38: 4},
    ],
)
def test_a_fill_with_nonsense_numbers_is_not_believed(wrong: dict[int, Any]) -> None:
    """Impossible quantities and prices, an unknown symbol, sums that do not add up."""
    try:
        report = fix.report(Message.of("8", FILL | wrong))
    except fix.TranslationError:
        return
    assert report is not None
    assert doubt.of_numbers(report, SYMBOLS) is not None


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, False),
        ({"quantity": 0}, False),
        ({"mono_ns": 0}, False),
        ({"mono_ns": MONO_NS - 10**9}, False),
        ({"price": -10_000}, True),
        ({"price": 0}, True),
        ({"quantity": 10**15}, True),
        ({"quantity": -1}, True),
        ({"mono_ns": 1 << 62}, True),
        ({"mono_ns": -1}, True),
        ({"symbol": ""}, True),
        ({"seq": -7}, True),
    ],
)
def test_market_data_that_cannot_be_true(change: dict[str, Any], *, wrong: bool) -> None:
    """Prices, quantities, stamps and symbols of another world are named; ordinary levels are not."""
    update = Update(4, "ALFA", "buy", 1_000_000, 6, mono_ns=MONO_NS)
    found = feed_doubt.of_update(msgspec.structs.replace(update, **change), SYMBOLS, MONO_NS)
    assert (found is not None) is wrong


def test_a_stamp_from_before_the_clock_began_is_not_believed() -> None:
    """Also within the first hour of a machine, when an hour ago is a negative number."""
    now_ns = 300 * 10**9
    update = Update(4, "ALFA", "buy", 1_000_000, 6, mono_ns=-1)
    assert "-1" in (feed_doubt.of_update(update, SYMBOLS, now_ns) or "")
    for stamp in (0, 1, now_ns):
        assert feed_doubt.of_update(msgspec.structs.replace(update, mono_ns=stamp), SYMBOLS, now_ns) is None


def test_a_snapshot_with_nonsense_is_not_taken() -> None:
    """One impossible level spoils it."""
    good = BookSnapshot(9, {"ALFA": Levels([(1_000_000, 5)], [])})
    bad = BookSnapshot(9, {"ALFA": Levels([(1_000_000, 5)], [(-1, 5)])})
    assert feed_doubt.of_snapshot(good) is None
    assert "ALFA" in (feed_doubt.of_snapshot(bad) or "")


def test_members_ask_at_their_own_place() -> None:
    """The firm asks where members are told; an exchange that has no such place is asked at the one it has."""
    where, accounts = Endpoint("127.0.0.1", 1), {"FIRM": Account("FIRM")}
    plain = Exchange("http://all", where, where, ["ALFA"], "X", accounts)
    assert plain.office == "http://all"
    assert msgspec.structs.replace(plain, member="http://members").office == "http://members"


def test_nonsense_market_data_is_kept_for_review_and_leaves_a_gap(tmp_path: Path) -> None:
    """The level is not applied, the message is kept word for word, and the books are not believed."""
    told: list[tuple[str, dict[str, Any]]] = []

    def emit(event: str, **detail: Any) -> int:
        told.append((event, detail))
        return 1

    where = Endpoint("127.0.0.1", 1)
    exchange = Exchange("http://127.0.0.1:1", where, where, ["ALFA"], "X", {"FIRM": Account("FIRM")})
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", emit)
    service = FeedService(exchange, emit, lambda: MONO_NS, quarantine)
    service.state.load(BookSnapshot(3, {"ALFA": Levels([(1_000_000, 5)], [])}, MONO_NS), MONO_NS)
    level = {"seq": 4, "symbol": "ALFA", "side": "buy", "price": -10_000, "quantity": 6, "mono_ns": MONO_NS}
    following = level | {"seq": 5, "price": 1_010_000}
    service.datagram_received(msgspec.json.encode([level, following]), None)
    service.datagram_received(b'[{"seq": NaN}]', None)
    assert [event for event, _ in told] == ["quarantined", "quarantined"]
    kept = [cast("dict[str, Any]", msgspec.json.decode(line)) for line in _lines(tmp_path)]
    assert msgspec.json.decode(kept[0]["message"])["price"] == -10_000
    assert "NaN" in kept[1]["message"]
    assert service.state.books["ALFA"].best().bid == 1_000_000
    assert service.state.next_seq == 4
    assert not service.state.synchronised


def _lines(folder: Path) -> list[bytes]:
    return (folder / "quarantine.jsonl").read_bytes().splitlines()
