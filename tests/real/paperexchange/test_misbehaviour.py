import time
from typing import Any

import pytest

from paperexchange.testing import Member, Running


def arm(exchange: Running, action: str, on: str | None = "order_accepted", **more: Any) -> dict[str, Any]:
    """Arm a misbehaviour on the member's session."""
    body = {"action": action, "session": "FIRM", "on": {"kind": on} if on else None, **more}
    answer: dict[str, Any] = exchange.post("/control/misbehave", **body)
    return answer


def fired(exchange: Running, armed: dict[str, Any]) -> bool:
    """Tell whether it took place once."""
    listed = exchange.get("/control/misbehaviours")["misbehaviours"]
    return next(entry["fired"] for entry in listed if entry["id"] == armed["id"]) == 1


def orders(exchange: Running) -> list[dict[str, Any]]:
    """Give the member's orders."""
    found: list[dict[str, Any]] = exchange.get("/accounts/FIRM/orders")["orders"]
    return found


def test_delay_keeps_a_report_back_and_the_order_of_all(exchange: Running) -> None:
    """The delayed acknowledgement comes late by the stated time, the next one not before it."""
    member = exchange.member().connect()
    armed = arm(exchange, "delay", parameters={"ms": 150})
    begin = time.monotonic()
    first, second = member.order(), member.order()
    assert member.wait(lambda m: m.get(11) is not None).get(11) == first
    assert time.monotonic() - begin >= 0.15
    member.report(second, "0")
    assert fired(exchange, armed)


def test_hold_lasts_until_release(exchange: Running) -> None:
    """A held report does not come; after `release` it does."""
    member = exchange.member().connect()
    arm(exchange, "hold")
    order = member.order()
    with pytest.raises(TimeoutError):
        member.pump(0.3)
    assert orders(exchange)[0]["status"] == "new"
    arm(exchange, "release", on=None)
    member.report(order, "0")


def test_disarming_releases_what_is_held(exchange: Running) -> None:
    """DELETE lifts a hold in force, again and again without harm."""
    member = exchange.member().connect()
    armed = arm(exchange, "hold")
    order = member.order()
    exchange.until("/control/misbehaviours", lambda a: a["misbehaviours"][0]["fired"] == 1)
    for _ in range(2):
        assert exchange.request("DELETE", f"/control/misbehave/{armed['id']}")[0] == 200
    member.report(order, "0")
    assert exchange.request("DELETE", "/control/misbehave")[0] == 200


def test_dropped_report_is_recovered_by_resend(exchange: Running) -> None:
    """The lost acknowledgement leaves a gap; the member asks and gets it with PossDup and the same ExecID."""
    member = exchange.member().connect()
    arm(exchange, "drop")
    lost, seen = member.order(), member.order()
    again = member.report(lost, "0")
    assert again.poss_dup
    assert again.get(122) is not None
    member.report(seen, "0")
    reports = exchange.get("/oracle/acknowledged?stream=reports&account=FIRM")["events"]
    exec_ids = [r["exec_id"] for r in reports if r["cl_ord_id"] == lost and r["session"] == "FIRM"]
    assert exec_ids == [again.get(17)]


def test_duplicated_report_comes_twice(exchange: Running) -> None:
    """The same bytes twice: the session layer of the member ends over the repeated number."""
    member = exchange.member().connect()
    arm(exchange, "duplicate")
    order = member.order()
    member.report(order, "0")
    assert member.closed()
    assert member.received.count(f"\x0111={order}\x01".encode()) == 2


def test_reordered_reports_are_put_right_by_resend(exchange: Running) -> None:
    """The second acknowledgement overtakes the first; a resend puts them in order."""
    member = exchange.member().connect()
    arm(exchange, "reorder")
    first = member.order()
    second = member.order()
    member.report(first, "0")
    member.report(second, "0")
    places = [member.received.index(f"\x0111={order}\x01".encode()) for order in (first, second)]
    assert places[0] > places[1]


def test_corrupted_report_is_ignored_and_resent(exchange: Running) -> None:
    """A wrong checksum makes the member ignore the message; the next one shows the gap."""
    member = exchange.member().connect()
    arm(exchange, "corrupt")
    damaged, sound = member.order(), member.order()
    assert member.report(damaged, "0").poss_dup
    member.report(sound, "0")


