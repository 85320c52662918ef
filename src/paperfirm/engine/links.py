"""The primary's connections to router and risk, and both engines' connection to the feed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from paperfirm import wire
from paperfirm.engine import events as ev
from paperfirm.engine.errors import EngineError
from paperfirm.frames import Link, keep_dialled
from paperfirm.silence import Silence, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from paperfirm.engine.commit import Committer
    from paperfirm.engine.desk import Desk
    from paperfirm.engine.state import Order, State

    Emit = Callable[..., int]


USAGE_LIMIT_S = 0.5
BEAT_S = 0.1
SILENT_S = 0.5


class Peer:
    """A connection that is made again whenever it is lost; `up` since `since_mono_ns`."""

    def __init__(self, name: str, port: int, *, emit: Emit, clock: Callable[[], int]) -> None:
        self.name = name
        self.up = False
        self.since_mono_ns = clock()
        self._port = port
        self._emit = emit
        self._mono = clock
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard_s = 0.0
        self._silence = Silence(SILENT_S)

    def start(self) -> None:
        """Begin connecting."""
        self._task = asyncio.ensure_future(
            keep_dialled(
                self._port,
                lambda: Link(self._message, on_open=self._opened, on_close=self._closed),
                first_s=0.005,
            )
        )

    async def stop(self) -> None:
        """Close and stop connecting."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def send(self, message: wire.Message) -> None:
        """Send, or silently nothing while there is no connection: recovery settles what was lost."""
        if self._link is not None:
            self._link.send(message)

    def mark(self, *, up: bool, reason: str = "") -> None:
        """Note a change and report it."""
        if up != self.up:
            self.up = up
            event = "link_restored" if up else "link_lost"
            self.since_mono_ns = self._emit(event, link=self.name, **({"reason": reason} if reason else {}))

    def _opened(self, link: Link) -> None:
        self._link = link
        self._heard_s = self._mono() / 1e9
        self._silence = Silence(SILENT_S)
        self.opened(link)

    def _message(self, link: Link, message: wire.Message) -> None:
        if link is not self._link:
            return
        self._heard_s = self._mono() / 1e9
        if not isinstance(message, wire.Beat):
            self.message(message)

    def beat(self) -> None:
        """Ask for a sign of life, and cut a connection on which there has been none; called by a timer."""
        link, now_s = self._link, self._mono() / 1e9
        if link is None:
            return
        if self._silence.lasts(self._heard_s, now_s):
            link.error = TimeoutError(told(self._heard_s, now_s))
            link.abort()
        else:
            link.send(wire.Beat(self._mono()))

    def _closed(self, link: Link, error: Exception | None) -> None:
        if link is self._link:
            self._link = None
            self.closed(str(error or "connection closed"))

    def opened(self, link: Link) -> None:
        """Begin on a fresh connection."""

    def message(self, message: wire.Message) -> None:
        """Take one frame."""

    def closed(self, reason: str) -> None:
        """Note that the connection is gone."""
        self.mark(up=False, reason=reason)


