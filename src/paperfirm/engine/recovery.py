"""From a rebuilt state to a state that may trade.

Settle what was in flight, reconcile with the exchange, validate.

Every recovery runs the same steps and ends in the same three events: `engine_ready`, `state_validated`,
`trading_started`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from paperfirm import wire
from paperfirm.engine import decide
from paperfirm.engine import events as ev
from paperfirm.engine.books import Position, book
from paperfirm.engine.database import History
from paperfirm.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from paperfirm.engine.desk import Desk
    from paperfirm.engine.links import RiskPeer, RouterPeer
    from paperfirm.engine.member import ExchangePosition, Member
    from paperfirm.engine.state import Order, State

    Emit = Callable[..., int]

ANSWER_LIMIT_S = 1.0
AGREE_LIMIT_S = 3.0
POLL_S = 0.002
PORTION = 1_000


class Tally(msgspec.Struct):
    """What a reconciliation did."""

    unsent: int = 0
    asked: int = 0
    late_executions: int = 0
    adopted_orders: int = 0
    rounds: int = 0


def self_check(state: State) -> list[str]:
    """Find where the state disagrees with itself: positions against executions, totals against fills."""
    rebuilt: dict[str, Position] = {}
    filled: dict[str, int] = {}
    for one in state.executions:
        if not one.busted:
            book(rebuilt.setdefault(one.symbol, Position(one.symbol)), one.side, one.quantity, one.price)
            filled[one.cl_ord_id] = filled.get(one.cl_ord_id, 0) + one.quantity
    findings = [
        f"{symbol}: books say {position.quantity}/{position.cash}, executions {want.quantity}/{want.cash}"
        for symbol, position in state.positions.items()
        if (want := rebuilt.get(symbol, Position(symbol))) != position
    ]
    findings += [
        f"{order.cl_ord_id}: {order.cum_quantity} filled, executions say {filled.get(order.cl_ord_id, 0)}"
        for order in state.open_orders.values()
        if order.cum_quantity != filled.get(order.cl_ord_id, 0)
    ]
    return findings


def compare_positions(state: State, exchange: dict[str, ExchangePosition]) -> list[str]:
    """Find where the exchange's positions or cash differ from ours."""
    findings = []
    for symbol in sorted(set(exchange) | set(state.positions)):
        ours = state.positions.get(symbol) or Position(symbol)
        theirs = exchange.get(symbol)
        there = (theirs.quantity, theirs.cash) if theirs is not None else (0, 0)
        if (ours.quantity, ours.cash) != there:
            findings.append(f"{symbol}: here {ours.quantity}/{ours.cash}, exchange {there[0]}/{there[1]}")
    return findings


def compare_orders(state: State, at_exchange: list[decide.ExchangeOrder]) -> list[str]:
    """Find where the exchange has an open order that is not open here, or the other way round."""
    theirs = {order.cl_ord_id for order in at_exchange}
    missing = sorted(theirs - set(state.open_orders))
    gone = sorted(
        one.cl_ord_id for one in state.open_orders.values() if one.order_id and one.cl_ord_id not in theirs
    )
    return [f"open at the exchange only: {one}" for one in missing] + [
        f"open here only: {one}" for one in gone
    ]


