from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from paperfirm import wire
from paperfirm.engine import events as ev
from paperfirm.engine.commit import Committer
from paperfirm.engine.desk import Desk, NewOrder, Outcome
from paperfirm.engine.errors import DiskFullError
from paperfirm.engine.journal import Journal, read
from paperfirm.engine.links import RiskPeer
from paperfirm.engine.state import State, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ORDER = NewOrder("ALFA", "buy", 10, 1_000_000, "mine")


class Bench:
    """A desk whose peers are lists and whose loop turns by hand."""

    def __init__(self, folder: Path) -> None:
        self.todo: list[Callable[[], None]] = []
        self.risk: list[wire.Message] = []
        self.router: list[wire.Message] = []
        self.told: list[Outcome] = []
        self.state = State()
        self.committer = Committer(
            self.state, Journal(folder, last_seq=0), clock=(lambda: 5, lambda: 6), soon=self.todo.append
        )
        self.desk = Desk(
            self.state,
            self.committer,
            symbols=frozenset({"ALFA"}),
            to_risk=self.risk.append,
            to_router=self.router.append,
            on_change=lambda _: None,
            clock=lambda: 5,
        )
        self.desk.resume()
        self.desk.connected = True

    def turn(self) -> None:
        """Run what is scheduled."""
        while self.todo:
            self.todo.pop(0)()

    def acknowledge(self, cl_ord_id: str, status: str = "0", text: str = "") -> None:
        """Be the exchange: say what has become of the order."""
        names = (status, status, cl_ord_id, "", "" if status == "8" else "O1", "", "")
        report = wire.Report("execution", *names, "ALFA", "buy", 10, 1_000_000, 0, 0, 0, 10, text)
        self.desk.inbound(wire.Inbound(self.state.router_seq + 1, late=False, report=report))

    def place(self, order: NewOrder = ORDER) -> str:
        """Place with our ear open."""
        return self.desk.place(order, reply=self.told.append)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give a fresh desk."""
    return Bench(tmp_path)


@pytest.mark.parametrize("risk_first", [True, False])
def test_sent_when_durable_and_approved(bench: Bench, risk_first: bool) -> None:
    """Neither approval nor durability alone sends an order; both do, in any order.

    The client is answered when the exchange has acknowledged the order, and that is durable.
    """
    cl_ord_id = bench.place()
    steps = [lambda: bench.desk.approved(cl_ord_id), bench.turn]
    for step in steps if risk_first else reversed(steps):
        assert (bench.router, bench.told) == ([], [])
        step()
    assert bench.router == [wire.Send(cl_ord_id, "ALFA", "buy", 10, 1_000_000, "day")]
    bench.acknowledge(cl_ord_id)
    assert bench.told == []
    assert cl_ord_id.endswith("-mine")
    bench.turn()
    assert bench.told == [Outcome("mine", cl_ord_id)]
    assert bench.state.orders[cl_ord_id].accepted


def test_what_the_exchange_rejects_is_rejected_for_good(bench: Bench) -> None:
    """The exchange's reject is the client's answer, now and when it asks again; it never was accepted."""
    cl_ord_id = bench.place()
    bench.desk.approved(cl_ord_id)
    bench.turn()
    bench.acknowledge(cl_ord_id, "8", "market closed")
    bench.turn()
    bench.place()
    bench.turn()
    assert bench.told == [Outcome("mine", "", "market closed")] * 2
    assert not bench.state.orders[cl_ord_id].accepted


def test_accepted_is_never_taken_back(bench: Bench) -> None:
    """An order rejected after it was acknowledged stays one that was promised, after replay too."""
    cl_ord_id = bench.place()
    bench.desk.approved(cl_ord_id)
    bench.turn()
    bench.acknowledge(cl_ord_id)
    bench.acknowledge(cl_ord_id, "8")
    bench.turn()
    replayed = State()
    for record, _ in read(bench.committer.journal.folder, after=0):
        replayed.apply(record)
    for order in (bench.state.orders[cl_ord_id], load(replayed.dump()).orders[cl_ord_id]):
        assert (order.status, order.accepted) == ("rejected", True)


def test_recovery_answers_what_was_unknown(bench: Bench) -> None:
    """An order in flight when trading halts is answered only when its fate is known, to whoever asks last."""
    cl_ord_id = bench.place()
    bench.desk.approved(cl_ord_id)
    bench.turn()
    bench.desk.halt("router lost")
    bench.place()
    bench.turn()
    assert bench.told == []
    bench.committer.submit(ev.OrderUpdated(0, cl_ord_id, "O1", "new", ""))
    bench.desk.resume()
    bench.turn()
    assert bench.told == [Outcome("mine", cl_ord_id)]


def test_a_refusal_is_remembered(bench: Bench) -> None:
    """What risk refused stays refused under its client_order_id, and was never sent."""
    cl_ord_id = bench.place()
    bench.desk.refused(cl_ord_id, "too much")
    bench.turn()
    bench.place()
    bench.turn()
    assert bench.told == [Outcome("mine", "", "risk: too much")] * 2
    assert bench.router == []
    assert bench.state.orders[cl_ord_id].status == "rejected"
    assert not bench.state.orders[cl_ord_id].accepted
    assert not bench.state.open_orders


def test_a_repetition_makes_no_second_order(bench: Bench) -> None:
    """The same client_order_id while risk thinks, and again afterwards.

    Gets the one outcome of the one order.
    """
    cl_ord_id = bench.place()
    assert bench.place() == ""
    bench.desk.approved(cl_ord_id)
    bench.turn()
    bench.acknowledge(cl_ord_id)
    bench.turn()
    bench.place()
    bench.turn()
    assert bench.told == [Outcome("mine", cl_ord_id)] * 2
    assert len(bench.router) == len(bench.state.orders) == 1


def test_a_halt_gives_up_what_is_not_accepted(bench: Bench) -> None:
    """Orders waiting for risk when trading halts are refused, and a late approval changes nothing."""
    cl_ord_id = bench.place()
    assert bench.desk.halt("risk lost")
    bench.desk.approved(cl_ord_id)
    bench.turn()
    assert bench.told == [Outcome("mine", "", "not trading: risk lost")]
    assert bench.router == []
    assert wire.Closed(cl_ord_id) in bench.risk
    assert not bench.desk.halt("again")


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (NewOrder("NONE", "buy", 1, 1, "a"), "unknown symbol NONE"),
        (NewOrder("ALFA", "buy", 0, 1, "a"), "quantity 0 is not between 1 and 1000000000"),
        (NewOrder("ALFA", "buy", 1, -5, "a"), "price -5 is not positive"),
    ],
)
def test_nonsense_is_refused_before_risk(bench: Bench, order: NewOrder, reason: str) -> None:
    """An order that cannot be meant is refused with the reason and never shown to risk."""
    bench.place(order)
    bench.turn()
    assert bench.told == [Outcome("a", "", reason)]
    assert bench.risk == []


def test_cancel_only_what_rests(bench: Bench) -> None:
    """A cancel goes out once, for an order the exchange has acknowledged, and only while connected."""
    cl_ord_id = bench.place()
    bench.desk.approved(cl_ord_id)
    bench.turn()
    assert bench.desk.cancel(cl_ord_id) == "order is pending_new"
    report = wire.Report(
        "execution", "0", "0", cl_ord_id, "", "O1", "", "", "ALFA", "buy", 10, 1_000_000, 0, 0, 0, 10, ""
    )
    bench.desk.inbound(wire.Inbound(1, late=False, report=report))
    bench.desk.connected = False
    assert bench.desk.cancel(cl_ord_id) == "not connected: "
    bench.desk.connected = True
    assert bench.desk.cancel(cl_ord_id) is None
    assert bench.desk.cancel(cl_ord_id) == "order is pending_cancel"
    bench.turn()
    assert [type(one) for one in bench.router] == [wire.Send, wire.Cancel]
    assert bench.desk.cancel("nobody's") == "no such open order"


def test_unsent_orders_end(bench: Bench) -> None:
    """An order that the router could not send is rejected with the router's reason."""
    cl_ord_id = bench.place()
    bench.desk.approved(cl_ord_id)
    bench.turn()
    bench.desk.unsent(wire.Unsent(cl_ord_id, "the FIX session is down"))
    order = bench.state.orders[cl_ord_id]
    assert (order.status, order.reason) == ("rejected", "not sent: the FIX session is down")


