"""The feed's sockets: subscription, healing, and conflated best prices to both engines."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

import msgspec

from paperfirm.feed import doubt
from paperfirm.feed.core import FeedState
from paperfirm.feed.messages import decode_datagram, decode_snapshot
from paperfirm.http import HttpError, fetch
from paperfirm.wire import Beat, FeedStatus, Subscribe, Top

if TYPE_CHECKING:
    from collections.abc import Callable

    from paperfirm.config import Exchange
    from paperfirm.feed.guard import BookGuard
    from paperfirm.feed.messages import Update
    from paperfirm.frames import Link
    from paperfirm.quarantine import Quarantine
    from paperfirm.wire import Message

    Emit = Callable[..., int]
    Clock = Callable[[], int]

MILLISECOND_NS = 1_000_000
PATIENCE_NS = 20 * MILLISECOND_NS
"""How long a missing number may still arrive by itself (reordering) before a snapshot is fetched."""
SILENCE_NS = 500 * MILLISECOND_NS
"""The exchange sends a heartbeat every 100 ms; five missing ones are a dead feed."""
CROSSED_NS = 200 * MILLISECOND_NS
SUBSCRIBE_NS = 1_000 * MILLISECOND_NS
SUBSCRIBE_DOWN_NS = 200 * MILLISECOND_NS
STATUS_NS = 100 * MILLISECOND_NS
LOOK_NS = 90 * MILLISECOND_NS
"""Every second tick, whatever it is late by."""
RECEIVE_BUFFER = 4 << 20
SUBSCRIPTION = b'{"subscribe": "*"}'


class FeedService(asyncio.DatagramProtocol):
    """Owns the subscription.

    `tick` is called 20 times a second and does everything that is not a datagram.
    """

    def __init__(
        self, exchange: Exchange, emit: Emit, clock: Clock, quarantine: Quarantine | None = None
    ) -> None:
        self._exchange = exchange
        self._emit = emit
        self._clock = clock
        self._symbols = frozenset(exchange.symbols)
        self._quarantine = quarantine
        self.state = FeedState()
        self.guard: BookGuard | None = None
        """Looked after by whoever made us; without one, books are in this process's own memory only."""
        self.engines: set[Link] = set()
        self.datagrams = self.undecodable = 0
        self._transport: asyncio.DatagramTransport | None = None
        self._healing: asyncio.Task[None] | None = None
        self._subscribed_ns = self._status_ns = self._crossed_since_ns = self._looked_ns = 0
        self._up: bool | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Subscribe at once (called by asyncio)."""
        self._transport = cast(
            "asyncio.DatagramTransport", transport
        )  # uvloop's transports do not inherit from asyncio's
        self._subscribe(self._clock())

    def datagram_received(self, data: bytes, _addr: object) -> None:
        """Take a datagram (called by asyncio); of what cannot be true the sequence shows what it cost."""
        self.datagrams += 1
        try:
            updates = decode_datagram(data)
        except msgspec.DecodeError as error:
            self.undecodable += 1
            self._hold(str(error), data.decode(errors="replace"))
            return
        now_ns = self._clock()
        self.state.receive([one for one in updates if self._believable(one, now_ns)], now_ns)

    def _believable(self, update: Update, now_ns: int) -> bool:
        """Whether a message may be true; one that is not leaves a gap, which a snapshot heals."""
        wrong = doubt.of_update(update, self._symbols, now_ns)
        if wrong is not None:
            self._hold(wrong, msgspec.json.encode(update).decode())
        return wrong is None

    def _hold(self, reason: str, message: str) -> None:
        if self._quarantine is not None:
            self._quarantine.keep("market data", reason, message, action="fetched again")

    def error_received(self, _error: Exception) -> None:
        """Ignore ICMP errors (called by asyncio): silence is noticed anyway and subscription repeats."""

    def on_message(self, link: Link, message: Message) -> None:
        """Give a new engine everything there is."""
        if isinstance(message, Beat):
            link.send(message)
        elif isinstance(message, Subscribe):
            self.engines.add(link)
            link.send(self.status())
            if self.state.synchronised:
                for symbol in self.state.books:
                    link.send(self._top(symbol))

    def on_close(self, link: Link, _error: Exception | None) -> None:
        """Forget an engine."""
        self.engines.discard(link)

    def status(self) -> FeedStatus:
        """Say whether the books are to be believed."""
        reason = self.trouble(self._clock()) or ""
        return FeedStatus(not reason, max(self.state.next_seq - 1, 0), self.state.heard_ns, reason)

    def trouble(self, now_ns: int) -> str | None:
        """Return why the books are not to be believed, or None."""
        if now_ns - self.state.heard_ns > SILENCE_NS:
            return "silent" if self.state.heard_ns else "never heard"
        gap_ns = self.state.gap_since_ns
        if self.state.next_seq == 0 or (gap_ns is not None and now_ns - gap_ns > PATIENCE_NS):
            return "gap"
        return None

    def tick(self) -> None:
        """Subscribe again, heal, report changes, and send what changed since the last tick."""
        now_ns = self._clock()
        if self.guard is not None and now_ns - self._looked_ns >= LOOK_NS:
            self._looked_ns = now_ns
            self.guard.look(now_ns)
        trouble = self.trouble(now_ns)
        period = SUBSCRIBE_NS if trouble != "silent" else SUBSCRIBE_DOWN_NS
        if now_ns - self._subscribed_ns >= period:
            self._subscribe(now_ns)
        if trouble in {"gap", "never heard"} and (self._healing is None or self._healing.done()):
            self._healing = asyncio.get_running_loop().create_task(self._heal())
        self._announce(trouble, now_ns)
        if trouble is None:
            self._publish(now_ns)

    async def close(self) -> None:
        """Stop listening and healing."""
        if self._healing is not None:
            self._healing.cancel()
            await asyncio.gather(self._healing, return_exceptions=True)
        if self._transport is not None:
            self._transport.close()
        if self.guard is not None:
            self.guard.close()

    def _subscribe(self, now_ns: int) -> None:
        self._subscribed_ns = now_ns
        if self._transport is not None:
            self._transport.sendto(SUBSCRIPTION)

    async def _heal(self) -> None:
        """Fetch a snapshot; `tick` starts this again as long as it is needed."""
        try:
            status, body = await fetch(f"{self._exchange.office}/market_data/snapshot", limit_s=1.0)
            if status == 200:  # noqa: PLR2004 - HTTP OK
                self._load(body)
        except (HttpError, msgspec.DecodeError) as error:
            self._emit("snapshot_failed", reason=str(error))
            await asyncio.sleep(0.1)

    def _load(self, body: bytes) -> None:
        snapshot = decode_snapshot(body)
        wrong = doubt.of_snapshot(snapshot)
        if wrong is None:
            self.state.load(snapshot, self._clock())
        else:
            self._emit("snapshot_failed", reason=wrong)
            self._hold(wrong, body.decode(errors="replace"))

    def _announce(self, trouble: str | None, now_ns: int) -> None:
        up = trouble is None
        if up != self._up:
            if up:
                self._emit(
                    "feed_recovered" if self._up is not None else "feed_synchronised",
                    seq=self.state.next_seq - 1,
                )
            elif self._up is not None:
                self._emit(
                    "feed_gap" if trouble == "gap" else "feed_lost",
                    next_seq=self.state.next_seq,
                    reason=trouble,
                )
            self._up = up if up or self._up is not None else None
        elif now_ns - self._status_ns < STATUS_NS:
            return
        self._status_ns = now_ns
        status = self.status()
        for link in self.engines:
            link.send(status)

    def _publish(self, now_ns: int) -> None:
        changed = [symbol for symbol, book in self.state.books.items() if book.touched]
        crossed = any(book.best().crossed for book in self.state.books.values())
        self._crossed_since_ns = (self._crossed_since_ns or now_ns) if crossed else 0
        if crossed and now_ns - self._crossed_since_ns > CROSSED_NS:
            self._crossed_since_ns = 0
            self.state.distrust(now_ns)
            return
        for symbol in changed:
            if self.guard is not None and not self.guard.right(symbol):
                continue  # the next look tells of it
            self.state.books[symbol].touched = False
            top = self._top(symbol)
            for link in self.engines:
                link.send(top)

    def _top(self, symbol: str) -> Top:
        book = self.state.books[symbol]
        best = book.best()
        seq = self.state.next_seq - 1
        return Top(symbol, best.bid, best.bid_quantity, best.ask, best.ask_quantity, seq, book.mono_ns)


async def open_feed(service: FeedService, exchange: Exchange) -> None:
    """Open the UDP socket towards the exchange; a large buffer rides out our own pauses."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.setblocking(False)
    sock.connect((exchange.market_data.host, exchange.market_data.port))
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: service, sock=sock)
