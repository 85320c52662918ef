import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from paperexchange.testing import Running

POSTS = [
    "phase",
    "fills",
    "misbehave",
    "session",
    "gateway",
    "market_data",
    "restate",
    "bust",
    "correct",
    "preload",
]


def events(exchange: Running, query: str) -> Iterator[dict[str, Any]]:
    """Yield the event stream, heartbeats included."""
    with urllib.request.urlopen(f"{exchange.endpoints['http']}/events?{query}", timeout=10) as stream:
        for line in stream:
            yield json.loads(line)


def test_positions_orders_and_executions_tell_the_same(exchange: Running) -> None:
    """Two accounts' worth of trading: positions and cash follow from the executions, orders from both."""
    member = exchange.member().connect()
    resting = member.order(quantity=100, price="100.05")
    member.report(resting, "0")
    taking = member.order(side="2", quantity=30, price="100.00")
    fill = member.report(taking, "F")
    assert (fill.get(31), fill.get(32), fill.get(14), fill.get(151)) == ("100.05", "30", "30", "0")
    page = exchange.get("/accounts/FIRM/executions?since=0")
    assert [(e["side"], e["quantity"], e["price"], e["exec_seq"]) for e in page["executions"]] == [
        ("buy", 30, 1_000_500, 1),
        ("sell", 30, 1_000_500, 2),
    ]
    assert (page["next"], page["last"]) == (2, 2)
    assert exchange.get("/accounts/FIRM/positions")["positions"] == {"ALFA": {"quantity": 0, "cash": 0}}
    everything = exchange.get("/accounts/FIRM/orders")["orders"]
    assert [(o["cl_ord_id"], o["status"], o["average_price"]) for o in everything] == [
        (resting, "partially_filled", 1_000_500),
        (taking, "filled", 1_000_500),
    ]
    still = exchange.get("/accounts/FIRM/orders?open=1")["orders"]
    assert [(o["cl_ord_id"], o["leaves_quantity"]) for o in still] == [(resting, 70)]


def test_members_have_a_listener_of_their_own(exchange: Running) -> None:
    """It tells them what the operator's tells of them, and has neither the oracle nor any control."""
    for path in ("/accounts/FIRM/positions", "/accounts/FIRM/orders", "/accounts/FIRM/executions", "/phase"):
        assert exchange.request("GET", path, at="member") == exchange.request("GET", path)
    assert exchange.request("GET", "/market_data/snapshot", at="member")[1]["books"]
    closed = ("/health", "/oracle/summary", "/events", "/control/misbehaviours", "/control/market_data")
    assert {exchange.request("GET", path, at="member")[0] for path in closed} == {404}
    assert exchange.request("POST", "/control/phase", {"phase": "close"}, at="member")[0] == 404
    assert exchange.get("/phase")["phase"] == "continuous"


def test_hundred_thousand_executions_are_paged_in_a_second(start: Callable[..., Running]) -> None:
    """Preloaded fills are served in pages of 20,000 without gaps, all of them within a second."""
    exchange = start("--participants", "0", "--preload-executions", "100000")
    exchange.get("/health")
    begin, since, seen = time.perf_counter(), 0, []
    while True:
        page = exchange.get(f"/accounts/FIRM/executions?since={since}&limit=20000")
        if not page["executions"]:
            break
        seen.append((page["executions"][0]["exec_seq"], page["executions"][-1]["exec_seq"]))
        since = page["next"]
    elapsed = time.perf_counter() - begin
    assert seen == [(first + 1, first + 20_000) for first in range(0, 100_000, 20_000)]
    assert page["last"] == 100_000
    assert elapsed < 3  # one second on an idle machine; bench/exchange.py measures it


def test_preload_over_http_makes_real_fills(exchange: Running) -> None:
    """Preloaded fills are in positions and summary like any other; no session is told of them."""
    assert exchange.post("/control/preload", account="FIRM", executions=25)["last"] == 25
    summary = exchange.get("/oracle/summary?account=FIRM")
    assert (summary["fills"], summary["sessions"]["FIRM"]["next_out"]) == (25, 1)
    assert sum(p["quantity"] for p in exchange.get("/accounts/FIRM/positions")["positions"].values()) != 0


