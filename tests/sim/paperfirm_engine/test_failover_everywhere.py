from __future__ import annotations

import asyncio
import random
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from paperfirm import wire
from paperfirm.config import Limits
from paperfirm.engine import decide, journal
from paperfirm.engine import events as ev
from paperfirm.engine.commit import Committer
from paperfirm.engine.database import History
from paperfirm.engine.desk import Desk, NewOrder, Outcome
from paperfirm.engine.links import RiskPeer, snapshot
from paperfirm.engine.member import ExchangePosition, ExecutionsPage
from paperfirm.engine.recovery import Recovery, self_check
from paperfirm.engine.state import State
from paperfirm.risk.core import RiskBook
from paperfirm.risk.service import RiskService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ORDERS = 9
PRICE = 1_000_000
LIMITS = Limits(position={"*": 1_000_000}, gross_notional=10**15)
REFUSALS = {"not trading: router lost", "not trading: risk lost", "not sent before failure"}


class Exchange:
    """The router with its durable log and the exchange behind it, in one."""

    def __init__(self, rng: random.Random, put: Callable[[str, Callable[[], None]], None]) -> None:
        self.rng = rng
        self.put = put
        self.epoch = 1
        self.store: set[str] = set()
        self.orders: dict[str, wire.Send] = {}
        self.filled: dict[str, int] = {}
        self.canceled: set[str] = set()
        self.log: list[wire.Report] = []
        self.executions: list[decide.ExchangeExecution] = []
        self.live: Callable[[wire.Inbound], None] | None = None
        self.up = self.session_up = True
        self.before_question: Callable[[], None] = lambda: None

    def take(self, epoch: int, message: wire.Message) -> None:
        """Take a frame of the engine of an epoch; frames of fenced engines are refused."""
        if epoch != self.epoch:
            return
        if isinstance(message, wire.Send):
            assert message.cl_ord_id not in self.store, "an order was sent twice"
            self.store.add(message.cl_ord_id)
        self.put("fix", lambda: self.process(message))

    def process(self, message: wire.Message) -> None:
        """Be the exchange at the other end of the FIX session, which outlives engines."""
        if isinstance(message, wire.Send):
            self.orders[message.cl_ord_id] = message
            self.report(message.cl_ord_id, "0", "0")
            if self.rng.random() < 0.7:
                self.fill(message.cl_ord_id, message.quantity if self.rng.random() < 0.5 else 1)
        elif isinstance(message, wire.Cancel):
            self.cancel(message.orig_cl_ord_id)
        elif isinstance(message, wire.StatusRequest):
            self.answer(message.cl_ord_id)

    def cancel(self, cl_ord_id: str) -> None:
        """Cancel, unless filled meanwhile."""
        if self.leaves(cl_ord_id):
            self.canceled.add(cl_ord_id)
            self.report(cl_ord_id, "4", "4")

    def answer(self, cl_ord_id: str) -> None:
        """Answer a status request."""
        code = "8" if cl_ord_id not in self.orders else "4" if cl_ord_id in self.canceled else "0"
        done = code == "0" and not self.leaves(cl_ord_id)
        self.report(cl_ord_id, "I", "2" if done else code)

    def leaves(self, cl_ord_id: str) -> int:
        """Return what is open of an order."""
        if cl_ord_id in self.canceled or cl_ord_id not in self.orders:
            return 0
        return self.orders[cl_ord_id].quantity - self.filled.get(cl_ord_id, 0)

    def fill(self, cl_ord_id: str, quantity: int) -> None:
        """Execute part of an order."""
        order = self.orders[cl_ord_id]
        number = len(self.executions) + 1
        self.filled[cl_ord_id] = self.filled.get(cl_ord_id, 0) + quantity
        self.executions.append(
            decide.ExchangeExecution(
                f"E{number}", number, f"O{cl_ord_id}", cl_ord_id, order.symbol, order.side, quantity, PRICE
            )
        )
        self.report(cl_ord_id, "F", "1", exec_id=f"E{number}", quantity=quantity)

    def report(
        self, cl_ord_id: str, exec_type: str, status: str, *, exec_id: str = "", quantity: int = 0
    ) -> None:
        """Write to the durable inbound log and tell the bound engine."""
        order = self.orders.get(cl_ord_id)
        side = order.side if order else "buy"
        total = order.quantity if order else 0
        order_id = f"O{cl_ord_id}" if order else ""
        self.log.append(
            wire.Report(
                "execution", exec_type, status, cl_ord_id, "", order_id, exec_id, "", "ALFA", side, total,
                PRICE, quantity, PRICE, 0, 0, "",
            )
        )  # fmt: skip
        if self.live is not None:
            self.live(wire.Inbound(len(self.log), False, self.log[-1]))

    # what Recovery asks of router and member interface

    def send(self, message: wire.Message) -> None:
        """Take a frame of the recovering engine."""
        self.take(self.epoch, message)

    async def known(self, cl_ord_ids: list[str]) -> set[str]:
        """Say which ever reached us; the question comes after what was sent before it."""
        self.before_question()
        return {one for one in cl_ord_ids if one in self.store}

    async def executions_page(self, since: int) -> ExecutionsPage:
        """Give the fills after a number."""
        return ExecutionsPage(self.executions[since:], len(self.executions), len(self.executions))

    async def positions(self) -> dict[str, ExchangePosition]:
        """Give the position."""
        signed = [one.quantity if one.side == "buy" else -one.quantity for one in self.executions]
        return {"ALFA": ExchangePosition(sum(signed), -sum(signed) * PRICE)}

    async def open_orders(self) -> list[decide.ExchangeOrder]:
        """Give the open orders."""
        return [
            decide.ExchangeOrder(f"O{name}", name, one.symbol, one.side, one.quantity, "new", one.price or 0)
            for name, one in self.orders.items()
            if self.leaves(name)
        ]

    async def all_orders(self) -> list[decide.ExchangeOrder]:
        """Give every order in its present state."""
        return [
            decide.ExchangeOrder(
                f"O{name}", name, one.symbol, one.side, one.quantity, self.status(name), one.price or 0
            )
            for name, one in self.orders.items()
        ]

    def status(self, cl_ord_id: str) -> str:
        """Return what has become of an order."""
        if cl_ord_id in self.canceled:
            return "canceled"
        return "new" if self.leaves(cl_ord_id) else "filled"

    def forget(self) -> None:
        """Lose the router's disk: the log of what came in and the FIX store."""
        self.log.clear()
        self.store.clear()


