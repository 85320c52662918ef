"""What a primary does: take orders, trade, replicate, publish, and come back from every loss of a peer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from paperfirm import wire
from paperfirm.disk import sound_full
from paperfirm.engine import events as ev
from paperfirm.engine.commit import Committer
from paperfirm.engine.database import History, read_history
from paperfirm.engine.decide import ExchangeExecution, missing_executions
from paperfirm.engine.desk import Desk
from paperfirm.engine.errors import EngineError
from paperfirm.engine.guard import MemoryGuard
from paperfirm.engine.links import BEAT_S, RiskPeer, RouterPeer
from paperfirm.engine.member import ExchangePosition, Member
from paperfirm.engine.outbox import Outbox
from paperfirm.engine.recorderwatch import RecorderWatch
from paperfirm.engine.recovery import Recovery
from paperfirm.engine.replication import Primary
from paperfirm.engine.settlement import CLOSED, Settlement
from paperfirm.engine.strategy import MarketMaker

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from paperfirm.engine.engine import Engine
    from paperfirm.engine.errors import DiskFullError

QUOTES_GONE_S = 1.0
OUTBOX_GONE_S = 2.0
RETRY_S = 0.02
LAZY_SYNC_S = 0.004


class Lead:
    """One term as primary. `run` returns the reason why it ended: `stopped`, or what fenced it."""

    def __init__(self, engine: Engine, epoch: int, *, deep: bool, thorough: bool) -> None:
        self._engine = engine
        self._epoch = epoch
        self._deep = deep
        self._thorough = thorough
        self._emit = engine.emit
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()
        self._suspects: dict[str, ExchangeExecution] = {}
        self._tasks: list[asyncio.Task[None]] = []
        firm, mono, store = engine.firm, engine.clock[0], engine.store
        self.committer = Committer(
            store.state,
            store.journal,
            clock=engine.clock,
            soon=asyncio.get_running_loop().call_soon,
            later=lambda work: asyncio.get_running_loop().call_later(LAZY_SYNC_S, work),
            on_applied=engine.touched,
            on_full=self._disk_full,
        )
        self.desk = Desk(
            store.state,
            self.committer,
            symbols=frozenset(firm.exchange.symbols),
            to_risk=lambda message: self.risk.send(message),  # noqa: PLW0108 - made below
            to_router=lambda message: self.router.send(message),  # noqa: PLW0108 - made below
            on_change=engine.order_entry.changed,
            clock=mono,
        )
        common: dict[str, Any] = {
            "engine": engine.name,
            "desk": self.desk,
            "committer": self.committer,
            "emit": self._emit,
            "clock": mono,
            "on_change": self._peers_changed,
        }
        self.router = RouterPeer(firm.ports["router"].service, on_fenced=self._fenced, **common)
        self.risk = RiskPeer(firm.ports["risk"].service, **common)
        self.member = Member(firm.exchange.office, firm.account)
        self.recovery = Recovery(
            self.desk, self.router, self.risk, self.member, emit=self._emit, history=self._history
        )
        self.maker = self._make_maker()
        self.guard = self._make_guard()
        self._doubted: dict[str, tuple[int, int]] = {}
        self.replication = Primary(
            store,
            self.committer,
            register=self._register,
            emit=self._emit,
            timeout_s=firm.engine.standby_timeout_ms / 1000,
        )
        self.recorder = RecorderWatch(firm.ports["recorder"].http, store.state, emit=self._emit, clock=mono)
        self.outbox = self._make_outbox()
        self.settlement = self._make_settlement()

    def _make_maker(self) -> MarketMaker:
        engine, firm = self._engine, self._engine.firm
        return MarketMaker(
            self.desk,
            engine.feed,
            firm.strategy,
            symbols=firm.exchange.symbols,
            clock=engine.clock[0],
            emit=self._emit,
            held=engine.held,
        )

    def _make_settlement(self) -> Settlement:
        return Settlement(
            self.desk,
            self.member,
            self.router,
            emit=self._emit,
            statements=self._engine.firm.path / "statements",
            take_up=self._reconcile_later,
            on_phase=self._phase_changed,
        )

    def _make_guard(self) -> MemoryGuard:
        engine = self._engine
        return MemoryGuard(
            self.desk,
            self.member,
            self.router,
            engine.shared_memory,
            emit=self._emit,
            alerts=engine.alerts,
            recover=self.recover_because,
        )

    def _make_outbox(self) -> Outbox:
        engine = self._engine
        return Outbox(
            self.committer,
            engine.firm.nats,
            emit=self._emit,
            clock=engine.clock[0],
            alerts=engine.alerts,
            restart=lambda reason: engine.arbiter.restart("nats", reason),
        )

    # --- the term ---

    async def run(self) -> str:
        """Lead until asked to stop or fenced off."""
        engine = self._engine
        self.committer.submit(ev.EpochStarted(self._epoch, engine.name))
        self.committer.flush()
        self._emit("role", role="primary")
        self.router.start()
        self.risk.start()
        engine.order_entry.desk = self.desk
        for top in engine.feed.tops.values():
            self.maker.on_top(top)
        await self.replication.open(engine.ports.replication)
        self._start_timers()
        work = (self._keep_trading(), self.outbox.run(), self.recorder.run(), self.settlement.run())
        self._tasks = [asyncio.ensure_future(one) for one in work]
        stop = asyncio.ensure_future(engine.stop.wait())
        ends: list[asyncio.Future[Any]] = [stop, self._over, *self._tasks]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if (reason := self._fenced_off()) is not None:
            return reason
        await self._stop()
        return "stopped"

    def _fenced_off(self) -> str | None:
        """Return what fenced us, or None; raises what went wrong with one of our tasks.

        In this order: who is fenced off loses its peers, too, and what fails by that is no failure.
        """
        if self._over.done():
            return self._over.result()
        for task in self._tasks:
            if task.done():
                task.result()  # none ever ends by itself
        return None

    def _start_timers(self) -> None:
        settings, timers = self._engine.firm, self._engine.timers
        symbols = max(len(settings.exchange.symbols), 1)
        timers.every("quotes", settings.strategy.quote_ms / 1000 / symbols, self.maker.step)
        timers.every("indicators", 0.5, self._keep_indicators)
        timers.every("reconcile", settings.engine.reconcile_s, self._reconcile_later)
        timers.every("replication", 0.05, self._check_standby)
        timers.every("beat to router", BEAT_S, self.router.beat)
        timers.every("beat to risk", BEAT_S, self.risk.beat)
        timers.every("room", 0.1, self._try_for_room)

    def _check_standby(self) -> None:
        self.replication.check(asyncio.get_running_loop().time())

    def _disk_full(self, error: DiskFullError | None) -> None:
        """Refuse everything new while the journal has no room; recover when it has."""
        if error is not None:
            sound_full(self._engine.alerts, error.path, error.cause)
        else:
            self._engine.alerts.clear("disk_full")
        self._peers_changed()

    def _try_for_room(self) -> None:
        if self.committer.full is not None:
            self.committer.flush()

    def _keep_indicators(self) -> None:
        self.maker.journal_indicators()
        if self.router.up and self.router.last_inbound > self._engine.store.state.router_seq:
            self.committer.submit(ev.InboundTaken(self.router.last_inbound))
        for symbol, price in self.desk.reference.items():
            self.risk.send(wire.Mark(symbol, price))

    async def _register(self, in_sync: bool) -> None:  # noqa: FBT001 - the signature of the callable
        if not await self._engine.arbiter.register(self._epoch, in_sync=in_sync):
            self._fenced("the supervisor has granted a higher epoch")
            await asyncio.Event().wait()  # nothing may be released any more; the process is about to end

    def _fenced(self, reason: str) -> None:
        self.desk.trading = False
        if not self._over.done():
            self._over.set_result(reason)

    # --- trading and halts ---

    def obstacle(self) -> str | None:
        """Why trading is impossible now, or None."""
        if self.committer.full is not None:
            return f"disk full: {self.committer.full}"
        if not self.router.up:
            return "router lost"
        if not self.router.session_up:
            return "exchange session lost"
        return None if self.risk.up else "risk lost"

    def _peers_changed(self) -> None:
        reason = self.obstacle()
        if reason is not None and self.desk.halt(reason):
            self._emit("trading_halted", reason=reason)
        self._changed.set()

    def _phase_changed(self, phase: str) -> None:
        self.maker.closed = phase in CLOSED

    def recover_because(self, reason: str) -> None:
        """Halt, and go the whole way back: reconcile, validate, trade."""
        self._thorough = True
        if self.desk.halt(reason):
            self._emit("trading_halted", reason=reason)
        self._changed.set()

    async def _keep_trading(self) -> None:
        """Recover whenever everything needed is there and trading is not; for ever."""
        while True:
            self._changed.clear()
            if self.obstacle() is None and not self.desk.trading:
                await self._recover()
                continue
            await self._changed.wait()

    async def _recover(self) -> None:
        try:
            await self._while_possible(self.recovery.run(deep=self._deep, thorough=self._thorough))
        except EngineError as error:
            self._emit("recovery_interrupted", reason=str(error))
            await asyncio.sleep(RETRY_S)
            return
        if self.obstacle() is not None:
            return
        self._deep = self._thorough = False
        self._engine.store.found_again("exchange")
        self.desk.resume()
        self.maker.adopt()
        self._emit("trading_started")

    async def _while_possible(self, recovery: Coroutine[Any, Any, None]) -> None:
        """Run it to its end. Raises EngineError as soon as something is lost that it cannot do without.

        An exchange that cannot be reached answers no question either: a recovery that waited for it would
        go on with an answer from before the loss.
        """
        running = asyncio.ensure_future(recovery)
        try:
            while not running.done():
                self._changed.clear()
                if (lost := self.obstacle()) is not None:
                    raise EngineError(f"{lost} during recovery; it begins again with it")
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait([running, changed], return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
            running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _history(self) -> History:
        history = await read_history(self._engine.firm.postgres, self._emit)
        self.outbox.stored = history.executions | history.orders
        return history

    # --- the quiet check beside trading ---

    def _reconcile_later(self) -> None:
        if self.desk.trading and not any(
            task.get_name() == "reconcile" for task in self._tasks if not task.done()
        ):
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks.append(asyncio.create_task(self._reconcile(), name="reconcile"))

    async def _reconcile(self) -> None:
        """Book what the exchange has had for a whole period and we have not; move the cursor on."""
        state = self._engine.store.state
        try:
            page = await self.member.executions(state.exec_seq, limit=2000)
            positions = await self.member.positions()
        except EngineError as error:
            self._emit("reconciliation_failed", reason=str(error))
            return
        missing = [one for one in page.executions if not state.knows(one.exec_id)]
        overdue = [one for one in missing if one.exec_id in self._suspects]
        for event in missing_executions(state, overdue):
            self.desk.take(event)
        if overdue:
            self._emit("executions_recovered", count=len(overdue), first=overdue[0].exec_id)
        self._suspects = {one.exec_id: one for one in missing if one not in overdue}
        self._watch_positions(positions)
        upto = min((one.exec_seq for one in self._suspects.values()), default=page.next + 1) - 1
        if upto > state.exec_seq:
            self.committer.submit(ev.Reconciled(upto))

    def _watch_positions(self, exchange: dict[str, ExchangePosition]) -> None:
        """Doubt a position that differs from the exchange's at two looks and has not moved between them."""
        state, before = self._engine.store.state, self._doubted
        held = {symbol: (one.quantity, one.cash) for symbol, one in state.positions.items()}
        theirs = {symbol: (one.quantity, one.cash) for symbol, one in exchange.items()}
        self._doubted = {symbol: ours for symbol, ours in held.items() if theirs.get(symbol, ours) != ours}
        for symbol in [symbol for symbol, ours in self._doubted.items() if before.get(symbol) == ours]:
            self.guard.position(symbol, "books")

    # --- the end ---

    async def _stop(self) -> None:
        """Clean stop: quotes pulled, intake closed, everything durable and published as far as possible."""
        self._engine.timers.stop("quotes", "reconcile")
        pulled = self.maker.pull()
        self._emit("quotes_pulled", pulled=pulled)
        if self.desk.halt("stopping"):
            self._emit("trading_halted", reason="stopping")
        await self._until(lambda: not self.maker.open_quotes, QUOTES_GONE_S)
        await self._until(lambda: not self.outbox.connected or not self.outbox.backlog, OUTBOX_GONE_S)
        self.guard.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.committer.flush()
        await self.replication.close()
        await self.router.stop()
        await self.risk.stop()
        await self.outbox.close()

    @staticmethod
    async def _until(condition: Any, limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + limit_s
        while not condition() and loop.time() < until_s:  # noqa: ASYNC110 - many causes, one look
            await asyncio.sleep(0.01)