def test_oracle_pages_accepted_orders_in_their_present_state(exchange: Running) -> None:
    """Accepted orders come in order of acceptance, page by page, with what became of them."""
    member = exchange.member().connect()
    sent = [member.order() for _ in range(5)]
    member.report(sent[-1], "0")
    member.report(member.cancel(sent[0]), "4")
    pages, since, end = [], 0, False
    while not end:
        page = exchange.get(f"/oracle/acknowledged?stream=orders&account=FIRM&since={since}&limit=2")
        pages.append([o["cl_ord_id"] for o in page["events"]])
        since, end = page["next"], page["end"]
    assert pages == [sent[:2], sent[2:4], sent[4:]]
    first = exchange.get("/oracle/acknowledged?stream=orders&account=FIRM")["events"][0]
    assert (first["status"], first["leaves_quantity"]) == ("canceled", 0)
    assert first["conn"] == 1


def test_oracle_reports_carry_their_delivery_attempts(exchange: Running) -> None:
    """A report that was written has an attempt on its connection; one for an absent member has none."""
    member = exchange.member().connect()
    there = member.order()
    member.report(there, "0")
    member.disconnect()
    exchange.until("/oracle/summary", lambda s: not s["sessions"]["FIRM"]["logged_on"])
    exchange.post("/control/restate", order_id="O1", quantity=50)
    found = exchange.get("/oracle/acknowledged?stream=reports&account=FIRM")["events"]
    entry = [(r["exec_type"], [a["outcome"] for a in r["attempts"]]) for r in found if r["session"] == "FIRM"]
    assert entry == [("0", ["written"]), ("D", [])]


def test_executions_stream_of_the_oracle_is_that_of_the_member(exchange: Running) -> None:
    """Both interfaces give the same fills."""
    exchange.post("/control/preload", account="FIRM", executions=7)
    oracle = exchange.get("/oracle/acknowledged?stream=executions&account=FIRM&since=2&limit=3")
    assert oracle["events"] == exchange.get("/accounts/FIRM/executions?since=2&limit=3")["executions"]
    assert (oracle["next"], oracle["end"]) == (5, False)


def test_summary_counts_and_shows_sessions(exchange: Running) -> None:
    """Accepted, rejected and filled are counted; the session shows its connection and since when."""
    before = time.monotonic_ns()
    member = exchange.member().connect()
    member.report(member.order(), "0")
    member.report(member.order(quantity=0), "8")
    summary = exchange.get("/oracle/summary?account=FIRM")
    assert (summary["orders_accepted"], summary["orders_rejected"], summary["fills"]) == (1, 1, 0)
    session = summary["sessions"]["FIRM"]
    assert (session["logged_on"], session["conn"]) == (True, 1)
    assert before < session["connected_mono_ns"] < summary["last_order_mono_ns"] < time.monotonic_ns()


def test_event_stream_gives_past_and_present_without_a_seam(exchange: Running) -> None:
    """From 0 on every order is there once, in order, whether it happened before or after subscribing."""
    member = exchange.member().connect()
    early = [member.order() for _ in range(20)]
    member.report(early[-1], "0")
    with closing(events(exchange, "since=0&kinds=order_accepted&account=FIRM")) as stream:
        late: list[str] = []
        seen: list[str] = []
        for event in stream:
            if event["kind"] == "order_accepted":
                seen.append(event["cl_ord_id"])
            if not late:
                late = [member.order() for _ in range(20)]
            if len(seen) == 40:
                break
    assert seen == early + late


def test_events_from_now_have_heartbeats_and_kernel_stamps(exchange: Running) -> None:
    """Idle streams beat; an accepted order has the kernel's receive stamp, before its acceptance."""
    member = exchange.member().connect()
    with closing(events(exchange, "since=now&kinds=order_received,order_accepted,report_sent")) as stream:
        assert next(stream)["kind"] == "heartbeat"
        assert next(stream)["kind"] == "heartbeat"
        sent_ns = time.monotonic_ns()
        order = member.order()
        received, accepted, report = [e for e in _take(stream, 3) if e["kind"] != "heartbeat"]
    assert (received["kind"], accepted["kind"], report["kind"]) == (
        "order_received",
        "order_accepted",
        "report_sent",
    )
    assert accepted["cl_ord_id"] == order
    assert accepted["received_stamp"] == "kernel"
    assert sent_ns - 1_000_000 < accepted["received_mono_ns"] <= accepted["mono_ns"]
    assert {"symbol", "side", "quantity", "price", "conn"} <= set(accepted)