class Member:
    """The exchange's member interface over the simulated exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    async def executions(self, since: int) -> ExecutionsPage:
        """Give the fills after a number."""
        return await self.exchange.executions_page(since)

    async def positions(self) -> dict[str, ExchangePosition]:
        """Give the positions."""
        return await self.exchange.positions()

    async def orders(self, *, only_open: bool) -> list[decide.ExchangeOrder]:
        """Give the open orders."""
        return await (self.exchange.open_orders() if only_open else self.exchange.all_orders())


class Wire:
    """One end of a connection: what is sent is delivered later, in order."""

    def __init__(self, deliver: Callable[[wire.Message], None]) -> None:
        self.send = deliver

    def close(self) -> None:
        """Nobody listens any more."""
        self.send = lambda _: None


class World:
    """Primary, standby, risk and exchange joined by queues; one step delivers one message of one queue."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.exchange = Exchange(self.rng, self.put)
        self.now = 0
        self.folder = folder
        self.standby = State()
        self.standby_journal = journal.Journal(folder / "b", last_seq=0)
        self.journals = [self.standby_journal]
        self.told: dict[str, Outcome] = {}
        self.queues: dict[str, deque[Callable[[], None]]] = {
            name: deque()
            for name in (
                "loop",
                "risk",
                "approvals",
                "router",
                "replication",
                "appended",
                "inbound",
                "clients",
                "fix",
            )
        }
        self.state = State()
        self.service = RiskService(LIMITS, lambda *_, **__: 0, clock=self.tick)
        self.exchange.before_question = self.deliver_to_router
        self.peer: RiskPeer
        self.committer, self.desk = self.primary(self.state, journal.Journal(folder / "a", last_seq=0), 1)
        self.committer.replicate = lambda first, last, data: self.put(
            "replication", lambda: self.append(first, last, data)
        )
        self.committer.needs_standby = True
        self.exchange.live = lambda one: self.put("inbound", lambda: self.desk.inbound(one))
        for number in range(ORDERS):
            self.put("clients", partial(self.client, number))

    def primary(self, state: State, log: journal.Journal, epoch: int) -> tuple[Committer, Desk]:
        """Build what a primary of an epoch consists of."""
        self.journals.append(log)
        committer = Committer(
            state, log, clock=(self.tick, self.tick), soon=lambda work: self.put("loop", work)
        )
        desk = Desk(
            state,
            committer,
            symbols=frozenset({"ALFA"}),
            to_risk=lambda message: peer.send(message),  # noqa: PLW0108 - made below
            to_router=lambda message: self.put("router", lambda: self.exchange.take(epoch, message)),
            on_change=lambda _: None,
            clock=self.tick,
        )
        peer = self.peer = RiskPeer(
            0,
            engine="x",
            desk=desk,
            committer=committer,
            emit=lambda *_, **__: 0,
            clock=self.tick,
            on_change=lambda: None,
        )
        committer.submit(ev.EpochStarted(epoch, "x"))
        self.connect_risk(peer)
        desk.resume()
        desk.connected = True
        return committer, desk

    def tick(self) -> int:
        """Advance the simulated clock."""
        self.now += 1
        return self.now

    def put(self, queue: str, work: Callable[[], None]) -> None:
        """Queue a delivery."""
        self.queues[queue].append(work)

    def connect_risk(self, peer: RiskPeer) -> None:
        """Join an engine and the risk manager, by the code of both."""
        service = self.service
        there: Any = Wire(lambda message: self.put("approvals", lambda: peer._message(here, message)))
        here: Any = Wire(lambda message: self.put("risk", lambda: service.on_message(there, message)))
        peer._opened(here)

    def deliver_to_router(self) -> None:
        """Deliver what is on its way to the router."""
        while self.queues["router"]:
            self.queues["router"].popleft()()

    def lose_risk(self) -> None:
        """End the risk manager; another one begins with nothing."""
        for name in ("risk", "approvals", "clients"):
            self.queues[name].clear()
        self.peer.up = False
        self.desk.halt("risk lost")
        self.service = RiskService(LIMITS, lambda *_, **__: 0, clock=self.tick)
        self.connect_risk(self.peer)

    def client(self, number: int) -> None:
        """Place an order, and sometimes cancel an earlier one."""
        side: ev.Side = "buy" if number % 2 else "sell"
        order = NewOrder("ALFA", side, 10, PRICE, f"c{number}")
        self.desk.place(order, reply=lambda outcome: self.told.__setitem__(outcome.client_order_id, outcome))
        earlier = self.state.by_client.get(f"c{number - 3}", "")
        if earlier and number % 3 == 0:
            self.desk.cancel(earlier)

    def hear(self, outcome: Outcome, *, again: Outcome) -> None:
        """Hear an answer for the second time."""
        assert outcome == again

    def append(self, first: int, last: int, data: bytes) -> None:
        """Be the standby: write, apply, answer."""
        assert first == self.standby.seq + 1
        for raw in journal.scan(data, name="stream", last=False):
            self.standby.apply(journal.decode(raw.payload))
        self.standby_journal.write(data, last=last, last_crc=0)
        self.put("appended", lambda: self.committer.appended(last))

    def step(self) -> bool:
        """Deliver one message; False when everything is quiet."""
        ready = [queue for queue in self.queues.values() if queue]
        if not ready:
            return False
        self.rng.choice(ready).popleft()()
        return True

    def kill(self) -> None:
        """End the primary: the kernel delivers what it had sent, to any extent; its own inbox is gone."""
        for name in ("router", "replication"):
            for _ in range(self.rng.randint(0, len(self.queues[name]))):
                self.queues[name].popleft()()
        self.exchange.live = None
        for name, queue in self.queues.items():
            if name != "fix":
                queue.clear()
        self.committer.journal.close()
        self.standby_journal.close()

    def close(self) -> None:
        """Close all files."""
        for one in self.journals:
            one.close()

    def lose_router(self) -> None:
        """End the router's connection: it had taken any part of what was sent; the primary lives on."""
        for _ in range(self.rng.randint(0, len(self.queues["router"]))):
            self.queues["router"].popleft()()
        self.queues["router"].clear()
        self.queues["inbound"].clear()
        self.queues["clients"].clear()
        self.exchange.live = None
        self.desk.halt("router lost")

    def lead(self, state: State, log: journal.Journal, *, deep: bool = False) -> Desk:
        """Lead from a state as epoch 2 and recover by the engine's own code."""
        committer, desk = self.primary(state, log, 2)
        desk.halt("recovering")
        self.exchange.epoch = 2
        self.recover(committer, desk, deep=deep)
        return desk

    def recover(self, committer: Committer, desk: Desk, *, deep: bool = False) -> None:
        """Bind the router, take its replay up, recover."""
        while not self.peer.up:
            assert self.step(), "risk never got its snapshot"
        log = self.exchange.log
        for number in range(desk.state.router_seq, len(log)):
            desk.inbound(wire.Inbound(number + 1, True, log[number]))
        self.exchange.live = desk.inbound
        asyncio.run(self.recovery(committer, desk, deep=deep))

    async def recovery(self, committer: Committer, desk: Desk, *, deep: bool) -> None:
        """Run the recovery while everything else goes on in any order."""

        async def no_history() -> History:
            return History()

        recovery = Recovery(
            desk,
            self.exchange,  # type: ignore[arg-type]
            self.peer,
            Member(self.exchange),  # type: ignore[arg-type]
            emit=lambda *_, **__: 0,
            history=no_history,
        )
        work = asyncio.ensure_future(recovery.run(deep=deep, thorough=True))
        while not work.done():
            self.step()
            await asyncio.sleep(0)
        work.result()
        desk.resume()
        while self.step():
            pass
        committer.flush()


