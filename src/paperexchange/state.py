"""What the exchange knows, made from ledger entries only.

The live exchange and a recovery run the very same `apply`, so that a recovered state cannot differ from
the live one. Books are not made from entries one by one: they follow from the open orders
(`open_orders`), which is what the venue does on recovery.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from paperexchange import facts as f
from paperexchange.model import (
    HOUSE_ACCOUNTS,
    Execution,
    Order,
    Phase,
    Position,
    average,
    sign,
)

_encode = msgspec.json.Encoder().encode


class Account:
    """Orders, fills and positions of one member (or of the house, which keeps no history)."""

    __slots__ = (
        "accepted",
        "by_cl_ord_id",
        "earlier",
        "executions",
        "fills",
        "history",
        "member",
        "name",
        "positions",
        "rejected",
    )

    def __init__(self, name: str) -> None:
        """Start flat."""
        self.name = name
        self.member = name not in HOUSE_ACCOUNTS
        self.by_cl_ord_id: dict[str, Order] = {}
        self.history: list[Order] = []
        self.earlier: list[Order] = []  # of days that are over; for the oracle only
        # Encoded once: a page of 20,000 is then a join, and a fill never changes.
        self.executions: list[bytes] = []
        self.fills = 0
        self.accepted = 0
        self.rejected = 0
        self.positions: dict[str, Position] = {}

    def position(self, symbol: str) -> Position:
        """Give the position in `symbol`, flat if there never was one."""
        found = self.positions.get(symbol)
        if found is None:
            found = self.positions[symbol] = Position()
        return found

    def accepted_after(self, seq: int, limit: int) -> list[Order]:
        """Give accepted orders with `accepted_seq` above `seq`, oldest first."""
        orders = self.history
        if self.earlier:
            orders = sorted([*self.earlier, *self.history], key=lambda order: order.accepted_seq)
        first = bisect_right(orders, seq, key=lambda order: order.accepted_seq)
        return orders[first : first + limit]

    def execution(self, exec_id: str) -> Execution | None:
        """Give the fill with that ExecID."""
        needle = f'"exec_id":"{exec_id}"'.encode()
        found = next((raw for raw in self.executions if needle in raw), None)
        return msgspec.json.decode(found, type=Execution) if found else None


class State:
    """Everything that survives a crash, except FIX session stores (which are made from the ledger too)."""

    def __init__(self) -> None:
        """Start before the first entry."""
        self.seq = 0
        self.runs = 0
        self.order_no = 0
        self.exec_no = 0
        self.match_no = 0
        self.md_seq = 0
        self.conn_no = 0
        self.day = 1
        self.phase: Phase = "pre_open"
        self.accounts: dict[str, Account] = {}
        self.orders: dict[str, Order] = {}
        self.last_price: dict[str, int] = {}
        self.last_order_mono_ns: dict[str, int] = {}
        self.promoted = False  # whether the backup gateway is in force
        self.busted: set[str] = set()
        # A corrected fill stands under the ExecID of its last correction: (first ExecID, price) by that.
        self._stands: dict[str, tuple[str, int]] = {}
        self._latest: dict[str, str] = {}
        self.scripts: dict[str, f.Scripted] = {}
        self._handlers: dict[type[f.Fact], Callable[[Any], None]] = {
            f.Started: self._started,
            f.OrderAccepted: self._accepted,
            f.OrderRejected: self._rejected,
            f.Fill: self._fill,
            f.CancelReceived: self._cancel_received,
            f.OrderCanceled: self._canceled,
            f.ReplaceReceived: self._replace_received,
            f.OrderReplaced: self._replaced,
            f.CancelRejected: self._cancel_rejected,
            f.OrderRestated: self._restated,
            f.TradeBusted: self._busted,
            f.TradeCorrected: self._corrected,
            f.BookChange: self._market_data,
            f.BookTrade: self._trade,
            f.PhaseChanged: self._phase,
            f.Scripted: self._scripted,
            f.SessionConnected: self._connected,
            f.GatewayPromoted: self._gateway_promoted,
        }

    def account(self, name: str) -> Account:
        """Give the account, made on first use."""
        found = self.accounts.get(name)
        if found is None:
            found = self.accounts[name] = Account(name)
        return found

    def open_orders(self) -> list[Order]:
        """Every open order in the order of its priority."""
        live = (order for order in self.orders.values() if order.leaves_quantity)
        return sorted(live, key=lambda order: order.priority)

    def apply(self, fact: f.Fact) -> None:
        """Take in one entry."""
        self.seq = fact.seq
        handler = self._handlers.get(type(fact))
        if handler is not None:
            handler(fact)

    def apply_all(self, entries: Iterable[f.Fact]) -> None:
        """Take in entries in order."""
        for entry in entries:
            self.apply(entry)

    def _started(self, fact: f.Started) -> None:
        self.runs = fact.run

    def _connected(self, fact: f.SessionConnected) -> None:
        self.conn_no = max(self.conn_no, fact.conn)

    def _gateway_promoted(self, fact: f.GatewayPromoted) -> None:
        self.promoted = fact.promoted

    def order(self, account: str, order_id: str) -> Order | None:
        """Give an order of this day or, of a member, of an earlier one."""
        found = self.orders.get(order_id)
        if found is None:
            found = next((o for o in self.account(account).earlier if o.order_id == order_id), None)
        return found

    def _accepted(self, fact: f.OrderAccepted) -> None:
        self.order_no += 1
        self.exec_no += 1
        account = self.account(fact.account)
        order = Order(
            order_id=fact.order_id,
            cl_ord_id=fact.cl_ord_id,
            account=fact.account,
            symbol=fact.symbol,
            side=fact.side,
            type=fact.type,
            tif=fact.tif,
            price=fact.price,
            quantity=fact.quantity,
            cum_quantity=0,
            leaves_quantity=fact.quantity,
            average_price=0,
            status="new",
            accepted_mono_ns=fact.mono_ns,
            accepted_seq=fact.seq,
            conn=fact.conn,
            priority=fact.seq,
            scripted=fact.scripted,
        )
        self.orders[fact.order_id] = order
        account.accepted += 1
        if account.member:
            account.by_cl_ord_id[fact.cl_ord_id] = order
            account.history.append(order)
            self.last_order_mono_ns[fact.account] = fact.mono_ns

    def _rejected(self, fact: f.OrderRejected) -> None:
        self.exec_no += 1
        self.account(fact.account).rejected += 1

    def _fill(self, fact: f.Fill) -> None:
        self.exec_no += 1
        self.match_no = fact.match_id
        order = self.orders[fact.order_id]
        order.cum_quantity = fact.cum_quantity
        order.leaves_quantity = fact.leaves_quantity
        order.notional = fact.notional
        order.average_price = average(fact.notional, fact.cum_quantity)
        if not order.leaves_quantity:
            order.status = "filled"
            self._close(order)
        elif order.status == "new":
            order.status = "partially_filled"
        self._book_fill(fact)

    def _book_fill(self, fact: f.Fill) -> None:
        account = self.account(fact.account)
        account.fills += 1
        position = account.position(fact.symbol)
        position.quantity += sign(fact.side) * fact.quantity
        position.cash -= sign(fact.side) * fact.quantity * fact.price
        if account.member:
            account.executions.append(_encode(execution_of(fact)))

    def _close(self, order: Order) -> None:
        """House orders are forgotten when closed; a member's are kept for the day's queries."""
        if not self.account(order.account).member:
            del self.orders[order.order_id]

    def _cancel_received(self, fact: f.CancelReceived) -> None:
        self.exec_no += 1
        self.orders[fact.order_id].status = "pending_cancel"

    def _replace_received(self, fact: f.ReplaceReceived) -> None:
        self.exec_no += 1
        self.orders[fact.order_id].status = "pending_replace"

    def _canceled(self, fact: f.OrderCanceled) -> None:
        self.exec_no += 1
        order = self.orders[fact.order_id]
        order.leaves_quantity = 0
        order.status = fact.status
        if fact.cl_ord_id:
            self.account(fact.account).by_cl_ord_id.setdefault(fact.cl_ord_id, order)
        self._close(order)

    def _replaced(self, fact: f.OrderReplaced) -> None:
        self.exec_no += 1
        order = self.orders[fact.order_id]
        order.cl_ord_id = fact.cl_ord_id
        order.price = fact.price
        order.quantity = fact.quantity
        order.leaves_quantity = fact.quantity - order.cum_quantity
        order.status = "partially_filled" if order.cum_quantity else "new"
        if not fact.keeps_priority:
            order.priority = fact.seq
        if not order.leaves_quantity:
            order.status = "filled"
        self.account(fact.account).by_cl_ord_id[fact.cl_ord_id] = order

    def _cancel_rejected(self, fact: f.CancelRejected) -> None:
        order = self.orders.get(fact.order_id)
        if order is not None and order.status in ("pending_cancel", "pending_replace"):
            order.status = "partially_filled" if order.cum_quantity else "new"

    def _restated(self, fact: f.OrderRestated) -> None:
        self.exec_no += 1
        order = self.orders[fact.order_id]
        order.quantity = fact.quantity
        order.leaves_quantity = fact.quantity - order.cum_quantity

    def _busted(self, fact: f.TradeBusted) -> None:
        self.exec_no += 1
        self.busted.add(self._stands.get(fact.ref_exec_id, (fact.ref_exec_id, 0))[0])
        self._take_back(fact.account, fact.order_id, fact.quantity, fact.price)
        order = self.order(fact.account, fact.order_id)
        if order is not None:
            order.cum_quantity -= fact.quantity
            order.average_price = average(order.notional, order.cum_quantity)
            self._reopen(order, fact.quantity)
        position = self.account(fact.account).position(fact.symbol)
        position.quantity -= sign(fact.side) * fact.quantity
        position.cash += sign(fact.side) * fact.quantity * fact.price

    def _reopen(self, order: Order, quantity: int) -> None:
        """Have an open order want a busted quantity again; one that was filled stays closed without it."""
        if order.leaves_quantity:
            order.leaves_quantity += quantity
            order.status = "partially_filled" if order.cum_quantity else "new"
        elif order.status == "filled":
            order.status = "canceled"

    def stands(self, account: str, exec_id: str) -> Execution | None:
        """Give a fill as it stands, by its ExecID or a correction's; None where there is none, or no more."""
        first = self._stands.get(exec_id, (exec_id, 0))[0]
        found = self.account(account).execution(first)
        if found is None or first in self.busted:
            return None
        latest = self._latest.get(first, first)
        price = self._stands[latest][1] if latest != first else found.price
        return msgspec.structs.replace(found, exec_id=latest, price=price)

    def _corrected(self, fact: f.TradeCorrected) -> None:
        self.exec_no += 1
        first = self._stands.get(fact.ref_exec_id, (fact.ref_exec_id, 0))[0]
        self._stands[fact.exec_id] = (first, fact.price)
        self._latest[first] = fact.exec_id
        self._take_back(fact.account, fact.order_id, fact.quantity, fact.was_price - fact.price)
        order = self.order(fact.account, fact.order_id)
        if order is not None:
            order.average_price = average(order.notional, order.cum_quantity)
        position = self.account(fact.account).position(fact.symbol)
        position.cash -= sign(fact.side) * fact.quantity * (fact.price - fact.was_price)

    def _take_back(self, account: str, order_id: str, quantity: int, price: int) -> None:
        order = self.order(account, order_id)
        if order is not None and order.account == account:
            order.notional -= quantity * price

    def _market_data(self, fact: f.BookChange) -> None:
        self.md_seq = fact.md_seq

    def _trade(self, fact: f.BookTrade) -> None:
        self.md_seq = fact.md_seq
        self.last_price[fact.symbol] = fact.price

    def _scripted(self, fact: f.Scripted) -> None:
        """Keep the newest entry of a script: armed first, bound to an order later."""
        self.scripts[fact.id] = fact

    def _phase(self, fact: f.PhaseChanged) -> None:
        """Forget the old day's ClOrdIDs and closed orders on a new day; fills and positions stay."""
        if fact.day > self.day:
            for account in self.accounts.values():
                account.by_cl_ord_id.clear()
                account.earlier += [order for order in account.history if not order.open]
                account.history = [order for order in account.history if order.open]
                account.by_cl_ord_id.update({order.cl_ord_id: order for order in account.history})
            self.orders = {key: order for key, order in self.orders.items() if order.open}
        self.day = fact.day
        self.phase = fact.phase


def execution_of(fact: f.Fill) -> Execution:
    """Give a fill as members see it."""
    return Execution(
        exec_id=fact.exec_id,
        exec_seq=fact.exec_seq,
        account=fact.account,
        order_id=fact.order_id,
        cl_ord_id=fact.cl_ord_id,
        symbol=fact.symbol,
        side=fact.side,
        quantity=fact.quantity,
        price=fact.price,
        cum_quantity=fact.cum_quantity,
        leaves_quantity=fact.leaves_quantity,
        mono_ns=fact.mono_ns,
        wall_ns=fact.wall_ns,
    )