def _take(stream: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    taken: list[dict[str, Any]] = []
    for event in stream:
        if event["kind"] != "heartbeat":
            taken.append(event)
        if len(taken) == count:
            return taken
    raise AssertionError("the stream ended")


def test_scripted_fills_go_on_while_the_owner_is_away(exchange: Running) -> None:
    """The order is filled in just the slices, although its owner hung up after the first."""
    exchange.post("/control/fills", account="FIRM", min_quantity=1000, slices=[100] * 5, interval_ms=20)
    member = exchange.member().connect()
    order = member.order(quantity=1000, price="100.00")
    member.report(order, "F")
    member.disconnect()
    exchange.until("/oracle/summary", lambda s: s["fills"] == 5)
    found = exchange.get("/accounts/FIRM/orders?open=1")["orders"][0]
    assert (found["cum_quantity"], found["leaves_quantity"]) == (500, 500)
    member.connect()
    assert [member.report(order, "F").get(14) for _ in range(4)] == ["200", "300", "400", "500"]


def test_fill_can_come_before_the_acknowledgement(exchange: Running) -> None:
    """With `before_ack` the member hears of a fill first, of the order's acceptance second (FIX 18)."""
    exchange.post("/control/fills", account="FIRM", slices=[100], when="before_ack")
    member = exchange.member().connect()
    order = member.order(quantity=100)
    assert [member.wait(lambda m: m.get(11) == order).get(150) for _ in range(2)] == ["F", "0"]


def test_phase_can_be_set_and_is_told(exchange: Running) -> None:
    """Closing the market rejects orders; the phase is shown and streamed."""
    assert exchange.get("/phase")["phase"] == "continuous"
    member = exchange.member().connect()
    with closing(events(exchange, "since=now&kinds=phase")) as stream:
        next(stream)
        assert exchange.post("/control/phase", phase="close")["phase"] == "close"
        assert _take(stream, 1)[0]["phase"] == "close"
    assert member.report(member.order(), "8").get(103) == "2"


@pytest.mark.parametrize(
    ("action", "n", "next_out"), [("jump_ahead", 4000, 4003), ("roll_back", 1, 2), ("wipe", 1, 1)]
)
def test_session_store_controls(exchange: Running, action: str, n: int, next_out: int) -> None:
    """Each control cuts the session and moves its numbers (FIX 13)."""
    member = exchange.member().connect()
    member.report(member.order(), "0")
    answer = exchange.post("/control/session", session="FIRM", action=action, n=n)
    assert answer["next_out"] == next_out
    assert member.closed()


def test_jump_ahead_is_healed_by_gap_fill(exchange: Running) -> None:
    """After a jump by 4000 the member asks for the gap, gets it filled, and goes on."""
    member = exchange.member().connect()
    exchange.post("/control/session", session="FIRM", action="jump_ahead", n=4000)
    assert member.closed()
    member.connect()
    member.report(member.order(), "0")
    assert member.session.next_in > 4000


def test_backup_gateway_takes_orders_only_when_promoted(exchange: Running) -> None:
    """The backup rejects orders until promoted, then the primary does (FIX 14); what was missed has 97=Y."""
    backup = exchange.member("fix_backup").connect()
    backup.order(t11="B1")
    assert backup.wait(lambda m: m.msg_type == "j").get(379) == "B1"
    primary = exchange.member().connect()
    primary.report(primary.order(t11="P1"), "0")
    primary.disconnect()
    backup.log_out()
    exchange.until("/oracle/summary", lambda s: not any(v["logged_on"] for v in s["sessions"].values()))
    exchange.post("/control/restate", order_id="O1", quantity=60)
    assert exchange.post("/control/gateway", gateway="backup", promoted=True)["promoted"]
    backup.connect()
    again = backup.report("P1", "D")
    assert again.poss_resend
    backup.report(backup.order(t11="B2"), "0")
    primary.connect()
    primary.order(t11="P2")
    assert primary.wait(lambda m: m.msg_type == "j").get(379) == "P2"


def test_bust_and_correct_are_reported_once(exchange: Running) -> None:
    """150=G names the fill, the next G or H the correction (19); what is busted cannot be busted again."""
    member = exchange.member().connect()
    member.order(quantity=10, price="100.00")
    order = member.order(side="2", quantity=10, price="100.00")
    fill = member.report(order, "F")
    body = {"account": "FIRM", "exec_id": fill.require(17)}
    exchange.post("/control/correct", price=1_000_100, **body)
    corrected = member.report(order, "G")
    assert (corrected.get(19), corrected.get(31), corrected.get(6)) == (fill.get(17), "100.01", "100.01")
    exchange.post("/control/correct", price=1_000_300, **body)
    again = member.report(order, "G")
    assert (again.get(19), again.get(6)) == (corrected.get(17), "100.03")
    exchange.post("/control/bust", **body)
    assert member.report(order, "H").get(19) == again.get(17)
    bought = {"ALFA": {"quantity": 10, "cash": -10_000_000}}  # the other side of the trade stands
    assert exchange.get("/accounts/FIRM/positions")["positions"] == bought
    assert exchange.request("POST", "/control/bust", body)[0] == 404


def test_drop_copy_gets_every_report(exchange: Running) -> None:
    """The drop-copy session has its own numbers and the same ExecIDs; it takes no orders (FIX 24)."""
    member = exchange.member().connect()
    copy = exchange.member("drop_copy", comp_id="FIRMDC").connect()
    report = member.report(member.order(t11="D1"), "0")
    assert copy.report("D1", "0").get(17) == report.get(17)
    copy.order(t11="D2")
    assert copy.wait(lambda m: m.msg_type == "j").get(379) == "D2"


def test_snapshot_has_the_book(exchange: Running) -> None:
    """Levels best first, for one symbol or all."""
    member = exchange.member().connect()
    for price in ("99.00", "99.50", "99.50"):
        member.report(member.order(price=price), "0")
    snapshot = exchange.get("/market_data/snapshot?symbol=ALFA")
    assert snapshot["books"] == {"ALFA": {"bids": [[995_000, 200], [990_000, 100]], "asks": []}}
    assert snapshot["seq"] == 3
    assert len(exchange.get("/market_data/snapshot")["books"]) == 8


@pytest.mark.parametrize(
    "path",
    [
        "/accounts/NOPE/positions",
        "/accounts/FIRM/executions?since=-1",
        "/accounts/FIRM/executions?limit=0",
        "/market_data/snapshot?symbol=NOPE",
        "/oracle/acknowledged?stream=nonsense",
        "/oracle/summary?account=NOPE",
        "/events?kinds=nonsense",
        "/events?since=soon",
        "/nothing/here",
    ],
)
def test_bad_questions_get_a_reason_and_a_hint(shared: Running, path: str) -> None:
    """A wrong GET is answered with 4xx, what is wrong, and what to do."""
    status, answer = shared.request("GET", path)
    assert 400 <= status < 500
    assert answer["error"]
    assert answer["hint"]


@pytest.mark.parametrize("name", POSTS)
def test_bad_control_bodies_are_refused(shared: Running, name: str) -> None:
    """A control request without its fields, or with unknown ones, changes nothing and says what is wrong."""
    for body in ({"nonsense": 1}, [1, 2], {}):
        status, answer = shared.request("POST", f"/control/{name}", body)
        assert status == 400
        assert answer["error"]


def test_unknown_session_and_fill_and_order_are_named(shared: Running) -> None:
    """What does not exist is refused by name."""
    for name, body in {
        "session": {"session": "X", "action": "wipe"},
        "misbehave": {"session": "X", "action": "drop"},
        "fills": {"account": "FIRM", "slices": []},
        "restate": {"order_id": "O9", "quantity": 1},
        "bust": {"account": "FIRM", "exec_id": "X9"},
        "market_data": {"action": "explode"},
        "preload": {"account": "FIRM", "executions": 0},
    }.items():
        status, answer = shared.request("POST", f"/control/{name}", body)
        assert status in (400, 404)
        assert answer["error"]


def test_health_shows_phase_and_rate(exchange: Running) -> None:
    """The health answer counts orders a second."""
    member = exchange.member().connect()
    for _ in range(20):
        member.order()
    health = exchange.until("/health", lambda h: h["orders_per_s"] > 0)
    assert (health["status"], health["phase"]) == ("ok", "continuous")
