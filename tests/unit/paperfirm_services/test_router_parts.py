from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixsession.message import Message
from paperfirm.router import fix
from paperfirm.router.fence import Fence
from paperfirm.router.sent import RememberingStore
from paperfirm.wire import Cancel, Send, StatusRequest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100.05", 1_000_500),
        ("0.0001", 1),
        ("7", 70_000),
        ("-3.5", -35_000),
        ("1.500000", 15_000),
        (".25", 2_500),
    ],
)
def test_prices_are_exact(text: str, value: int) -> None:
    """A FIX price is the same number of ticks both ways, without floating point."""
    assert fix.ticks(text) == value
    assert fix.ticks(fix.decimal(value)) == value


@pytest.mark.parametrize("text", ["1.00005", "abc", "1e3", "1.2.3", "NaN", "--1.x"])
def test_a_price_that_cannot_be_held_exactly_is_refused(text: str) -> None:
    """Nothing is rounded or guessed."""
    with pytest.raises(fix.TranslationError):
        fix.ticks(text)


def test_execution_report_is_translated_wholly() -> None:
    """Every field that the engine books by arrives."""
    message = Message.of(
        "8",
        {
            37: "O1", 11: "1-C1", 17: "E1", 150: "F", 39: "1", 55: "ALFA", 54: "2", 38: "100", 44: "99.99",
            32: "40", 31: "100.01", 14: "40", 151: "60", 6: "100.01", 58: "hello", 41: "1-C0", 19: "E0",
        },
    )  # fmt: skip
    report = fix.report(message)
    assert report is not None
    assert (report.kind, report.exec_type, report.ord_status, report.cl_ord_id) == (
        "execution",
        "F",
        "1",
        "1-C1",
    )
    assert (report.order_id, report.exec_id, report.exec_ref_id, report.side) == ("O1", "E1", "E0", "sell")
    assert (report.last_quantity, report.last_price, report.cum_quantity) == (40, 1_000_100, 40)
    assert (report.leaves_quantity, report.order_quantity, report.price) == (60, 100, 999_900)


def test_rejections_keep_their_order_and_reason() -> None:
    """A business reject and a cancel reject name the order they are about."""
    business = fix.report(Message.of("j", {45: "7", 372: "D", 379: "1-C9", 380: "3", 58: "no such symbol"}))
    assert business is not None
    assert (business.kind, business.cl_ord_id, business.text) == ("reject", "1-C9", "no such symbol")
    cancel = fix.report(Message.of("9", {37: "O", 11: "1-X1", 41: "1-C1", 39: "2", 434: "1", 102: "0"}))
    assert cancel is not None
    assert (cancel.kind, cancel.cl_ord_id, cancel.orig_cl_ord_id) == ("cancel_reject", "1-X1", "1-C1")


def test_orders_become_fix() -> None:
    """Limit, market, cancel and status requests carry the tags of FIX 4.4."""
    limit = fix.new_order(Send("1-C1", "ALFA", "buy", 5, 1_000_500, "ioc"), "FIRM", 0)
    assert [limit.get(tag) for tag in (35, 11, 1, 55, 54, 38, 40, 44, 59)] == [
        "D", "1-C1", "FIRM", "ALFA", "1", "5", "2", "100.05", "3",
    ]  # fmt: skip
    market = fix.new_order(Send("1-C2", "ALFA", "sell", 5, None, "day"), "FIRM", 0)
    assert (market.get(40), market.get(44), market.get(59)) == ("1", None, "0")
    cancel = fix.cancel_request(Cancel("1-X1", "1-C1", "ALFA", "buy", 5), "FIRM", 0)
    assert (cancel.msg_type, cancel.get(41), cancel.get(11)) == ("F", "1-C1", "1-X1")
    assert fix.status_request(StatusRequest("1-C1", "ALFA", "buy"), "FIRM").msg_type == "H"


def test_a_lower_epoch_is_refused_for_good(tmp_path: Path) -> None:
    """The fence survives the router, and an epoch belongs to one engine."""
    fence = Fence(tmp_path / "epoch.json")
    fence.admit("engine-a", 3)
    again = Fence(tmp_path / "epoch.json")
    assert again.refusal("engine-b", 2) is not None
    assert again.refusal("engine-b", 3) is not None
    assert again.refusal("engine-a", 3) is None
    assert again.refusal("engine-b", 4) is None


def test_ids_survive_a_reset_of_the_session(tmp_path: Path) -> None:
    """An order that once reached the FIX store stays known, after a reset and after a crash."""
    store = RememberingStore(tmp_path / "session.log")
    store.save_out(1, b"8=FIX.4.4\x0135=D\x0111=1-C1\x0155=ALFA\x01", 1)
    assert store.known(["1-C1", "1-C2"]) == ["1-C1"]
    store.save_out(2, b"8=FIX.4.4\x0135=D\x0111=1-C2\x0155=ALFA\x01", 1)
    assert store.known(["1-C2", "1-C3"]) == ["1-C2"]
    store.reset(5)
    store.close()
    again = RememberingStore(tmp_path / "session.log")
    assert again.next_out == 1
    assert again.known(["1-C2", "1-C3", "1-C1"]) == ["1-C2", "1-C1"]
    again.close()


def test_ids_survive_a_compaction_of_the_store(tmp_path: Path) -> None:
    """An order whose message was dropped as too old is still known, in the next process too."""
    store = RememberingStore(tmp_path / "session.log")
    store.save_out(1, b"8=FIX.4.4\x0135=D\x0111=1-C1\x0155=ALFA\x01", 1)
    store.compact(keep_since_wall_ns=5)
    assert list(store.load_out(1, 9)) == []
    store.close()
    again = RememberingStore(tmp_path / "session.log")
    assert again.known(["1-C1", "1-C2"]) == ["1-C1"]
    again.close()
