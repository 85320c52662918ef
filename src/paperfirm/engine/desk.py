"""The trading desk: takes orders, has them approved, journals them, sends them; takes reports up.

No I/O; the clock comes in.

An order is journalled and checked by risk at the same time. When it is durable everywhere and approved, it
goes to the router. The client is answered once the exchange has spoken and that is durable too: what it was
told is then known to the exchange, by the client's own id in the ClOrdID, and outlives all disks of the firm.
Whatever interrupts this leaves an order with a fate that recovery settles, and the client unanswered until
then.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Literal

import msgspec

from paperfirm import wire
from paperfirm.engine import decide
from paperfirm.engine import events as ev

if TYPE_CHECKING:
    from collections.abc import Callable

    from paperfirm.engine.commit import Committer
    from paperfirm.engine.state import Order, State

    Reply = Callable[["Outcome"], None]
    ToPeer = Callable[[wire.Message], None]

MAX_QUANTITY = 1_000_000_000
CLIENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,40}")
"""A client's id becomes the end of the ClOrdID, which the exchange limits to 64 characters."""
PATHS = 8192


class NewOrder(msgspec.Struct, frozen=True):
    """What a client (or the strategy, without an id) asks for.

    `price` None is a market order, prices in ticks.
    """

    symbol: str
    side: ev.Side
    quantity: int
    price: int | None = None
    client_order_id: str = ""
    tif: Literal["day", "ioc"] = "day"


class Outcome(msgspec.Struct, frozen=True):
    """The one answer to a new order: `reason` is empty when it was accepted."""

    client_order_id: str
    cl_ord_id: str
    reason: str = ""


def decided(order: Order) -> bool:
    """Whether it is known if the exchange has taken the order."""
    return order.accepted or not order.open


def outcome_of(order: Order) -> Outcome:
    """Return the answer to a decided order; the first outcome never changes."""
    if order.accepted:
        return Outcome(order.client_order_id, order.cl_ord_id)
    return Outcome(order.client_order_id, "", order.reason or "rejected")


class Counters(msgspec.Struct):
    """What the desk has done since it started."""

    accepted: int = 0
    refused: int = 0
    reports: int = 0
    unsent: int = 0
    repeated: int = 0
    risk_wait_ns: int = 0
    """Time from `Check` to the answer, summed."""
    path_ns: int = 0
    """Time from taking an order in to handing it to the router, summed over `accepted`."""


class _Asked(msgspec.Struct):
    """An order that waits for the journal, for risk, or for both."""

    cl_ord_id: str
    order: NewOrder
    origin: ev.Origin
    reply: Reply | None
    asked_ns: int
    durable: bool = False
    approved: bool = False


