"""The market's phases as the firm sees them, and the settlement of a day, once however often begun (R37).

The exchange ends day orders when it settles. The firm waits until it knows the fate of each of its own, takes
up every fill, compares the positions, writes the day's statement for those outside, and only then journals
`DaySettled`, which is applied once a day. A crash before that settles nothing; the next primary begins again,
comes to the same result and writes the same statement.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from paperfirm import wire
from paperfirm.config import write_atomically
from paperfirm.engine import events as ev
from paperfirm.engine.errors import EngineError
from paperfirm.engine.member import Phase
from paperfirm.engine.recovery import compare_positions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from paperfirm.engine.desk import Desk
    from paperfirm.engine.links import RouterPeer
    from paperfirm.engine.member import Member
    from paperfirm.engine.state import State

LOOK_S = 0.25
AGAIN_S = 0.05
ASK_EVERY = 10
SETTLEMENT = "settlement"
CLOSED = frozenset({"close", SETTLEMENT})
"""Phases in which the exchange takes no orders."""


def day_settled(state: State, day: int) -> ev.DaySettled:
    """Close the day: what was earned since the last close, and what is carried over. Pure."""
    earned = {one.symbol: one.realised for one in state.positions.values()}
    for former in state.settlements.values():
        for symbol, realised in former.realised.items():
            earned[symbol] = earned.get(symbol, 0) - realised
    carried = {one.symbol: one.quantity for one in state.positions.values()}
    return ev.DaySettled(day, earned, carried)


def write_statement(folder: Path, event: ev.DaySettled) -> Path:
    """Write what a day came to, for whoever does the firm's books; wholly there or not at all.

    Raises EngineError when the disk does not take it: the day is settled later.
    """
    path = folder / f"day-{event.day}.json"
    content = {
        "day": event.day,
        "realised": sum(event.realised.values()),
        "by_symbol": event.realised,
        "positions": event.positions,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".{path.name}.*.tmp"):  # of a crash in the midst of it
            left.unlink()
        write_atomically(path, msgspec.json.encode(content))
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}; the day is settled once it can be written") from error
    return path


class Settlement:
    """Watches the exchange's phase while the engine leads, and settles each day once."""

    def __init__(
        self,
        desk: Desk,
        member: Member,
        router: RouterPeer,
        *,
        emit: Callable[..., int],
        statements: Path,
        take_up: Callable[[], object],
        on_phase: Callable[[str], None],
    ) -> None:
        self._desk = desk
        self._state = desk.state
        self._member = member
        self._router = router
        self._emit = emit
        self._statements = statements
        self._take_up = take_up
        self._on_phase = on_phase
        self.phase = Phase()

    async def run(self) -> None:
        """Watch for ever; cancel to stop."""
        while True:
            try:
                await self._look()
            except EngineError as error:
                self._emit("reconciliation_failed", reason=str(error))
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        now = await self._member.phase()
        if now != self.phase:
            self.phase = now
            self._emit("market_phase", phase=now.phase, day=now.day)
            self._on_phase(now.phase)
            self._tell_found(now)
        if now.phase == SETTLEMENT and now.day not in self._state.settlements and self._desk.trading:
            await self._settle(now.day)

    def _tell_found(self, now: Phase) -> None:
        """Tell of a settlement that was durable before this engine led: its end may never have been told."""
        close = self._state.settlements.get(now.day)
        if now.phase == SETTLEMENT and close is not None:
            realised = sum(close.realised.values())
            self._emit("settlement_found", day=now.day, realised=realised, positions=close.positions)

    async def _settle(self, day: int) -> None:
        """Return when the day is settled, or not any more to be: trading was halted, the phase is over."""
        open_before = {order.cl_ord_id for order in self._state.open_orders.values()}
        self._emit("settlement_started", day=day, open_orders=len(open_before))
        looks = 0
        while not await self._quiet(ask=looks % ASK_EVERY == 0):
            looks += 1
            await asyncio.sleep(AGAIN_S)
            if not self._desk.trading or (await self._member.phase()).day != day:
                self._emit("settlement_interrupted", day=day)
                return
        event = day_settled(self._state, day)
        path = write_statement(self._statements, event)
        done = asyncio.Event()
        self._desk.committer.submit(event, done.set)
        await done.wait()
        ended = [one for name in open_before if (one := self._state.orders.get(name)) is not None]
        self._emit(
            "settlement_finished",
            day=day,
            realised=sum(event.realised.values()),
            positions=event.positions,
            ended_orders=sum(not order.open for order in ended),
            statement=str(path),
        )

    async def _quiet(self, *, ask: bool) -> bool:
        """Whether no order is open any more and the positions are the exchange's; ask for orders in doubt."""
        self._take_up()
        # What the exchange never had is refused by it now, and no concern of the day.
        left = [order for order in self._state.open_orders.values() if order.order_id]
        if ask:
            for order in left:
                self._router.send(wire.StatusRequest(order.cl_ord_id, order.symbol, order.side))
        if left:
            return False
        return not compare_positions(self._state, await self._member.positions())