class Recovery:
    """Runs a recovery; every await may end in EngineError, after which it is run again from the start."""

    def __init__(
        self,
        desk: Desk,
        router: RouterPeer,
        risk: RiskPeer,
        member: Member,
        *,
        emit: Emit,
        history: Callable[[], Awaitable[History]],
    ) -> None:
        self._desk = desk
        self._state = desk.state
        self._router = router
        self._risk = risk
        self._member = member
        self._emit = emit
        self._history = history
        self._thorough = False
        self.tally = Tally()
        self._runs = 0

    async def run(self, *, deep: bool, thorough: bool) -> None:
        """Settle, reconcile, validate; returns when the state may trade.

        `deep`: take up everything that exchange and database have (nothing or damaged files were found).
        `thorough`: rebuild all positions from the executions besides (the state was read from disk).
        """
        self.tally = Tally()
        self._thorough = thorough or deep
        self._runs += 1
        run = f"{self._state.epoch}-{self._runs}"
        self._emit("reconciliation_started", id=run, deep=deep, exec_seq=self._state.exec_seq)
        await self._settle()
        if deep:
            await self._take_up_everything()
        await self._executions()
        await self._answered()
        self._emit("reconciliation_finished", id=run, **msgspec.to_builtins(self.tally))
        await self._durable()
        self._emit("engine_ready", seq=self._state.seq)
        await self._validate()
        self._emit("state_validated", checks=4, rounds=self.tally.rounds, seq=self._state.seq)

    async def _settle(self) -> None:
        """Orders that never reached the FIX store are given up; of the others the exchange is asked."""
        waiting = [order.cl_ord_id for order in self._state.unresolved()]
        if waiting:
            known = await self._router.known(waiting)
            gone = self._desk.close_unsent(set(waiting) - known)
            self.tally.unsent += len(gone)
            for cl_ord_id in gone:
                self._emit("order_unsent", cl_ord_id=cl_ord_id)
        self._ask()

    def _ask(self) -> None:
        for order in self._uncertain():
            self.tally.asked += 1
            self._router.send(wire.StatusRequest(order.cl_ord_id, order.symbol, order.side))

    def _uncertain(self) -> list[Order]:
        doubtful = {"pending_new", "pending_cancel", "pending_replace"}
        return [order for order in self._state.open_orders.values() if order.status in doubtful]

    async def _take_up_everything(self) -> None:
        """Orders first, so that the fills find them; their ClOrdIDs tell what the clients called them.

        What the database has beyond that is reported, and it knows which orders were refused.
        """
        orders = await self._member.orders(only_open=False)
        history = await self._history() if orders else History()
        found = decide.missing_orders(self._state, orders)
        self.tally.adopted_orders += sum(isinstance(event, ev.OrderAdopted) for event in found)
        await self._book(found)
        await self._executions()
        await self._book(
            [
                ev.ClientRefused(name, reason)
                for name, reason in history.refused.items()
                if name not in self._state.by_client
            ]
        )
        if found:
            self._risk.refresh()
        self._check_against(history)

    def _check_against(self, history: History) -> None:
        """Report what the database has and the exchange has not."""
        fills = sorted(one for one in history.executions if not self._state.knows(one.removeprefix("bust-")))
        orders = sorted(history.at_exchange - self._state.orders.keys())
        if fills or orders:
            first = [*fills[:10], *orders[:10]]
            self._emit("database_ahead", executions=len(fills), orders=len(orders), first=first)

    async def _executions(self) -> None:
        """Book what the exchange has after our cursor and we have not.

        Risk gets a fresh snapshot if it was much.
        """
        bulk = 0
        while True:
            page = await self._member.executions(self._state.exec_seq)
            found = decide.missing_executions(self._state, page.executions)
            self.tally.late_executions += sum(isinstance(event, ev.Executed) for event in found)
            bulk += len(found)
            await self._book(found)
            if page.next > self._state.exec_seq:
                self._desk.committer.submit(ev.Reconciled(page.next))
            if page.next >= page.last or not page.executions:
                break
        if bulk:
            self._risk.refresh()

    async def _book(self, found: list[ev.Event]) -> None:
        """Journal in portions, so that links and clients are not left alone for long."""
        for number, event in enumerate(found, start=1):
            self._desk.committer.submit(event)
            if number % PORTION == 0:
                await asyncio.sleep(0)

    async def _answered(self) -> None:
        """Wait for the exchange's answers to our status requests.

        Raises EngineError when it owes them too long.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + ANSWER_LIMIT_S
        while self._uncertain():
            self._still_connected()
            if loop.time() > until_s:
                names = ", ".join(order.cl_ord_id for order in self._uncertain()[:5])
                raise EngineError(f"no answer to the status requests for {names} within {ANSWER_LIMIT_S} s")
            await asyncio.sleep(POLL_S)

    def _still_connected(self) -> None:
        if not (self._router.up and self._router.session_up and self._risk.up):
            raise EngineError(
                "router, exchange session or risk was lost during recovery; it begins again with them"
            )

    async def _durable(self) -> None:
        done = asyncio.Event()
        self._desk.committer.then(done.set)
        await done.wait()

    async def _validate(self) -> None:
        """Agree with ourselves and with the exchange. Fills may still arrive: look again until the limit."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + AGREE_LIMIT_S
        while findings := await self._findings():
            self._still_connected()
            if loop.time() > until_s:
                self._emit("validation_failed", findings=findings[:20])
                raise EngineError(f"state not validated: {'; '.join(findings[:3])}")
            await asyncio.sleep(POLL_S * min(self.tally.rounds, 25))
            await self._executions()

    async def _findings(self) -> list[str]:
        self.tally.rounds += 1
        before = self._state.seq
        positions, orders = await asyncio.gather(
            self._member.positions(), self._member.orders(only_open=True)
        )
        findings = compare_positions(self._state, positions) + compare_orders(self._state, orders)
        if self._thorough and not findings and self._state.seq == before:
            findings = self_check(self._state)
        if findings and self.tally.rounds % 10 == 0:
            await self._heal(orders)
        return findings

    async def _heal(self, at_exchange: list[decide.ExchangeOrder]) -> None:
        """Differences that stay are taken up from the exchange.

        Unknown orders, and the fate of ours that it lacks.
        """
        for event in decide.missing_orders(self._state, at_exchange):
            self._desk.take(event)
        theirs = {order.cl_ord_id for order in at_exchange}
        for order in list(self._state.open_orders.values()):
            if order.cl_ord_id not in theirs:
                self._router.send(wire.StatusRequest(order.cl_ord_id, order.symbol, order.side))