def test_report_can_be_corrupted_with_a_right_checksum(exchange: Running) -> None:
    """With tag and value the message lies but is sound: no session layer can notice."""
    member = exchange.member().connect()
    arm(exchange, "corrupt", parameters={"tag": 38, "value": "777"})
    assert member.report(member.order(quantity=5), "0").get(38) == "777"
    assert orders(exchange)[0]["quantity"] == 5


def reconnected(member: Member) -> Member:
    """Wait for the cut, then log on again."""
    assert member.closed()
    return member.connect_when_possible()


def test_disconnect_before_booking_books_nothing_and_asks_again(exchange: Running) -> None:
    """Cut before booking, the order is unknown; at the next logon the exchange asks and books it once."""
    member = exchange.member().connect()
    arm(exchange, "disconnect_before_booking", on=None)
    order = member.order()
    assert member.closed()
    assert orders(exchange) == []
    member.connect_when_possible()
    member.report(order, "0")
    assert len(orders(exchange)) == 1


@pytest.mark.parametrize(
    "action", ["disconnect_after_booking", "disconnect_before_send", "disconnect_mid_message"]
)
def test_disconnect_after_booking_keeps_the_order_and_its_report(exchange: Running, action: str) -> None:
    """The order is booked although its owner was cut off; the report comes at the next logon."""
    member = exchange.member().connect()
    armed = arm(exchange, action, on=None)
    order = member.order()
    assert member.closed()
    assert orders(exchange)[0]["cl_ord_id"] == order
    assert b"\x01150=0\x01" not in member.received or action == "disconnect_mid_message"
    assert fired(exchange, armed)
    member.connect_when_possible()
    assert member.report(order, "0").poss_dup
    assert len(orders(exchange)) == 1


def test_disconnect_in_mid_message_sends_half_of_it(exchange: Running) -> None:
    """The member is left with the beginning of a message and no end."""
    member = exchange.member().connect()
    arm(exchange, "disconnect_mid_message")
    before = len(member.received)
    member.order()
    assert member.closed()
    half = member.received[before:]
    assert half.startswith(b"8=FIX.4.4")
    assert b"\x0110=" not in half


def test_disconnect_after_send_delivers_the_report_first(exchange: Running) -> None:
    """The acknowledgement arrives whole, then the connection is closed."""
    member = exchange.member().connect()
    arm(exchange, "disconnect_after_send")
    order = member.order()
    assert member.closed()
    assert [m.get(11) for m in member.inbox] == [order]


def test_disconnect_now_says_when_and_refuses_logons(exchange: Running) -> None:
    """The answer has the instant of the cut and how sure it is; logons are refused for a while, then work."""
    member = exchange.member().connect()
    asked_ns = time.monotonic_ns()
    answer = arm(exchange, "disconnect", on=None, parameters={"refuse_ms": 400})
    cut_ns = answer["mono_ns"]
    assert member.closed()
    assert asked_ns <= cut_ns - answer["uncertainty_ns"] < cut_ns <= time.monotonic_ns()
    member.connect_when_possible()
    assert time.monotonic_ns() - cut_ns >= 400_000_000


def test_refused_logon_closes_the_connection(exchange: Running) -> None:
    """While logons are refused the exchange hangs up; afterwards it lets the member in."""
    arm(exchange, "refuse_logon", on=None, parameters={"ms": 300})
    with pytest.raises(ConnectionError):
        exchange.member().connect()
    exchange.member().connect_when_possible()


def test_half_open_leaves_a_silent_socket_and_lets_a_new_one_in(exchange: Running) -> None:
    """The old socket stays open and silent; the session can log on anew; at the end the old one is closed."""
    member = exchange.member().connect()
    arm(exchange, "half_open", on=None, parameters={"ms": 600})
    member.order()
    with pytest.raises(TimeoutError):
        member.pump(0.2)
    silent, member.sock = member.sock, None
    member.disconnect()
    member.connect()
    member.report(member.order(), "0")
    assert silent is not None
    silent.settimeout(10)
    assert silent.recv(100) == b""
    silent.close()


def test_frozen_session_goes_on_as_if_nothing_had_been(exchange: Running) -> None:
    """Nothing is read or sent for the stated time; then everything is answered."""
    member = exchange.member().connect()
    arm(exchange, "freeze", on=None, parameters={"ms": 300})
    begin = time.monotonic()
    order = member.order()
    member.report(order, "0")
    assert time.monotonic() - begin >= 0.29


