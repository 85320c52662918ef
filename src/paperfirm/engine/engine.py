"""One engine process: loads its state, is standby or primary, and changes from the one to the other."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import TYPE_CHECKING

from paperfirm.alerts import Alerts
from paperfirm.disk import WATCH_S, RoomWatch, wait_for_room
from paperfirm.engine.arbiter import Arbiter
from paperfirm.engine.errors import DiskFullError, EngineError, FsyncFailedError
from paperfirm.engine.lead import Lead
from paperfirm.engine.links import BEAT_S, FeedPeer
from paperfirm.engine.orderentry import OrderEntry
from paperfirm.engine.outbox import load_client
from paperfirm.engine.replication import Follower
from paperfirm.engine.sharedmem import SharedMemory
from paperfirm.engine.store import Store
from paperfirm.engine.surface import routes
from paperfirm.engine.timers import Timers
from paperfirm.eventlog import SYSTEM_CLOCK
from paperfirm.frames import Link, dial
from paperfirm.http import serve
from paperfirm.silence import Silence, told

if TYPE_CHECKING:
    from paperfirm.config import Firm
    from paperfirm.engine.events import Event
    from paperfirm.eventlog import Clock, EventLog
    from paperfirm.wire import Message, Top

FIRST_CHOICE = "engine-a"
SECOND_CHOICE_WAITS_S = 1.0
PEER_FIRST_S = 2.5
"""An engine whose journal lacks something lets the other one go first: that may have it."""
TAKE_OVER_LIMIT_S = 1.0
PRIMARY_SILENT_S = 0.25
"""A primary sends a sign of life every 50 ms."""
SYNC_SILENT_S = 2.0
LOOK_S = 0.05
FENCED = 75  # EX_TEMPFAIL: start me again, I shall be a standby


class Engine:
    """Everything an engine has in either role."""

    def __init__(
        self, firm: Firm, name: str, *, events: EventLog, stop: asyncio.Event, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.firm = firm
        self.name = name
        self.events = events
        self.stop = stop
        self.clock = clock
        self.ports = firm.ports[name]
        self.other = next(one for one in ("engine-a", "engine-b") if one != name)
        self.alerts = Alerts(self.emit)
        self.store = Store(
            firm.path / "state" / name, firm.engine, clock=clock, emit=self.emit, alerts=self.alerts
        )
        self.timers = Timers(clock[0])
        self.order_entry = OrderEntry(clock[0])
        self.arbiter = Arbiter(firm.ports["supervisor"].http, name, emit=self.emit)
        self.feed = FeedPeer(
            firm.ports["feed"].service,
            engine=name,
            emit=self.emit,
            clock=clock[0],
            on_top=self._on_top,
            on_status=self._on_feed,
        )
        self.lead: Lead | None = None
        self.in_step = False
        self.heartbeat_mono_ns = clock[0]()
        self.scrapes = 0
        self.scraped_mono_ns: int | None = None
        self._memory: SharedMemory | None = None
        self._symbols: set[str] = set()
        self._orders: set[str] = set()
        self._last_checkpoint_s = 0.0
        self._waiting_because = ""
        self.waiting_for_room = False

    def emit(self, event: str, **detail: object) -> int:
        """Write to the event log with the present epoch; returns the stamp (monotonic ns)."""
        detail.setdefault("epoch", self.store.state.epoch if hasattr(self, "store") else 0)
        return self.events.emit(event, **detail)  # type: ignore[arg-type]

    # --- life ---

    async def run(self) -> int:
        """Run until asked to stop or fenced off; returns the exit status."""
        loop = asyncio.get_running_loop()
        web = await serve(self.ports.http, routes(self))
        await self.order_entry.open(self.ports.order_entry)
        self.feed.start()
        await self._room()
        loaded = self.store.load()
        self._memory = SharedMemory(self.store.folder / "shm", self.store.state)
        self._last_checkpoint_s = loop.time()
        self.timers.every("heartbeat", 0.1, self._beat)
        self.timers.every("durability", 0.05, self._keep_durable)
        low_bytes = round(self.firm.engine.disk_low_mb * 2**20)
        self.timers.every("room watch", WATCH_S, RoomWatch(self.store.folder, self.alerts, low_bytes).look)
        self.timers.every("beat to feed", BEAT_S, self.feed.beat)
        self.timers.every("scrub", 0.1, self._scrub)
        calm_memory()
        deep = self.store.state.seq == 0 or bool(loaded.damage)
        status = await self._alternate(deep=deep)
        self._end()
        web.close()
        return status

    async def _room(self) -> None:
        """Begin only with room on the disk; until then this engine lives and is not ready."""
        self.store.folder.mkdir(parents=True, exist_ok=True)
        self.waiting_for_room = True
        await wait_for_room(self.store.folder, self.alerts, self.stop)
        self.waiting_for_room = False

    async def _alternate(self, *, deep: bool) -> int:
        """Standby until it is our turn, then primary to the end."""
        began_s = asyncio.get_running_loop().time()
        if self.store.loaded.missing is not None:
            began_s += PEER_FIRST_S
        while not self.stop.is_set():
            try:
                epoch, from_standby = await self._become_primary(began_s)
            except (DiskFullError, FsyncFailedError):
                raise
            except (EngineError, OSError) as error:
                self._say_once(str(error))
                await asyncio.sleep(0.02)
                continue
            if epoch:
                return await self._lead(epoch, deep=deep and not from_standby, thorough=not from_standby)
        return 0

    def _say_once(self, reason: str) -> None:
        """Report why we wait, but not fifty times a second."""
        if reason != self._waiting_because:
            self._waiting_because = reason
            self.emit("waiting", reason=reason)

    async def _become_primary(self, began_s: float) -> tuple[int, bool]:
        """Return the epoch granted to us (0: not yet) and whether we had followed the former primary."""
        primary, epoch = await self.arbiter.present()
        if primary == self.other:
            return await self._follow(), True
        if primary is None:
            waited_s = asyncio.get_running_loop().time() - began_s
            if waited_s < (0.0 if self.name == FIRST_CHOICE else SECOND_CHOICE_WAITS_S):
                await self._pause(0.02)
                return 0, False
        answer = await self.arbiter.promote(epoch)
        if not answer.granted:
            await self._pause(0.02)
            return 0, False
        return answer.epoch, False

    async def _pause(self, pause_s: float) -> None:
        await asyncio.wait([asyncio.ensure_future(self.stop.wait())], timeout=pause_s)

    async def _lead(self, epoch: int, *, deep: bool, thorough: bool) -> int:
        assert self._memory is not None
        self.in_step = False
        self.store.journal.sync()
        self.lead = Lead(self, epoch, deep=deep, thorough=thorough)
        reason = await self.lead.run()
        if reason == "stopped":
            return 0
        self.emit("role", role="fenced", reason=reason)
        return FENCED

    # --- standby ---

    async def _follow(self) -> int:
        """Follow the primary until it is lost; returns the epoch if we are to take over, else 0."""
        follower = Follower(self.store, engine=self.name, emit=self.emit, on_reset=self._state_replaced)

        def take(link: Link, message: Message) -> None:
            follower.on_message(link, message)
            if follower.in_step and not self.in_step:
                self.store.found_again("peer")
            self.in_step = follower.in_step

        try:
            link = await dial(
                self.firm.ports[self.other].replication, lambda: Link(take, on_open=follower.on_open)
            )
        except OSError:
            await self._pause(0.01)
            return 0
        self.emit("role", role="standby")
        reason, silent = await self._lost(link, follower)
        link.abort()
        was_in_step, self.in_step = follower.in_step, False
        if self.stop.is_set() or not was_in_step:
            await self._pause(0.01)
            return 0
        self.emit("peer_lost", peer=self.other, reason=reason)
        return await self._take_over(silent=silent)

    async def _lost(self, link: Link, follower: Follower) -> tuple[str, bool]:
        """Wait until the primary is gone or silent, or we are to stop; says which, and if it is silence."""
        loop = asyncio.get_running_loop()
        stop, gone = asyncio.ensure_future(self.stop.wait()), asyncio.ensure_future(link.closed.wait())
        silence = Silence(PRIMARY_SILENT_S)
        try:
            while not (stop.done() or gone.done()):
                await asyncio.wait([stop, gone], timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                silence.limit_s = PRIMARY_SILENT_S if follower.in_step else SYNC_SILENT_S
                if silence.lasts(follower.heard_s, loop.time()):
                    return told(follower.heard_s, loop.time()), True
        finally:
            stop.cancel()
            gone.cancel()
        return str(link.error or "connection closed"), False

    async def _take_over(self, *, silent: bool) -> int:
        """Ask for the next epoch until it is granted, somebody else has it, or the limit passes."""
        self.emit("promotion_started")
        loop = asyncio.get_running_loop()
        until_s, pause_s = loop.time() + TAKE_OVER_LIMIT_S, 0.002
        while loop.time() < until_s and not self.stop.is_set():
            answer = await self.arbiter.promote(self.store.state.epoch, silent=silent)
            if answer.granted:
                return answer.epoch
            if silent or answer.primary != self.other:
                break
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.05)
        self.emit("promotion_refused", reason=answer.reason)
        return 0

    def _state_replaced(self) -> None:
        assert self._memory is not None
        self._memory.close()
        self._memory = SharedMemory(self.store.folder / "shm", self.store.state)

    # --- periodic work ---

    def _beat(self) -> None:
        self.heartbeat_mono_ns = self.clock[0]()
        self.events.write_waiting()

    def no_checkpoint(self) -> str | None:
        """Return why no checkpoint can be begun now, or None."""
        if self._memory is None:
            return "the state is not loaded yet"
        if self.lead is not None and self.lead.committer.full is not None:
            return f"disk full: {self.lead.committer.full}"
        return None

    def begin_checkpoint(self) -> None:
        """Begin a checkpoint now; nothing if it cannot be: the journal must never end before one."""
        if self.lead is not None:
            self.lead.committer.flush()
        if self.no_checkpoint() is None:
            self._last_checkpoint_s = asyncio.get_running_loop().time()
            self.store.checkpoint_in_child()

    def _keep_durable(self) -> None:
        """Sync the standby's journal in the background; write checkpoints in either role."""
        if self.lead is None:
            self.store.journal.sync()
        now_s = asyncio.get_running_loop().time()
        if self.store.due(last_s=self._last_checkpoint_s, now_s=now_s):
            self.begin_checkpoint()

    def touched(self, event: Event) -> None:
        """Remember which rows of the shared memory an event has made old."""
        symbol, cl_ord_id = getattr(event, "symbol", None), getattr(event, "cl_ord_id", None)
        if cl_ord_id is not None:
            if not self._orders and not self._symbols:
                asyncio.get_running_loop().call_soon(self._refresh_memory)
            self._orders.add(cl_ord_id)
            if symbol is not None:
                self._symbols.add(symbol)

    def _refresh_memory(self) -> None:
        if self._memory is not None:
            self._memory.touch(self._symbols, self._orders)
        self._symbols.clear()
        self._orders.clear()

    def _scrub(self) -> None:
        """Look for damage in the shared memory; the standby's table follows its state here."""
        if self._memory is None:
            return
        if self.lead is None:
            looked = [*self._memory.check_positions(), *self._memory.check_orders()]
            if damage := [one.key for one in looked if one.where == "checksum"]:
                self.emit("memory_corrected", rows=damage[:20], count=len(damage))
            self._memory.load(self.store.state)
            return
        if self._orders or self._symbols:
            self._refresh_memory()
        self.lead.guard.positions(self._memory.check_positions())
        self.lead.guard.orders(self._memory.check_orders())

    def shared_memory(self) -> SharedMemory:
        """Return the tables; there are some once the state is loaded."""
        assert self._memory is not None
        return self._memory

    def held(self, symbol: str) -> int | None:
        """Return a position as it stands in shared memory, None while that is damaged."""
        if self._orders or self._symbols:
            self._refresh_memory()
        return self.shared_memory().quantity(symbol)

    def _on_feed(self) -> None:
        if self.lead is not None and self.lead.desk.trading:
            self.lead.maker.look()

    def _on_top(self, top: Top) -> None:
        if self.lead is not None:
            self.lead.maker.on_top(top)

    def _end(self) -> None:
        """Leave everything on the disk."""
        self.timers.stop()
        self.order_entry.close()
        if self.lead is not None:
            self.lead.committer.flush()  # clients were refused to the last
        self.store.checkpoint_now()
        self.store.close()
        if self._memory is not None:
            self._memory.close()
            self._memory = None


def calm_memory() -> None:
    """Spare what was loaded.

    Keep the collector away from it, and let it look at the rest less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


async def preload() -> None:
    """Import the broker's client beside the rest of the start-up.

    It imports aiohttp, if that is there, for a websocket transport that nobody uses here: 0.2 s of every
    recovery.
    """
    sys.modules.setdefault("aiohttp", None)  # type: ignore[arg-type]
    await load_client()
