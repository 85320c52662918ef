"""Damage in memory: told, symbols halted, the truth fetched from the exchange, put right (R39, R40).

A row in shared memory that is not what it must be, or a position that is not the exchange's, says only that
something is wrong somewhere: the row, or the state behind it. So the books are made anew from the executions,
and only what the exchange confirms is put back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from paperfirm import wire
from paperfirm.engine.errors import EngineError
from paperfirm.engine.recovery import compare_orders
from paperfirm.engine.state import rebuild
from paperfirm.sharedtable import FREE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from paperfirm.alerts import Alerts
    from paperfirm.engine.desk import Desk
    from paperfirm.engine.links import RouterPeer
    from paperfirm.engine.member import Member
    from paperfirm.engine.sharedmem import SharedMemory
    from paperfirm.sharedtable import Damage, Where

AGREE_LIMIT_S = 3.0
POLL_S = 0.02


class MemoryGuard:
    """Puts damaged memory right, one trouble at a time; `recover` is the last resort: everything anew."""

    def __init__(
        self,
        desk: Desk,
        member: Member,
        router: RouterPeer,
        memory: Callable[[], SharedMemory],
        *,
        emit: Callable[..., int],
        alerts: Alerts,
        recover: Callable[[str], None],
    ) -> None:
        self._desk = desk
        self._state = desk.state
        self._member = member
        self._router = router
        self._memory = memory
        self._emit = emit
        self._alerts = alerts
        self._recover = recover
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.corrected = 0

    def positions(self, damage: Iterable[Damage]) -> None:
        """Take up damaged positions."""
        for key, where in damage:
            self.position(key, where)

    def position(self, symbol: str, where: Where) -> None:
        """Halt a symbol until its position is right again."""
        if self._busy(symbol):
            return
        if symbol == FREE:
            text = "shared memory: a row of positions that nobody uses is not empty"
        else:
            text = f"position of {symbol} in memory is damaged ({where}); corrected from the exchange"
            self._halt(symbol, "position in memory damaged")
        self._alerts.sound("position_corrupt", text, key=symbol, symbol=symbol, where=where)
        self._tasks[symbol] = asyncio.create_task(self._correct(symbol))

    def orders(self, damage: list[Damage]) -> None:
        """Halt the symbols of damaged orders until the book of orders is right again."""
        if not damage or self._busy("orders"):
            return
        keys = [one.key for one in damage]
        orders = [self._state.orders[key] for key in keys if key in self._state.orders]
        symbols = {order.symbol for order in orders}
        text = f"{len(keys)} rows of the book of open orders in memory are damaged; rebuilt from the exchange"
        detail: dict[str, Any] = {"rows": len(keys), "first": keys[:10], "symbols": sorted(symbols)}
        self._alerts.sound("order_book_corrupt", text, **detail)
        for symbol in sorted(symbols):
            self._halt(symbol, "order book in memory damaged")
        for order in orders:
            self._router.send(wire.StatusRequest(order.cl_ord_id, order.symbol, order.side))
        self._tasks["orders"] = asyncio.create_task(self._rebuild(symbols))

    def _busy(self, what: str) -> bool:
        task = self._tasks.get(what)
        return task is not None and not task.done()

    def _halt(self, symbol: str, reason: str) -> None:
        if symbol not in self._desk.halted_symbols:
            self._desk.halted_symbols[symbol] = reason
            self._emit("symbol_halted", symbol=symbol, reason=reason)

    def _resume(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            if self._desk.halted_symbols.pop(symbol, None) is not None:
                self._emit("symbol_resumed", symbol=symbol)

    async def _correct(self, symbol: str) -> None:
        while symbol != FREE and not await self._agreed(lambda: self._position_agrees(symbol)):
            self._recover(f"position of {symbol} does not agree with the exchange")
        self._memory().load_positions()
        self.corrected += 1
        if symbol != FREE:
            quantity = self._state.positions[symbol].quantity
            self._emit("position_corrected", symbol=symbol, quantity=quantity, source="exchange")
            self._resume([symbol])
        self._alerts.clear("position_corrupt", symbol)

    async def _position_agrees(self, symbol: str) -> bool:
        """Make the position anew from the executions; if the exchange confirms it, it is the position."""
        theirs = (await self._member.positions()).get(symbol)
        ours = rebuild(symbol, self._state.executions)
        if theirs is None or (ours.quantity, ours.cash) != (theirs.quantity, theirs.cash):
            return False
        self._state.positions[symbol] = ours
        return True

    async def _rebuild(self, symbols: set[str]) -> None:
        while not await self._agreed(lambda: self._orders_agree(symbols)):
            self._recover("the book of open orders does not agree with the exchange")
        self._memory().load_orders()
        self.corrected += 1
        self._emit("order_book_rebuilt", orders=len(self._state.open_orders), source="exchange")
        self._resume(sorted(symbols))
        self._alerts.clear("order_book_corrupt")

    async def _orders_agree(self, symbols: set[str]) -> bool:
        theirs = await self._member.orders(only_open=True)
        found = compare_orders(self._state, theirs)
        names = {order.cl_ord_id for order in theirs if order.symbol in symbols}
        names |= {one.cl_ord_id for one in self._state.open_orders.values() if one.symbol in symbols}
        return not any(finding.rpartition(" ")[2] in names for finding in found)

    async def _agreed(self, look: Callable[[], Awaitable[bool]]) -> bool:
        """Look until it agrees: fills may be on their way. False when they never do."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + AGREE_LIMIT_S
        while loop.time() < until_s:
            try:
                if await look():
                    return True
            except EngineError as error:
                self._emit("reconciliation_failed", reason=str(error))
            await asyncio.sleep(POLL_S)
        return False

    def stop(self) -> None:
        """Leave everything as it is: a recovery will look at all of it."""
        for task in self._tasks.values():
            task.cancel()