def test_slow_reader_takes_its_time(exchange: Running) -> None:
    """At 2,000 bytes a second a few orders take noticeably long, and all of them arrive."""
    member = exchange.member().connect()
    arm(exchange, "slow_read", on=None, parameters={"bytes_per_s": 2000, "ms": 60_000})
    begin = time.monotonic()
    sent = [member.order() for _ in range(5)]
    for order in sent:
        member.report(order, "0")
    assert time.monotonic() - begin >= 0.2


def took_s(exchange: Running, path: str, *, at: str) -> float:
    """Measure how long an answer takes."""
    begin = time.monotonic()
    assert exchange.request("GET", path, at=at)[0] == 200
    return time.monotonic() - begin


def test_slow_answers_are_those_about_the_account_and_end(exchange: Running) -> None:
    """The members' listener takes questions about the account up later, nothing else does, until lifted."""
    mine, all_ = "/accounts/FIRM/positions", "/market_data/snapshot"
    assert took_s(exchange, mine, at="member") < 0.3
    arm(exchange, "slow_answers", on=None, parameters={"delay_ms": 400, "ms": 60_000})
    assert took_s(exchange, mine, at="member") >= 0.4
    assert took_s(exchange, all_, at="member") < 0.3
    assert took_s(exchange, mine, at="http") < 0.3, "the operator sees as ever"
    assert exchange.request("DELETE", "/control/misbehave")[0] == 200
    assert took_s(exchange, mine, at="member") < 0.3
    arm(exchange, "slow_answers", on=None, parameters={"delay_ms": 400, "ms": 50})
    time.sleep(0.1)
    assert took_s(exchange, mine, at="member") < 0.3, "its time is over"


def test_lost_messages_are_never_resent_and_the_back_office_knows_them(exchange: Running) -> None:
    """Filled while the member is away, the last messages lost: the gap is filled without them."""
    exchange.post("/control/fills", account="FIRM", min_quantity=300, slices=[100, 100, 100], interval_ms=150)
    filled = {"kind": "fill", "cum_quantity": 300}
    lost = arm(exchange, "lose_messages", on=None, parameters={"n": 0, "ahead": 0})
    assert fired(exchange, lost), "losing nothing changes nothing"
    member = exchange.member().connect()
    body = {"action": "lose_messages", "session": "FIRM", "on": filled, "parameters": {"n": 10}}
    armed = exchange.post("/control/misbehave", **body)
    order = member.order(quantity=300)
    member.report(order, "0")
    expected = member.session.next_in
    member.disconnect()
    exchange.until("/accounts/FIRM/executions", lambda page: page["last"] == 3)
    exchange.until("/control/misbehaviours", lambda a: a["misbehaviours"][0]["fired"] == 1)
    assert fired(exchange, armed)
    told = len(member.inbox)
    member.connect()
    member.report(member.order(), "0")
    assert member.session.next_in > expected + 4000
    assert [one for one in member.inbox[told:] if one.get(11) == order] == []
    page = exchange.request("GET", "/accounts/FIRM/executions", at="member")[1]
    assert [one["cl_ord_id"] for one in page["executions"]] == [order] * 3


@pytest.mark.parametrize(("action", "tag"), [("skew_sending_time", 52), ("skew_transact_time", 60)])
def test_skewed_times_are_off_by_the_stated_amount(exchange: Running, action: str, tag: int) -> None:
    """52 or 60 is moved, here by half a minute into the past; the message is sound."""
    from fixsession import parse_utc  # noqa: PLC0415

    member = exchange.member().connect()
    arm(exchange, action, parameters={"ms": -30_000})
    report = member.report(member.order(), "0")
    moved = parse_utc(report.require(tag))
    assert moved is not None
    assert 29e9 < time.time_ns() - moved < 45e9


def test_ledger_tells_of_every_misbehaviour(exchange: Running) -> None:
    """Arming and firing are entries, and the attempt to deliver says that the message was dropped."""
    member = exchange.member().connect()
    arm(exchange, "drop")
    member.order()
    member.report(member.order(), "0")
    exchange.stop()
    text = exchange.ledger.read_text()
    assert '"kind":"misbehaviour_armed"' in text
    assert '"kind":"misbehaviour","id":"M1","action":"drop"' in text
    assert '"outcome":"dropped"' in text