def judge(world: World, desk: Desk, *, epoch: int = 2) -> None:
    """Hold the survivor to every promise."""
    state, exchange = desk.state, world.exchange
    for client_order_id, outcome in world.told.items():
        if outcome.reason:
            assert outcome.reason in REFUSALS
            continue
        assert state.by_client.get(client_order_id) == outcome.cl_ord_id, "an accepted order was lost"
        assert state.orders[outcome.cl_ord_id].accepted, "an acknowledged order is not called accepted"
    for order in state.orders.values():
        assert order.accepted == (order.cl_ord_id in exchange.orders), "accepted is what the exchange took"
    assert {one.exec_id for one in state.executions} == {one.exec_id for one in exchange.executions}
    assert len(state.executions) == len(exchange.executions), "an execution was booked twice"
    assert set(exchange.orders) <= set(state.orders), "the exchange has an order that the firm forgot"
    for order in state.orders.values():
        if order.reason == "not sent before failure":
            assert order.cl_ord_id not in exchange.store, "given up although it was sent"
        if order.open:
            assert exchange.leaves(order.cl_ord_id) == order.leaves_quantity
    assert not [order for order in state.open_orders.values() if order.status.startswith("pending")]
    assert self_check(state) == []
    assert state.epoch == epoch
    assert used(world.service.book) == used(recomputed(state)), "risk counts something else"


