"""The router against an exchange's FIX session in memory, with a clock that the test moves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fixsession.clock import Now
from fixsession.config import Role, SessionConfig
from fixsession.effects import Deliver, Disconnect, Transmit
from fixsession.message import Message
from fixsession.session import Session
from fixsession.store import MemoryStore
from paperfirm.quarantine import Quarantine
from paperfirm.router.fence import Fence
from paperfirm.router.gateways import BACKUP, PRIMARY, Gateways
from paperfirm.router.inbound import InboundLog
from paperfirm.router.sent import RememberingStore
from paperfirm.router.service import Router
from paperfirm.wire import (
    Bind,
    BindDone,
    BindRefused,
    Inbound,
    Known,
    KnownAnswer,
    Send,
    SessionDown,
    SessionUp,
    Unsent,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECOND = 1_000_000_000


class Engine:
    """An engine's link that remembers what it was sent."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.open = True

    def send(self, frame: Any) -> None:
        """Remember a frame."""
        self.frames.append(frame)

    def close(self) -> None:
        """Remember that it was closed."""
        self.open = False

    abort = close

    def of(self, kind: type) -> list[Any]:
        """Return the frames of one kind."""
        return [frame for frame in self.frames if isinstance(frame, kind)]


class World:
    """A router, an exchange with its own FIX store, and a wire between them that can be cut."""

    def __init__(self, folder: Path, *, fails_over: bool = False) -> None:
        self.folder = folder
        self.mono_ns = 10 * SECOND
        self.later: list[Callable[[], None]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.exchange_stores = {PRIMARY: MemoryStore(), BACKUP: MemoryStore()}
        self.exchange_store = self.exchange_stores[PRIMARY]
        self.fails_over = fails_over
        self.exchange: Session | None = None
        self.received: list[Message] = []
        self.delivering = True
        self.unread = 0
        self.start()

    def start(self) -> None:
        """Open the router's files as its process does."""
        self.log = InboundLog(self.folder / "inbound")
        self.store = RememberingStore(self.folder / "session.log")
        self.backup_store = RememberingStore(self.folder / "backup.log") if self.fails_over else None
        self.router = Router(
            identity=("FIRM", "PAPEREX"),
            account="FIRM",
            store=self.store,
            log=self.log,
            fence=Fence(self.folder / "epoch.json"),
            emit=self.emit,
            now=self.now,
            soon=lambda callback: self.later.append(callback),  # noqa: PLW0108 - the list is swapped
            quarantine=Quarantine(self.folder / "quarantine.jsonl", self.emit),
            gateways=Gateways(backup=self.fails_over, patience_ns=SECOND, now_ns=self.mono_ns),
            backup_store=self.backup_store,
        )

    def crash(self) -> None:
        """Kill the router with everything it held in memory; the exchange sees the connection end."""
        if self.exchange is not None:
            self.exchange.disconnected(self.now())
        self.exchange = None
        self.later.clear()
        self.store.close()
        self.start()

    def emit(self, event: str, **detail: Any) -> int:
        """Remember an event."""
        self.events.append((event, detail))
        return self.mono_ns

    def now(self) -> Now:
        """Return the instant that the test has set."""
        return Now(self.mono_ns, 1_700_000_000 * SECOND + self.mono_ns)

    def names(self) -> list[str]:
        """Return the names of all events."""
        return [event for event, _ in self.events]

    def settle(self) -> None:
        """Run what was put off to the end of the turn, until nothing is left."""
        while self.later:
            work, self.later = self.later, []
            for callback in work:
                callback()

    def wait(self, seconds: float) -> None:
        """Let time pass in steps in which the router ticks, as its process does."""
        for _ in range(int(seconds / 0.05)):
            self.mono_ns += SECOND // 20
            self.router.tick()
            self.settle()

    # ---- the wire

    def connect(self, gateway: str = PRIMARY) -> None:
        """Connect the router to a gateway of the exchange and let both settle."""
        self.exchange_store = self.exchange_stores[gateway]
        config = SessionConfig(sender="PAPEREX", target="FIRM", role=Role.ACCEPTOR)
        self.exchange = Session(config, self.exchange_store)
        self.exchange.connected(self.now())
        self.router.exchange_connected(self, gateway)
        self.settle()

    def cut(self) -> None:
        """Cut the connection."""
        if self.exchange is not None:
            self.exchange.disconnected(self.now())
            self.exchange = None
            self.router.exchange_lost("cut")
            self.settle()

    def write(self, data: bytes) -> None:
        """Carry the router's bytes to the exchange, or lose them."""
        if self.exchange is not None and self.delivering:
            self.take(self.exchange.received(data, self.now()))

    def backlog(self) -> int:
        """Return what the exchange has not read."""
        return self.unread

    def close(self) -> None:
        """Cut at the end of the turn."""
        self.later.append(self.cut)

    discard = close

    def take(self, effects: list[Any]) -> None:
        """Do what the exchange's session wants."""
        for effect in effects:
            if isinstance(effect, Transmit):
                self.later.append(
                    lambda data=effect.data: self.router.exchange_data(data) if self.exchange else None
                )
            elif isinstance(effect, Deliver):
                self.received.append(effect.message)
                assert self.exchange is not None
                self.exchange.commit(self.now())
            elif isinstance(effect, Disconnect):
                self.later.append(self.cut)

    def answer(self, msg_type: str, fields: dict[int, str]) -> None:
        """Send an application message and let both settle."""
        assert self.exchange is not None
        self.take(self.exchange.send(Message.of(msg_type, fields), self.now()))
        self.settle()

    def reports(self, *exec_ids: str) -> None:
        """Send an execution report for each id; while nobody is logged on it keeps them."""
        session = self.exchange or Session(
            SessionConfig(sender="PAPEREX", target="FIRM"), self.exchange_store
        )
        for exec_id in exec_ids:
            fields = {
                37: "O1",
                11: "1-C1",
                17: exec_id,
                150: "F",
                39: "1",
                55: "ALFA",
                54: "1",
                38: 9,
                32: 1,
                31: "5",
                14: 1,
                151: 8,
            }
            self.take(session.send(Message.of("8", fields), self.now()))
        self.settle()

    def bind(
        self,
        engine: str = "engine-a",
        epoch: int = 1,
        since: int = 0,
        log_id: str | None = None,
        ask: list[str] | None = None,
    ) -> Engine:
        """Bind an engine and return its link."""
        link = Engine()
        name = self.log.log_id if log_id is None else log_id
        self.router.engine_message(link, Bind(engine, epoch, since, name, ask or []))
        self.settle()
        return link

    def order(self, link: Engine, cl_ord_id: str) -> None:
        """Send an order as the engine of a link."""
        self.router.engine_message(link, Send(cl_ord_id, "ALFA", "buy", 9, 50_000, "day"))
        self.settle()

    def orders_at_exchange(self) -> list[str | None]:
        """Return the ClOrdIDs of the orders that arrived."""
        return [message.get(11) for message in self.received if message.msg_type == "D"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a router that is connected and logged on."""
    world = World(tmp_path)
    world.connect()
    yield world
    world.store.close()


def test_orders_out_and_reports_in(world: World) -> None:
    """A bound engine's order reaches the exchange; its report reaches the engine, numbered and not late."""
    engine = world.bind()
    assert engine.frames == [BindDone(0, world.log.log_id, [], True)]
    world.order(engine, "1-C1")
    assert world.orders_at_exchange() == ["1-C1"]
    world.reports("E1", "E2")
    found = [(frame.router_seq, frame.late, frame.report.exec_id) for frame in engine.of(Inbound)]
    assert found == [(1, False, "E1"), (2, False, "E2")]


def test_nothing_is_sent_while_the_session_is_down(world: World) -> None:
    """An order that meets a dead session is refused at once and never sent later."""
    engine = world.bind()
    world.cut()
    assert engine.of(SessionDown)
    world.order(engine, "1-C1")
    assert engine.of(Unsent) == [Unsent("1-C1", "the FIX session is down")]
    world.connect()
    assert engine.of(SessionUp)
    world.wait(2)
    assert world.orders_at_exchange() == []


def test_reports_missed_while_away_come_late_and_once(world: World) -> None:
    """Reports missed while away come by resend, marked late, before the session counts as up."""
    engine = world.bind()
    world.reports("E1")
    world.cut()
    world.reports("E2", "E3")
    world.connect()
    frames = engine.frames[1:]
    assert [frame.report.exec_id for frame in engine.of(Inbound)] == ["E1", "E2", "E3"]
    assert [frame.late for frame in engine.of(Inbound)] == [False, True, True]
    assert isinstance(frames[-1], SessionUp)
    assert world.names().index("resend_requested") < world.names().index("resend_complete")


def test_a_crash_loses_no_report(world: World) -> None:
    """After a crash, reports taken before it come from the log, the others by resend."""
    engine = world.bind()
    world.reports("E1", "E2")
    assert len(engine.of(Inbound)) == 2
    world.crash()
    world.reports("E3")
    world.connect()
    again = world.bind(since=1)
    assert [(frame.router_seq, frame.report.exec_id) for frame in again.of(Inbound)] == [(2, "E2"), (3, "E3")]
    assert all(frame.late for frame in again.of(Inbound))
    assert again.of(BindDone)[0].last_inbound == 3


def test_a_report_is_durable_before_its_number_is_committed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the log cannot be written, the FIX number stays uncommitted: the report will come again."""
    before = world.store.next_in

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(world.log, "sync", full)
    with pytest.raises(OSError, match="No space"):
        world.reports("E1")
    assert world.store.next_in == before


def test_another_log_is_replayed_from_the_start(world: World) -> None:
    """`since` of a log that is not this one means nothing."""
    world.reports("E1", "E2")
    engine = world.bind(since=2, log_id="another")
    assert [frame.report.exec_id for frame in engine.of(Inbound)] == ["E1", "E2"]


def test_an_old_primary_is_fenced(world: World) -> None:
    """A higher epoch takes over; the old engine's orders go nowhere, also after a router restart."""
    old = world.bind("engine-a", 1)
    new = world.bind("engine-b", 2)
    assert old.of(BindRefused)
    assert not old.open
    world.order(old, "1-C1")
    world.order(new, "2-C1")
    assert world.orders_at_exchange() == ["2-C1"]
    world.crash()
    world.connect()
    late = world.bind("engine-a", 1)
    assert late.of(BindRefused)[0].epoch == 2
    assert not late.open
    assert "engine_fenced" in world.names()
    world.reports("E1")
    assert not late.of(Inbound)


def test_known_tells_what_reached_the_fix_store(world: World) -> None:
    """Sent orders are known, after a restart too; refused ones are not."""
    engine = world.bind()
    world.order(engine, "1-C1")
    world.cut()
    world.order(engine, "1-C2")
    world.crash()
    world.connect()
    again = world.bind(ask=["1-C1", "1-C2"])
    assert again.of(BindDone)[0].known == ["1-C1"]
    world.router.engine_message(again, Known(7, ["1-C2", "1-C1"]))
    assert again.of(KnownAnswer) == [KnownAnswer(7, ["1-C1"])]


@pytest.mark.parametrize("away_s", [0.05, 0.3, 1.5])
def test_an_order_lost_on_the_wire_is_never_sent_again(world: World, away_s: float) -> None:
    """Its number is gap-filled however short the absence: nothing trades before the state is validated."""
    engine = world.bind()
    world.delivering = False
    world.order(engine, "1-C1")
    world.cut()
    world.delivering = True
    world.wait(away_s)
    world.connect()
    world.wait(1)
    assert world.orders_at_exchange() == []
    world.order(engine, "1-C2")
    assert world.orders_at_exchange() == ["1-C2"]


def test_an_exchange_that_does_not_read_gets_no_stale_orders(world: World) -> None:
    """Bytes stuck for a second cut the connection; a large backlog refuses orders before that."""
    engine = world.bind()
    world.unread = 300 << 10
    world.order(engine, "1-C1")
    assert engine.of(Unsent) == [Unsent("1-C1", "the exchange does not read")]
    world.wait(1.2)
    assert not world.router.session_up
    assert engine.of(SessionDown)


def test_frames_that_waited_through_a_pause_are_not_sent(world: World) -> None:
    """After a pause an order of unknown age is dropped with its link; the engine asks what is known."""
    engine = world.bind()
    world.mono_ns += 2 * SECOND
    world.order(engine, "1-C1")
    assert not engine.open
    assert world.orders_at_exchange() == []
    assert world.bind(ask=["1-C1"]).of(BindDone)[0].known == []


def test_a_silent_exchange_is_given_up(world: World) -> None:
    """A half-open connection ends within three seconds of silence."""
    engine = world.bind()
    world.delivering = False
    world.wait(3)
    assert engine.of(SessionDown)


def test_the_operator_resets_numbers_that_no_longer_fit(world: World) -> None:
    """When the exchange lost its numbers the session is refused until an operator resets; ids stay known."""
    engine = world.bind()
    world.order(engine, "1-C1")
    world.reports("E1", "E2")
    world.cut()
    world.exchange_store.wipe()
    world.connect()
    assert not world.router.session_up
    world.router.ask_reset()
    world.connect()
    assert world.router.session_up
    assert world.bind(ask=["1-C1"]).of(BindDone)[0].known == ["1-C1"]


def test_a_cold_start_resets_numbers_that_only_the_exchange_remembers(world: World) -> None:
    """A router that lost its store logs on by itself: it begins at 1 with the exchange's consent."""
    engine = world.bind()
    world.order(engine, "1-C1")
    world.reports("E1", "E2")
    world.cut()
    world.store.close()
    world.folder /= "cold"
    world.start()
    world.connect()
    assert world.router.session_up
    again = world.bind()
    world.order(again, "1-C2")
    world.reports("E3")
    assert world.orders_at_exchange() == ["1-C1", "1-C2"]
    assert [frame.report.exec_id for frame in again.of(Inbound)] == ["E3"]


def test_an_unreadable_report_is_refused_and_the_session_goes_on(world: World) -> None:
    """A price that cannot be held exactly is an event, not a crash and not a guess."""
    engine = world.bind()
    assert world.exchange is not None
    world.take(world.exchange.send(Message.of("8", {17: "E1", 31: "1.00000001"}), world.now()))
    world.settle()
    world.reports("E2")
    assert [frame.report.exec_id for frame in engine.of(Inbound)] == ["E2"]
    (held,) = [detail for event, detail in world.events if event == "quarantined"]
    assert held["action"] == "fetched again"
    assert "1.00000001" in held["message"]
    lines = (world.folder / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == [held["reason"]]


@pytest.mark.parametrize(("exec_type", "action"), [("F", "fetched again"), ("0", "kept")])
def test_a_fill_with_a_nonsense_time_is_refused_and_an_answer_is_not(
    world: World, exec_type: str, action: str
) -> None:
    """TransactTime of another century: kept for review; a fill the engine fetches from the exchange."""
    engine = world.bind()
    assert world.exchange is not None
    fields = {37: "O1", 11: "1-C1", 17: "E1", 150: exec_type, 39: "1", 55: "ALFA", 54: "1", 38: 9, 31: "5"}
    fields |= {32: 1, 14: 1, 151: 8, 60: "19700101-00:00:00"}
    world.take(world.exchange.send(Message.of("8", fields), world.now()))
    world.settle()
    assert [frame.report.exec_id for frame in engine.of(Inbound)] == (["E1"] if exec_type == "0" else [])
    (held,) = [detail for event, detail in world.events if event == "quarantined"]
    assert held["action"] == action
    assert held["kept"] is True
    assert "19700101" in held["message"]


def test_a_fill_with_nonsense_numbers_is_put_aside_and_the_session_goes_on(world: World) -> None:
    """A fill that cannot be true is not handed on; the engine gets it from the exchange's own records."""
    engine = world.bind()
    assert world.exchange is not None
    fields = {37: "O1", 11: "1-C1", 17: "E1", 150: "F", 39: "1", 55: "ALFA", 54: "1", 38: 9, 31: "5"}
    fields |= {32: 999_999, 14: 1, 151: 8}
    world.take(world.exchange.send(Message.of("8", fields), world.now()))
    world.settle()
    world.reports("E2")
    assert [frame.report.exec_id for frame in engine.of(Inbound)] == ["E2"]
    (held,) = [detail for event, detail in world.events if event == "quarantined"]
    assert held["action"] == "fetched again"
    assert world.router.quarantined == 1


@pytest.fixture
def two_gateways(tmp_path: Path) -> Iterator[World]:
    """Give a router that may fail over, connected and logged on at the primary."""
    world = World(tmp_path, fails_over=True)
    world.connect()
    yield world
    world.store.close()


def probe(world: World) -> str:
    """Return the id of the question that the router asked last."""
    asked = [message.get(11) for message in world.received if message.msg_type == "H"]
    assert asked, "the router asked nothing"
    return asked[-1] or ""


def test_a_promoted_backup_is_used_after_it_took_a_question(two_gateways: World) -> None:
    """At the backup the engine hears of the session only after an application message was answered there."""
    engine = two_gateways.bind()
    two_gateways.order(engine, "1-C1")
    two_gateways.cut()
    two_gateways.connect(BACKUP)
    assert engine.of(SessionDown)
    assert not two_gateways.router.session_up
    two_gateways.answer(
        "8", {11: probe(two_gateways), 17: "0", 150: "I", 39: "8", 37: "NONE", 55: "ALFA", 54: "1"}
    )
    assert two_gateways.router.session_up
    assert engine.of(SessionUp)
    assert ("gateway_changed", {"gateway": BACKUP}) in two_gateways.events
    assert not engine.of(Inbound), "the answer is the router's, not the engine's"
    two_gateways.order(engine, "1-C2")
    assert two_gateways.orders_at_exchange() == ["1-C1", "1-C2"]
    assert two_gateways.bind(ask=["1-C2", "1-C1", "1-C3"]).of(BindDone)[0].known == ["1-C2", "1-C1"]


def test_a_backup_that_is_not_promoted_is_left(two_gateways: World) -> None:
    """Where the question is rejected (35=j) the router logs out; the engine never heard of the session."""
    engine = two_gateways.bind()
    two_gateways.cut()
    two_gateways.connect(BACKUP)
    two_gateways.answer("j", {45: "2", 372: "H", 379: probe(two_gateways), 380: "4", 58: "not promoted"})
    two_gateways.settle()
    assert two_gateways.exchange is None
    assert not engine.of(SessionUp)
    assert "gateway_not_in_force" in two_gateways.names()
    assert two_gateways.router.gateways.favourite == PRIMARY


def test_a_primary_that_takes_no_orders_any_more_is_left(two_gateways: World) -> None:
    """When the backup is in force the primary rejects orders: they are unsent then, and it is left."""
    engine = two_gateways.bind()
    two_gateways.order(engine, "1-C1")
    two_gateways.answer("j", {45: "2", 372: "D", 379: "1-C1", 380: "4"})
    (rejected,) = engine.of(Inbound)
    assert (rejected.report.kind, rejected.report.cl_ord_id) == ("reject", "1-C1")
    two_gateways.order(engine, "1-C2")
    assert [frame.cl_ord_id for frame in engine.of(Unsent)] == ["1-C2"]
    assert two_gateways.router.gateways.other(two_gateways.mono_ns) == BACKUP


def test_without_the_switch_a_rejected_order_changes_nothing(tmp_path: Path) -> None:
    """A firm that does not fail over stays on its session whatever the exchange rejects."""
    world = World(tmp_path)
    world.connect()
    engine = world.bind()
    world.order(engine, "1-C1")
    world.answer("j", {45: "2", 372: "D", 379: "1-C1", 380: "4"})
    world.order(engine, "1-C2")
    assert world.router.session_up
    assert world.orders_at_exchange() == ["1-C1", "1-C2"]
    world.store.close()


def test_each_gateway_has_numbers_of_its_own(two_gateways: World) -> None:
    """Back at the primary the session goes on with its own numbers, and a report that waited there comes."""
    two_gateways.bind()
    two_gateways.reports("E1")
    two_gateways.cut()
    two_gateways.connect(BACKUP)
    two_gateways.answer(
        "8", {11: probe(two_gateways), 17: "0", 150: "I", 39: "8", 37: "NONE", 55: "ALFA", 54: "1"}
    )
    two_gateways.cut()
    two_gateways.exchange_store = two_gateways.exchange_stores[PRIMARY]
    two_gateways.reports("E2")
    two_gateways.connect(PRIMARY)
    assert two_gateways.router.session_up
    assert two_gateways.router.gateways.favourite == PRIMARY
    log = [entry.report.exec_id for entry in two_gateways.log.since(0)]
    assert log == ["E1", "E2"]