class RouterPeer(Peer):
    """Binds the router; collects the replay until `BindDone`.

    So that the log's identity is known before it is used.
    """

    def __init__(
        self,
        port: int,
        *,
        engine: str,
        desk: Desk,
        committer: Committer,
        emit: Emit,
        clock: Callable[[], int],
        on_change: Callable[[], None],
        on_fenced: Callable[[str], None],
    ) -> None:
        super().__init__("router", port, emit=emit, clock=clock)
        self.session_up = False
        self.session_since_mono_ns = clock()
        self.last_inbound = 0
        self._engine = engine
        self._desk = desk
        self._committer = committer
        self._on_change = on_change
        self._on_fenced = on_fenced
        self._replay: list[wire.Inbound] = []
        self._questions: dict[int, asyncio.Future[list[str]]] = {}

    def opened(self, link: Link) -> None:
        """Bind with our epoch and where our knowledge of the inbound log ends."""
        state = self._desk.state
        self._replay.clear()
        link.send(wire.Bind(self._engine, state.epoch, state.router_seq, state.router_log))

    def message(self, message: wire.Message) -> None:
        """Take one frame of the router."""
        if isinstance(message, wire.Inbound):
            self._inbound(message)
        elif isinstance(message, wire.BindDone):
            self._bound(message)
        elif isinstance(message, wire.BindRefused):
            self._on_fenced(f"epoch {message.epoch} holds the router: {message.reason}")
        elif isinstance(message, wire.Unsent):
            self._desk.unsent(message)
        elif isinstance(message, wire.KnownAnswer):
            question = self._questions.pop(message.request, None)
            if question is not None and not question.done():
                question.set_result(message.cl_ord_ids)
        elif isinstance(message, wire.SessionUp):
            self._session(up=True)
        elif isinstance(message, wire.SessionDown):
            self._session(up=False)

    def _inbound(self, message: wire.Inbound) -> None:
        self.last_inbound = max(self.last_inbound, message.router_seq)
        if self.up:
            self._desk.inbound(message)
        else:
            self._replay.append(message)

    def _bound(self, done: wire.BindDone) -> None:
        if done.log_id != self._desk.state.router_log:
            self._committer.submit(ev.RouterLogNamed(done.log_id))
        self.last_inbound = done.last_inbound
        for message in self._replay:
            self._desk.inbound(message)
        self._replay.clear()
        self.mark(up=True)
        self._session(up=done.session_up)

    def _session(self, *, up: bool) -> None:
        if up != self.session_up:
            self.session_up = up
            event = "link_restored" if up else "link_lost"
            self.session_since_mono_ns = self._emit(event, link="exchange session")
        self._desk.connected = self.up and up
        self._on_change()

    def closed(self, reason: str) -> None:
        """No router: nothing can be sent, questions have no answer."""
        super().closed(reason)
        self._session(up=False)
        for question in self._questions.values():
            if not question.done():
                question.set_exception(EngineError(f"router lost: {reason}; asked again after the next bind"))
        self._questions.clear()

    async def known(self, cl_ord_ids: list[str]) -> set[str]:
        """Which of these reached the FIX store; raises EngineError when the router is lost meanwhile."""
        if not self.up:
            raise EngineError("router is not bound; asked again after the next bind")
        request = max(self._questions, default=0) + 1
        question: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._questions[request] = question
        self.send(wire.Known(request, cl_ord_ids))
        return set(await question)


class Used(msgspec.Struct, frozen=True):
    """What risk says is used; `seq` is the journal record up to which it had been told of everything."""

    usage: wire.Usage
    seq: int