def test_two_snapshots_are_one(bench: Bench) -> None:
    """Refreshes asked for while effects wait end in one snapshot after them, and the loop goes on."""
    sent: list[wire.Message] = []
    quiet: dict[str, Any] = {"emit": lambda *_, **__: 0, "clock": lambda: 5, "on_change": lambda: None}
    peer = RiskPeer(0, engine="x", desk=bench.desk, committer=bench.committer, **quiet)
    bench.place()
    peer._opened(SimpleNamespace(send=sent.append))  # type: ignore[arg-type]
    peer.refresh()
    bench.place(NewOrder("ALFA", "sell", 3, 1_000_000, "other"))
    peer.refresh()
    bench.turn()
    assert [len(one.orders) for one in sent if isinstance(one, wire.Snapshot)] == [2]
    peer.refresh()
    assert len(sent) == 2


def test_a_held_committer_releases_nothing(bench: Bench) -> None:
    """While the loss of the standby is being registered nothing goes out; afterwards everything does."""
    bench.committer.held = True
    cl_ord_id = bench.place()
    bench.desk.approved(cl_ord_id)
    bench.turn()
    assert bench.router == []
    bench.committer.held = False
    bench.committer.release()
    assert len(bench.router) == 1


def test_a_full_disk_refuses_at_once_and_acknowledges_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the journal takes nothing, clients hear the reason now; with room all of it is journalled."""
    waiting = bench.place()
    real = bench.committer.journal.write

    def full(*_: Any, **__: Any) -> None:
        raise DiskFullError(bench.committer.journal.folder, OSError(28, "No space left on device"))

    monkeypatch.setattr(bench.committer.journal, "write", full)
    bench.desk.approved(waiting)
    bench.turn()
    assert bench.committer.full is not None
    assert (bench.told, bench.router) == ([], [])
    bench.desk.halt("disk full")
    bench.place(msgspec.structs.replace(ORDER, client_order_id="later"))
    reasons = {one.client_order_id: one.reason for one in bench.told}
    assert reasons == {"mine": "not trading: disk full", "later": "not trading: disk full"}
    monkeypatch.setattr(bench.committer.journal, "write", real)
    bench.committer.flush()
    bench.turn()
    assert bench.committer.full is None
    assert bench.router == []
    assert len(list(read(bench.committer.journal.folder, after=0))) == bench.state.seq
    bench.place()
    bench.turn()
    assert bench.told[-1] == Outcome("mine", "", "not trading: disk full")


def test_a_halted_symbol_is_refused_alone(bench: Bench) -> None:
    """A symbol whose position is in doubt takes no order; it does again when it is right."""
    bench.desk.halted_symbols["ALFA"] = "position in memory damaged"
    bench.place()
    bench.turn()
    assert bench.told == [Outcome("mine", "", "symbol halted: position in memory damaged")]
    bench.desk.halted_symbols.clear()
    assert bench.place(msgspec.structs.replace(ORDER, client_order_id="next"))
