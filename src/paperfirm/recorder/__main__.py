"""The recorder's process: `python -m paperfirm.recorder --dir DIR`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Any

# nats-py imports aiohttp, if it is there, for a websocket transport that nobody uses here: 0.2 s
# at every restart.
sys.modules.setdefault("aiohttp", None)  # type: ignore[arg-type]

import asyncpg  # noqa: E402
import msgspec  # noqa: E402

from paperfirm import defects  # noqa: E402
from paperfirm.http import common_routes, json, problem, serve  # noqa: E402
from paperfirm.recorder.database import LOST, Database  # noqa: E402
from paperfirm.recorder.stream import Stream  # noqa: E402
from paperfirm.recorder.tables import decode, lookup  # noqa: E402
from paperfirm.supervisor.component import Context, run_component  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from paperfirm.http import Request, Response
    from paperfirm.recorder.tables import Batch


class Progress(msgspec.Struct):
    """What was stored; `lag` counts messages in the stream and in hand that are not committed."""

    executions: int = 0
    orders: int = 0
    refused: int = 0
    batches: int = 0
    lag: int = 0
    stored_mono_ns: int = 0


class Recorder:
    """Moves batches from the stream to the database; acknowledges after COMMIT."""

    def __init__(
        self,
        stream: Stream,
        database: Database,
        emit: Callable[..., int],
        alter: Callable[[Batch], Batch] = lambda batch: batch,
    ) -> None:
        self.stream, self.database = stream, database
        database.on_connected = self.verify
        self._emit = emit
        self._alter = alter
        self._last: tuple[str, bytes] | None = None
        self.progress = Progress()

    async def run(self) -> None:
        """Work for ever; cancel to stop."""
        await self.database.connection()
        while True:
            messages = await self.stream.fetch()
            self.progress.lag = self.stream.pending + len(messages)
            if messages:
                await self._store(messages)

    async def _store(self, messages: list[Any]) -> None:
        batch = decode([(message.subject, message.data) for message in messages])
        for reason in batch.refused:
            self._emit("message_refused", reason=reason)
        await self.database.store(self._alter(batch))
        await self.stream.acknowledge(messages)
        self._last = (messages[-1].subject, messages[-1].data)
        progress = self.progress
        progress.executions += len(batch.executions)
        progress.orders += len(batch.orders)
        progress.refused += len(batch.refused)
        progress.batches += 1
        progress.lag -= len(messages)
        progress.stored_mono_ns = time.monotonic_ns()

    async def verify(self, connection: Any) -> None:
        """Before anything is written: what was acknowledged to the stream last must be in the tables.

        If it is not (an older copy of the database, say), everything in the stream is stored once more.
        """
        last = self._last or await self.stream.last_acknowledged()
        if last is None:
            return
        query, key = lookup(*last)
        if await connection.fetchval(query, key):
            self._emit("state_validated", what="database", upto=key)
            return
        self._emit("validation_failed", findings=[f"{key} was acknowledged and is not in the database"])
        await self.stream.rewind()

    def trouble(self) -> str | None:
        """Return why nothing can be recorded now, or None."""
        if not self.database.connected:
            return "no database"
        return None if self.stream.link.connected else "no queue"


async def main(context: Context) -> None:
    """Record executions and finished orders until asked to stop."""
    firm, emit = context.firm, context.events.emit
    recorder = Recorder(
        Stream(firm.nats, emit, context.alerts),
        Database(firm.postgres, emit, context.alerts),
        emit,
        defects.recording(firm.defects, emit),
    )
    routes = common_routes(
        recorder.trouble, lambda: metrics(recorder), component="recorder", alerts=context.alerts
    )
    routes.add("GET", "/state", lambda _: json(state(recorder)))
    routes.add("GET", "/stored", lambda request: stored(recorder, request))
    web = await serve(firm.ports["recorder"].http, routes)
    emit("ready")
    work = asyncio.create_task(recorder.run())
    stopping = asyncio.create_task(context.stop.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        work.result()  # raises: the process ends, the supervisor starts it again
    await drained(recorder)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await recorder.stream.close()
    await recorder.database.close()
    web.close()


async def drained(recorder: Recorder, *, limit_s: float = 2.0) -> None:
    """Let what is already in the stream reach the database before a clean stop, if both are there."""
    deadline_s = time.monotonic() + limit_s
    while recorder.progress.lag and recorder.trouble() is None:
        if time.monotonic() >= deadline_s:
            return
        await asyncio.sleep(0.01)


def metrics(recorder: Recorder) -> dict[str, float]:
    """Return the counters for Prometheus."""
    progress = recorder.progress
    return {
        "recorder_executions_total": progress.executions,
        "recorder_orders_total": progress.orders,
        "recorder_refused_total": progress.refused,
        "recorder_batches_total": progress.batches,
        "recorder_lag_messages": progress.lag,
        "recorder_database_up": float(recorder.database.connected),
        "recorder_queue_up": float(recorder.stream.link.connected),
    }


def state(recorder: Recorder) -> dict[str, object]:
    """Return both links and the progress as one document."""
    database, queue = recorder.database, recorder.stream.link
    return {
        "database": {"connected": database.connected, "since_mono_ns": database.since_ns},
        "queue": {"connected": queue.connected, "since_mono_ns": queue.since_ns},
        "progress": recorder.progress,
        "pid": os.getpid(),
    }


async def stored(recorder: Recorder, request: Request) -> Response:
    """Return how many rows the tables hold, and whether the execution `exec_id` is among them."""
    try:
        found = await recorder.database.stored(request.query.get("exec_id", ""))
    except (*LOST, asyncpg.PostgresError) as error:
        return problem(503, f"{type(error).__name__}: {error}", "ask again when the database is back")
    return json(found)


if __name__ == "__main__":
    run_component("recorder", main)