def used(book: RiskBook) -> tuple[dict[str, int], int]:
    """Return what a risk book holds."""
    return {symbol: n for symbol, n in book.position_usage().items() if n}, book.open_orders


def recomputed(state: State) -> RiskBook:
    """Build the risk book that an engine's state leads to."""
    book = RiskBook(LIMITS)
    whole = snapshot(state, "x", {})
    book.load(whole.holdings, whole.orders)
    return book


def steps_of(folder: Path, seed: int) -> int:
    """Count the deliveries of an undisturbed run."""
    world = World(folder, seed)
    count = 0
    while world.step():
        count += 1
    assert len(world.told) == ORDERS
    assert len(world.exchange.orders) == ORDERS
    assert world.standby.dump() == world.state.dump(), "in the end the standby is equal"
    world.close()
    return count


def after_every_delivery(folder: Path, seed: int) -> Iterator[World]:
    """Yield the same world after one delivery, after two, and so on; few files may be open at a time."""
    for at in range(steps_of(folder / "whole", seed)):
        world = World(folder / str(at), seed)
        for _ in range(at):
            world.step()
        yield world
        world.close()


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: a killed process does not lose the page cache."""
    monkeypatch.setattr("os.fdatasync", lambda _: None)
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.mark.parametrize("seed", range(4))
def test_failover_at_every_delivery(tmp_path: Path, seed: int) -> None:
    """Killed after any delivery, the primary is replaced by its standby without losing anything accepted."""
    for world in after_every_delivery(tmp_path, seed):
        world.kill()
        log = journal.Journal(world.folder / "b", last_seq=world.standby.seq)
        judge(world, world.lead(world.standby, log))


@pytest.mark.parametrize("seed", range(4))
def test_restart_at_every_delivery(tmp_path: Path, seed: int) -> None:
    """Both engines killed after any delivery: the primary's own journal alone loses nothing accepted."""
    for world in after_every_delivery(tmp_path, seed):
        world.kill()
        state = State()
        for record, _ in journal.read(world.folder / "a", after=0):
            state.apply(record)
        log = journal.Journal(world.folder / "a", last_seq=state.seq)
        judge(world, world.lead(state, log))


