"""The outbox: every booked execution and finished order goes to JetStream, from a journalled cursor.

Until it is stored.

A new primary publishes again whatever is not known to be stored; the stream and the database drop what they
have.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

import msgspec

from paperfirm import wire
from paperfirm.alerts import Alerts
from paperfirm.engine import events as ev

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from paperfirm.engine.commit import Committer
    from paperfirm.engine.state import OutboxEntry, State

BATCH = 200
PAUSE_S = 0.05
YIELD_AFTER = 8
ACK_LIMIT_S = 2.0
STUCK_S = 3.0
_encode = msgspec.msgpack.Encoder().encode


class Letter(msgspec.Struct, frozen=True):
    """A message for the stream; `id` makes it unique there."""

    subject: str
    id: str
    payload: bytes


def letter(state: State, entry: OutboxEntry) -> Letter:
    """Write the message for an outbox entry."""
    if entry.kind == "order":
        return _order(state, entry.key)
    one = state.executions[int(entry.key) - 1]
    bust = entry.kind == "bust"
    row = wire.ExecutionRow(
        f"bust-{one.exec_id}" if bust else one.exec_id,
        one.cl_ord_id,
        one.symbol,
        one.side,
        -one.quantity if bust else one.quantity,
        one.price,
        one.booked_wall_ns,
        one.late,
        one.epoch,
        one.seq,
    )
    return Letter(wire.SUBJECT_EXECUTIONS, row.exec_id, _encode(row))


def _order(state: State, cl_ord_id: str) -> Letter:
    order = state.orders[cl_ord_id]
    row = wire.OrderRow(
        order.cl_ord_id,
        order.client_order_id,
        order.order_id,
        order.origin,
        order.symbol,
        order.side,
        "market" if order.price is None else "limit",
        order.tif,
        order.price,
        order.quantity,
        order.cum_quantity,
        order.status,
        order.reason,
        order.finished_wall_ns,
    )
    return Letter(wire.SUBJECT_ORDERS, cl_ord_id, _encode(row))


class Outbox:
    """Publishes in order, in batches; a lost broker only makes the outbox longer."""

    def __init__(
        self,
        committer: Committer,
        url: str,
        *,
        emit: Callable[..., int],
        clock: Callable[[], int],
        alerts: Alerts | None = None,
        restart: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._committer = committer
        self._url = url
        self._emit = emit
        self._alerts = alerts or Alerts(emit)
        self._restart = restart
        self._ever = False
        self._first_s = 0.0
        self._client: Any = None
        self._context: Any = None
        self._stream_seq = 0
        self.connected = False
        self.since_mono_ns = clock()
        self.published = 0
        self.stored: frozenset[str] = frozenset()
        """Ids that the database was seen to hold; they need no second way there."""

    @property
    def backlog(self) -> int:
        """Entries the stream is not known to have."""
        return len(self._committer.state.outbox)

    async def run(self) -> None:
        """Publish for ever; cancel to stop."""
        while True:
            try:
                if await self._round() < BATCH:
                    await asyncio.sleep(PAUSE_S)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a broker or its client does, the outbox waits and retries
                self._mark(up=False, reason=f"{type(error).__name__}: {error}")
                await self._consider_restart()
                await asyncio.sleep(0.2)

    async def _consider_restart(self) -> None:
        """Ask for another life of a broker that answers and stores nothing.

        After a full disk JetStream refuses everything until then.
        """
        now_s = asyncio.get_running_loop().time()
        first_s = self._first_s = self._first_s or now_s
        if self._restart is None or now_s - first_s < STUCK_S or not await self._answers():
            return
        self._first_s = now_s
        await self._restart("it answers, and the stream stores nothing")

    async def _answers(self) -> bool:
        if self._client is None or not self._client.is_connected:
            return False
        try:
            await self._client.flush(timeout=1)
        except Exception:  # noqa: BLE001 - whatever it is, this is no answer
            return False
        return True

    async def _round(self) -> int:
        """Publish one batch and journal how far the stream has it; returns how many."""
        state = self._committer.state
        batch = [entry for entry, _ in zip(state.outbox, range(BATCH), strict=False)]
        if not batch and self._context is not None:
            return 0
        await self._durable()
        context = self._context or await self._connect()
        letters = [one for one in (letter(state, entry) for entry in batch) if one.id not in self.stored]
        if letters and not await self._in_one(context, letters):
            await self._one_by_one(context, letters)
        self._mark(up=True)
        if batch:
            self.published += len(batch)
            self._committer.submit(ev.Published(batch[-1].number))
        return len(batch)

    async def _in_one(self, context: Any, letters: list[Letter]) -> bool:
        """Publish with one acknowledgement, at a third of the cost; True if all of them are certainly stored.

        The stream takes a connection's messages in order and numbers what it stores: if the last one got the
        number that so many more messages lead to, all were stored. Duplicates or another publisher spoil the
        sum.
        """
        *others, last = letters
        for number, one in enumerate(others, start=1):
            await self._client.publish(one.subject, one.payload, headers={"Nats-Msg-Id": one.id})
            if number % YIELD_AFTER == 0:
                await asyncio.sleep(0)
        headers = {"Nats-Msg-Id": last.id}
        ack = await context.publish(last.subject, last.payload, timeout=ACK_LIMIT_S, headers=headers)
        certain = not ack.duplicate and ack.seq == self._stream_seq + len(letters)
        self._stream_seq = ack.seq
        return certain

    async def _one_by_one(self, context: Any, letters: list[Letter]) -> None:
        """Publish again with an acknowledgement each; what is stored already counts as a duplicate."""
        futures = []
        for one in letters:
            headers = {"Nats-Msg-Id": one.id}
            futures.append(
                await context.publish_async(one.subject, one.payload, wait_stall=ACK_LIMIT_S, headers=headers)
            )
        async with asyncio.timeout(ACK_LIMIT_S):
            acks = await asyncio.gather(*futures)
        self._stream_seq = max(ack.seq for ack in acks)

    async def _durable(self) -> None:
        """Wait until everything decided so far is durable: the world must not know more than the journal."""
        done = asyncio.Event()
        self._committer.then(done.set)
        await done.wait()

    async def _connect(self) -> Any:
        nats, api = await load_client()
        if self._client is None:
            self._client = await nats.connect(
                self._url,
                connect_timeout=1,
                reconnect_time_wait=0.1,
                max_reconnect_attempts=-1,
                ping_interval=2,
                max_outstanding_pings=2,
                disconnected_cb=self._on_lost,
                error_cb=_ignore,
            )
        context = self._client.jetstream()
        try:
            info = await context.stream_info(wire.STREAM)
        except nats.js.errors.NotFoundError:
            info = await context.add_stream(
                api.StreamConfig(name=wire.STREAM, subjects=["firm.>"], storage=api.StorageType.FILE)
            )
        self._stream_seq = info.state.last_seq
        self._context = context
        return context

    async def _on_lost(self) -> None:
        self._context = None
        self._mark(up=False, reason="connection lost")

    def _mark(self, *, up: bool, reason: str = "") -> None:
        if up != self.connected:
            self.connected = up
            event = "link_restored" if up else "link_lost"
            self.since_mono_ns = self._emit(event, link="nats", **({"reason": reason} if reason else {}))
        if up:
            self._ever = True
            self._first_s = 0.0
            self._alerts.clear("broker_lost")
        elif self._ever or (self._first_s and asyncio.get_running_loop().time() - self._first_s > STUCK_S):
            text = f"the broker takes nothing: {reason}; {self.backlog} messages wait in the journal"
            self._alerts.sound("broker_lost", text, reason=reason)

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()


async def _ignore(error: Exception) -> None:
    del error  # every loss is reported by `_mark`


async def load_client() -> tuple[Any, Any]:
    """Import the NATS client in a thread: 0.2 s that must not stop the event loop."""
    nats = await asyncio.to_thread(importlib.import_module, "nats")
    api = await asyncio.to_thread(importlib.import_module, "nats.js.api")
    return nats, api