class Desk:
    """Everything a primary does with orders.

    `trading` opens and closes the intake; `connected` lets cancels pass.
    """

    def __init__(
        self,
        state: State,
        committer: Committer,
        *,
        symbols: frozenset[str],
        to_risk: ToPeer,
        to_router: ToPeer,
        on_change: Callable[[Order], None],
        clock: Callable[[], int],
    ) -> None:
        self.state = state
        self.committer = committer
        self.trading = False
        self.connected = False
        self.halted_because = "starting"
        self.halted_symbols: dict[str, str] = {}
        """Symbols in which nothing new is taken, and why."""
        self.counters = Counters()
        self.reference: dict[str, int] = {}
        self._symbols = symbols
        self._to_risk = to_risk
        self._to_router = to_router
        self._on_change = on_change
        self._mono = clock
        self._asked: dict[str, _Asked] = {}
        self._asked_clients: dict[str, str] = {}
        self._owed: dict[str, Reply] = {}
        self._number = 0
        self.paths_ns: deque[int] = deque(maxlen=PATHS)
        """The newest times from taking an order in to handing it to the router."""

    def next_id(self, kind: Literal["C", "S", "X"], client_order_id: str = "") -> str:
        """Return a ClOrdID that no epoch has used: `EPOCH-KNNNNNNN`, of a client's order with `-CLIENTID`."""
        self._number += 1
        own = f"-{client_order_id}" if client_order_id else ""
        return f"{self.state.epoch}-{kind}{self._number:07d}{own}"

    # --- intake ---

    def place(self, order: NewOrder, *, origin: ev.Origin = "client", reply: Reply | None = None) -> str:
        """Take an order in; the outcome comes through `reply`, once, and only when it is durable.

        To a client it is the exchange's answer, to the strategy that the order was sent.
        Returns the ClOrdID it will have if it is accepted, empty if it was answered otherwise.
        """
        if order.client_order_id and self._repeated(order.client_order_id, reply):
            return ""
        reason = self._obstacle(order)
        if reason is not None:
            self._refuse(order.client_order_id, reason, reply)
            return ""
        cl_ord_id = self.next_id("C" if origin == "client" else "S", order.client_order_id)
        asked = _Asked(cl_ord_id, order, origin, reply, self._mono())
        self._asked[asked.cl_ord_id] = asked
        if order.client_order_id:
            self._asked_clients[order.client_order_id] = asked.cl_ord_id
        self._enter(asked)
        return asked.cl_ord_id

    def _enter(self, asked: _Asked) -> None:
        """Ask risk first: its answer travels while the journal is synced."""
        order, cl_ord_id = asked.order, asked.cl_ord_id
        price = order.price if order.price is not None else self.reference.get(order.symbol, 0)
        self._to_risk(wire.Check(cl_ord_id, order.symbol, order.side, order.quantity, price))
        self.committer.submit(
            ev.OrderEntered(
                cl_ord_id,
                order.client_order_id,
                asked.origin,
                order.symbol,
                order.side,
                order.tif,
                order.price,
                order.quantity,
            ),
            lambda: self._durable(cl_ord_id),
        )

    def _obstacle(self, order: NewOrder) -> str | None:
        if not self.trading:
            return f"not trading: {self.halted_because}"
        if order.symbol not in self._symbols:
            return f"unknown symbol {order.symbol}"
        if order.symbol in self.halted_symbols:
            return f"symbol halted: {self.halted_symbols[order.symbol]}"
        if not 0 < order.quantity <= MAX_QUANTITY:
            return f"quantity {order.quantity} is not between 1 and {MAX_QUANTITY}"
        if order.price is not None and order.price <= 0:
            return f"price {order.price} is not positive"
        return None

    def _repeated(self, client_order_id: str, reply: Reply | None) -> bool:
        """Answer a known client_order_id with its first outcome.

        An order without an outcome so far will be answered by that.
        """
        order = self.state.orders.get(self.state.by_client.get(client_order_id, ""))
        reason = self.state.refusals.get(client_order_id)
        if client_order_id in self._asked_clients:
            self._join(client_order_id, reply)
        elif reason is not None:
            self._answer(reply, Outcome(client_order_id, "", reason))
        elif order is None:
            return False
        else:
            self._repeat(order, reply)
        self.counters.repeated += 1
        return True

    def _repeat(self, order: Order, reply: Reply | None) -> None:
        if not decided(order):
            if reply is not None:
                self._owed[order.cl_ord_id] = reply
            return
        self._answer(reply, outcome_of(order))
        if order.accepted:
            self.committer.then(lambda: self._on_change(order))

    def _join(self, client_order_id: str, reply: Reply | None) -> None:
        """Tell the newest asker, no other."""
        self._asked[self._asked_clients[client_order_id]].reply = reply

    def _answer(self, reply: Reply | None, outcome: Outcome) -> None:
        """Answer when it is durable; while the disk is full a refusal must do without."""
        if reply is not None and self.committer.full and outcome.reason:
            reply(outcome)
        elif reply is not None:
            self.committer.then(lambda: reply(outcome))

    def _refuse(self, client_order_id: str, reason: str, reply: Reply | None) -> None:
        self.counters.refused += 1
        if client_order_id:
            self.committer.submit(ev.ClientRefused(client_order_id, reason))
        self._answer(reply, Outcome(client_order_id, "", reason))

    # --- risk and journal ---

    def approved(self, cl_ord_id: str) -> None:
        """Note that risk agrees."""
        asked = self._asked.get(cl_ord_id)
        if asked is not None:
            asked.approved = True
            self.counters.risk_wait_ns += self._mono() - asked.asked_ns
            self._send(asked)

    def _durable(self, cl_ord_id: str) -> None:
        """Note that the journals have it."""
        asked = self._asked.get(cl_ord_id)
        if asked is not None:
            asked.durable = True
            self._send(asked)

    def refused(self, cl_ord_id: str, reason: str) -> None:
        """Give an order up that risk objects to."""
        if cl_ord_id in self._asked:
            self._give_up(cl_ord_id, f"risk: {reason}")

    def _give_up(self, cl_ord_id: str, reason: str) -> None:
        """End an order that was entered but not accepted."""
        asked = self._taken_back(cl_ord_id)
        self.committer.submit(ev.OrderClosed(cl_ord_id, "rejected", reason))
        self._to_risk(wire.Closed(cl_ord_id))
        self._refuse(asked.order.client_order_id, reason, asked.reply)

    def _taken_back(self, cl_ord_id: str) -> _Asked:
        asked = self._asked.pop(cl_ord_id)
        self._asked_clients.pop(asked.order.client_order_id, None)
        return asked

    def _send(self, asked: _Asked) -> None:
        """Send once the order is durable and approved; a halt in between has given it up."""
        if not (asked.durable and asked.approved):
            return
        self._taken_back(asked.cl_ord_id)
        order = self.state.orders[asked.cl_ord_id]
        self.counters.accepted += 1
        path_ns = self._mono() - asked.asked_ns
        self.counters.path_ns += path_ns
        self.paths_ns.append(path_ns)
        self._to_router(
            wire.Send(order.cl_ord_id, order.symbol, order.side, order.quantity, order.price, order.tif)
        )
        if asked.reply is None:
            return
        if asked.origin == "client":
            self._owed[order.cl_ord_id] = asked.reply
        else:
            asked.reply(Outcome(order.client_order_id, order.cl_ord_id))

    def path_ns(self, part: float) -> int:
        """Return a quantile of the newest times from order in to router; 0 when there are none."""
        times = sorted(self.paths_ns)
        return times[min(int(len(times) * part), len(times) - 1)] if times else 0

    # --- cancels ---

    def cancel(self, cl_ord_id: str) -> str | None:
        """Ask the exchange to cancel; returns why not, or None."""
        order = self.state.open_orders.get(cl_ord_id)
        if order is None:
            return "no such open order"
        if not self.connected:
            return f"not connected: {self.halted_because}"
        if order.status not in decide.RESTING:
            return f"order is {order.status}"
        request = wire.Cancel(self.next_id("X"), cl_ord_id, order.symbol, order.side, order.quantity)
        self.committer.submit(ev.CancelRequested(cl_ord_id), lambda: self._to_router(request))
        return None

    # --- halts ---

    def halt(self, reason: str) -> bool:
        """Close the intake; orders at risk are refused. Returns whether it was open."""
        was = self.trading
        self.trading = False
        self.halted_because = reason
        for cl_ord_id in list(self._asked):
            self._give_up(cl_ord_id, f"not trading: {reason}")
        return was

    def resume(self) -> None:
        """Open the intake, and answer what recovery has settled in bulk."""
        self.trading = True
        self.halted_because = ""
        self.committer.then(self._settle_all)

    def _settle_all(self) -> None:
        for cl_ord_id in list(self._owed):
            self._settled(self.state.orders[cl_ord_id])

    # --- reports ---

    def inbound(self, message: wire.Inbound) -> None:
        """Take up one message of the exchange."""
        self.counters.reports += 1
        for event in decide.on_report(self.state, message.router_seq, message.report, late=message.late):
            self.take(event)

    def take(self, event: ev.Event) -> None:
        """Journal an event about an order or a fill and tell risk and client once it is durable."""
        self.committer.submit(event, self._consequence(event))

    def _consequence(self, event: ev.Event) -> Callable[[], None] | None:
        if isinstance(event, ev.Executed):
            return lambda: self._booked(event)
        if isinstance(event, ev.Busted):
            return lambda: self._bust(event)
        if isinstance(event, ev.OrderAdopted):
            return lambda: self._adopted(event)
        if isinstance(event, ev.OrderUpdated | ev.OrderClosed):
            return lambda: self._changed(event.cl_ord_id)
        return None

    def _booked(self, event: ev.Executed) -> None:
        self._to_risk(wire.Booked(event.cl_ord_id, event.symbol, event.side, event.quantity, event.price))
        self._changed(event.cl_ord_id)

    def _adopted(self, event: ev.OrderAdopted) -> None:
        """Count an order against the limits that risk was never asked about."""
        order = self.state.orders[event.cl_ord_id]
        price = order.price if order.price is not None else self.reference.get(order.symbol, 0)
        leaves = order.quantity if order.status != "rejected" else 0
        self._to_risk(wire.Adopted(order.cl_ord_id, order.symbol, order.side, leaves, price))
        self._changed(event.cl_ord_id)

    def _bust(self, event: ev.Busted) -> None:
        one = self.state.by_exec.get(event.exec_ref_id)
        if one is not None and one.bust_id == event.exec_id:
            self._to_risk(wire.Booked(one.cl_ord_id, one.symbol, one.side, -one.quantity, one.price))
            self._changed(one.cl_ord_id)

    def _changed(self, cl_ord_id: str) -> None:
        order = self.state.orders.get(cl_ord_id)
        if order is None:
            return
        if not order.open:
            self._to_risk(wire.Closed(cl_ord_id))
        self._settled(order)
        self._on_change(order)

    def _settled(self, order: Order) -> None:
        """Give the client the answer it waits for, if there is one now."""
        if decided(order) and order.cl_ord_id in self._owed:
            self._owed.pop(order.cl_ord_id)(outcome_of(order))

    def unsent(self, message: wire.Unsent) -> None:
        """Take note that the router could not send.

        An order ends here, a cancel is taken back by the status request of recovery.
        """
        self.counters.unsent += 1
        order = self.state.open_orders.get(message.cl_ord_id)
        if order is not None and order.status == "pending_new":
            self.take(ev.OrderClosed(order.cl_ord_id, "rejected", f"not sent: {message.reason}"))

    def close_unsent(self, cl_ord_ids: set[str]) -> list[str]:
        """Give up orders that never reached the FIX store; returns those that were still waiting."""
        gone = [order.cl_ord_id for order in self.state.unresolved() if order.cl_ord_id in cl_ord_ids]
        for cl_ord_id in gone:
            self.take(ev.OrderClosed(cl_ord_id, "rejected", "not sent before failure"))
        return gone