@pytest.mark.parametrize("seed", range(4))
def test_all_disks_lost_at_every_delivery(tmp_path: Path, seed: int) -> None:
    """Both engines' and the router's disks lost: the exchange alone gives back what clients were told.

    A client that asks again gets its first outcome, and no second order goes out.
    """
    for world in after_every_delivery(tmp_path, seed):
        world.kill()
        while world.queues["fix"]:
            world.queues["fix"].popleft()()
        world.exchange.forget()
        desk = world.lead(State(), journal.Journal(world.folder / "cold", last_seq=0), deep=True)
        judge(world, desk)
        first, orders = dict(world.told), len(world.exchange.orders)
        for name, outcome in first.items():
            if not outcome.reason:
                desk.place(NewOrder("ALFA", "buy", 1, PRICE, name), reply=partial(world.hear, again=outcome))
        while world.step():
            pass
        assert len(world.exchange.orders) == orders


@pytest.mark.parametrize("seed", range(4))
def test_router_lost_at_every_delivery(tmp_path: Path, seed: int) -> None:
    """The router lost after any delivery.

    No order is sent late, sent twice, or given up although it was sent.
    """
    for world in after_every_delivery(tmp_path, seed):
        world.lose_router()
        world.recover(world.committer, world.desk)
        judge(world, world.desk, epoch=1)


@pytest.mark.parametrize("seed", range(4))
def test_risk_lost_at_every_delivery(tmp_path: Path, seed: int) -> None:
    """The risk manager lost after any delivery: the next one counts exactly what the engine has open."""
    for world in after_every_delivery(tmp_path, seed):
        world.lose_risk()
        world.recover(world.committer, world.desk)
        judge(world, world.desk, epoch=1)


def test_a_fenced_primary_sends_nothing(tmp_path: Path) -> None:
    """After the router is bound by a higher epoch nothing of the old primary reaches the exchange."""
    world = World(tmp_path, 1)
    while not world.exchange.orders:
        world.step()
    before = set(world.exchange.orders)
    world.exchange.epoch = 2
    while world.step():
        pass
    assert set(world.exchange.orders) == before


def test_nothing_is_told_before_the_standby_has_it(tmp_path: Path) -> None:
    """While the standby does not answer, no client is told of an acceptance and no order leaves."""
    world = World(tmp_path, 1)
    world.append = lambda *_: None  # type: ignore[method-assign]
    while world.step():
        pass
    assert world.told == {}
    assert world.exchange.orders == {}
    world.committer.needs_standby = False
    world.committer.release()
    while world.step():
        pass
    assert len(world.told) == ORDERS