class RiskPeer(Peer):
    """Gives risk a snapshot at each connection; `up` once risk has answered it."""

    def __init__(
        self,
        port: int,
        *,
        engine: str,
        desk: Desk,
        committer: Committer,
        emit: Emit,
        clock: Callable[[], int],
        on_change: Callable[[], None],
    ) -> None:
        super().__init__("risk", port, emit=emit, clock=clock)
        self._asked: dict[int, tuple[int, asyncio.Future[Used]]] = {}
        self._request = 0
        self._due = False
        self._engine = engine
        self._desk = desk
        self._committer = committer
        self._on_change = on_change

    def opened(self, link: Link) -> None:
        """Send the snapshot as soon as no consequence of an event is on its way that it would count twice."""
        del link  # whichever is there when it can be sent
        if not self._due:
            self._due = True
            self._snapshot()

    def _snapshot(self) -> None:
        """Send one snapshot for however many were asked for: two would wait for each other."""
        if self._committer.waiting:
            self._committer.then(self._snapshot)
            return
        self._due = False
        self.send(snapshot(self._desk.state, self._engine, self._desk.reference))

    def refresh(self) -> None:
        """Send a new snapshot (after events were booked in bulk, without telling risk one by one)."""
        if self._link is not None:
            self.opened(self._link)

    def message(self, message: wire.Message) -> None:
        """Take one frame of risk."""
        if isinstance(message, wire.Approve):
            self._desk.approved(message.id)
        elif isinstance(message, wire.Refuse):
            self._desk.refused(message.id, message.reason)
        elif isinstance(message, wire.Usage):
            self._answered(message)
            if not self.up:
                self.mark(up=True)
                self._on_change()

    async def usage(self) -> Used:
        """Ask risk what is used now, once it has been told of everything durable so far.

        Raises EngineError when there is no risk or it does not answer in time.
        """
        if not self.up:
            raise EngineError("risk is not there; it is being started")
        answer: asyncio.Future[Used] = asyncio.get_running_loop().create_future()
        self._request = request = self._request + 1
        self._committer.then(lambda: self._put(request, answer))
        try:
            async with asyncio.timeout(USAGE_LIMIT_S):
                return await answer
        except TimeoutError as error:
            raise EngineError(f"risk did not say within {USAGE_LIMIT_S} s what is used; ask again") from error
        finally:
            self._asked.pop(request, None)

    def _put(self, request: int, answer: asyncio.Future[Used]) -> None:
        self._asked[request] = (self._desk.state.seq, answer)
        self.send(wire.AskUsage(request))

    def _answered(self, usage: wire.Usage) -> None:
        seq, answer = self._asked.pop(usage.request, (0, None))
        if answer is not None and not answer.done():
            answer.set_result(Used(usage, seq))

    def closed(self, reason: str) -> None:
        """No risk, no new orders."""
        super().closed(reason)
        for _, answer in self._asked.values():
            if not answer.done():
                answer.set_exception(EngineError(f"risk lost: {reason}"))
        self._asked.clear()
        self._on_change()


def snapshot(state: State, engine: str, reference: dict[str, int]) -> wire.Snapshot:
    """Everything that counts against limits, as of now."""
    holdings = [
        wire.Holding(one.symbol, one.quantity, one.cash, reference.get(one.symbol) or one.average_price)
        for one in state.positions.values()
    ]
    orders = [_open(order, reference) for order in state.open_orders.values()]
    return wire.Snapshot(engine, state.epoch, holdings, orders)


def _open(order: Order, reference: dict[str, int]) -> wire.OpenOrder:
    price = order.price if order.price is not None else reference.get(order.symbol, 0)
    return wire.OpenOrder(order.cl_ord_id, order.symbol, order.side, order.leaves_quantity, price)


class FeedPeer(Peer):
    """Keeps the newest tops; both engines listen, so that a promoted standby quotes at once."""

    def __init__(
        self,
        port: int,
        *,
        engine: str,
        emit: Emit,
        clock: Callable[[], int],
        on_top: Callable[[wire.Top], None],
        on_status: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_status` is told of each word on whether the feed is up, and of its end."""
        super().__init__("feed", port, emit=emit, clock=clock)
        self.tops: dict[str, wire.Top] = {}
        self.renewed: set[str] = set()
        """Symbols heard of on the present connection."""
        self.status = wire.FeedStatus(up=False, seq=0, mono_ns=0)
        self._engine = engine
        self._on_top = on_top
        self._on_status = on_status

    def opened(self, link: Link) -> None:
        """Subscribe."""
        self.renewed.clear()
        link.send(wire.Subscribe(self._engine))

    def message(self, message: wire.Message) -> None:
        """Take one frame of the feed."""
        if isinstance(message, wire.Top):
            self.tops[message.symbol] = message
            self.renewed.add(message.symbol)
            self._on_top(message)
        elif isinstance(message, wire.FeedStatus):
            self.status = message
            self.mark(up=message.up, reason=message.reason)
            self._on_status()

    def closed(self, reason: str) -> None:
        """No feed: nothing may be quoted."""
        super().closed(reason)
        self._on_status()

    def last_heard(self, symbol: str) -> int:
        """Monotonic ns at which this symbol's price was known to be fresh (a live feed's heartbeat counts).

        0: never.
        """
        top = self.tops.get(symbol)
        if top is None:
            return 0
        return max(top.mono_ns, self.status.mono_ns if self.status.up else 0)
