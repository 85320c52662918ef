"""The recorder's side of JetStream: one durable pull consumer on the firm's stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import nats
import nats.errors
import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig

from paperfirm.alerts import Alerts
from paperfirm.wire import STREAM

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.client import Client
    from nats.aio.msg import Msg

DURABLE = "recorder"
SUBJECTS = "firm.>"
FETCH = 500
WAIT_S = 0.5
ACK_WAIT_S = 2.0
"""After a death of ours the broker waits so long before it delivers again what we had in hand."""
BROKEN = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)


class Link(msgspec.Struct):
    """Whether the broker is there, and since when (monotonic ns)."""

    connected: bool = False
    since_ns: int = 0


class Stream:
    """Fetches batches for ever; a lost broker is an event and a pause."""

    def __init__(self, url: str, emit: Callable[..., int], alerts: Alerts | None = None) -> None:
        self._url = url
        self._emit = emit
        self._alerts = alerts or Alerts(emit)
        self._client: Client | None = None
        self._subscription: Any = None
        self._acknowledged = 0
        self._unverified = False
        self.link = Link()
        self.pending = 0
        """Messages in the stream that were not delivered yet, as of the last fetch."""

    async def fetch(self) -> list[Msg]:
        """Return the next messages.

        An empty list when there are none for half a second or the broker is away.
        """
        try:
            subscription = self._subscription or await self._subscribe()
            messages: list[Msg] = await subscription.fetch(FETCH, timeout=WAIT_S)
            if self._unverified:  # the broker came back under this very fetch: nothing is handed on before
                await self._subscribe()
        except (nats.errors.TimeoutError, TimeoutError):
            self.pending = 0 if self.link.connected else self.pending
            return []
        except BROKEN as error:
            self._subscription = None
            self._emit("queue_trouble", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.1)
            return []
        self.pending = messages[-1].metadata.num_pending if messages else 0
        return messages

    async def acknowledge(self, messages: list[Msg]) -> None:
        """Acknowledge what is committed; if that is lost, it comes again and conflicts with itself."""
        try:
            for message in messages:
                await message.ack()
                self._acknowledged = max(self._acknowledged, message.metadata.sequence.stream)
        except BROKEN as error:
            self._emit(
                "acknowledgement_lost", reason=f"{type(error).__name__}: {error}", messages=len(messages)
            )

    async def last_acknowledged(self) -> tuple[str, bytes] | None:
        """Return subject and payload of the last message up to which all are acknowledged.

        None if there is none or the broker does not say.
        """
        try:
            async with asyncio.timeout(WAIT_S):
                subscription = self._subscription or await self._subscribe()
                sequence = (await subscription.consumer_info()).ack_floor.stream_seq
                if not sequence or self._client is None:
                    return None
                message = await self._client.jetstream().get_msg(STREAM, sequence)
        except BROKEN as error:
            self._emit("queue_trouble", reason=f"{type(error).__name__}: {error}")
            return None
        return str(message.subject), message.data or b""

    async def rewind(self) -> None:
        """Have everything in the stream delivered again, from its beginning."""
        try:
            if self._client is not None:
                await self._client.jetstream().delete_consumer(STREAM, DURABLE)
        except BROKEN as error:
            self._emit("queue_trouble", reason=f"{type(error).__name__}: {error}")
        self._subscription = None

    async def close(self) -> None:
        """Close the connection; that is no loss."""
        self.link = Link()
        if self._client is not None:
            await self._client.close()

    async def _subscribe(self) -> Any:
        client = self._client or await self._connect()
        context = client.jetstream()
        try:
            await context.stream_info(STREAM)
        except nats.js.errors.NotFoundError:
            await context.add_stream(StreamConfig(name=STREAM, subjects=[SUBJECTS], storage=StorageType.FILE))
        consumer = ConsumerConfig(
            durable_name=DURABLE,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=10 * FETCH,
        )
        self._subscription = await context.pull_subscribe(
            SUBJECTS, durable=DURABLE, stream=STREAM, config=consumer
        )
        if self._unverified:
            self._verify((await context.stream_info(STREAM)).state.last_seq)
        return self._subscription

    def _verify(self, last_seq: int) -> None:
        """See that a broker that came back holds what was acknowledged to it: it goes on behind that."""
        self._unverified = False
        if last_seq >= self._acknowledged:
            self._emit("state_validated", what="queue", upto=last_seq)
            return
        finding = f"the stream ends at {last_seq}, and {self._acknowledged} was acknowledged"
        self._emit("validation_failed", findings=[finding])

    async def _connect(self) -> Client:
        """Connect for the first time; from then on the client reconnects by itself."""
        self._client = await nats.connect(
            self._url,
            connect_timeout=1,
            reconnect_time_wait=0.1,
            max_reconnect_attempts=-1,
            ping_interval=2,
            max_outstanding_pings=2,
            disconnected_cb=self._on_lost,
            reconnected_cb=self._on_restored,
            error_cb=self._on_error,
            allow_reconnect=True,
        )
        self.link = Link(connected=True, since_ns=self._emit("queue_connected"))
        return self._client

    async def _on_lost(self) -> None:
        if self.link.connected:
            self.link = Link(connected=False, since_ns=self._emit("queue_lost"))
            self._alerts.sound(
                "broker_lost", "the broker is away; the recorder waits for it and goes on then"
            )

    async def _on_restored(self) -> None:
        self.link = Link(connected=True, since_ns=self._emit("queue_restored"))
        self._alerts.clear("broker_lost")
        self._subscription = None  # its outstanding fetch died with the old connection
        self._unverified = True

    async def _on_error(self, error: Exception) -> None:
        del error  # every loss is reported by the callbacks above; the client tries again by itself
