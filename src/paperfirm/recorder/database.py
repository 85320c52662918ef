"""The recorder's connection to PostgreSQL: made again for as long as it takes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import asyncpg

from paperfirm.alerts import Alerts
from paperfirm.recorder import tables
from paperfirm.supervisor.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from paperfirm.recorder.tables import Batch

LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a server that dies while a transaction is committed
    asyncpg.OperatorInterventionError,
    TimeoutError,
)
"""What a dead, dying or starting server looks like."""
# Cannot-connect-now (57P03) is an OperatorInterventionError; a full disk (53100) passes too once
# there is room again.
WAIT = (*LOST, asyncpg.InsufficientResourcesError, asyncpg.PostgresIOError)


WRITE_S = 3.0
"""A server that takes longer is paused or cut off; the batch is written again, rows stay single."""
PATIENCE_S = 15.0
"""A server that was not there yet may be starting for so long before that is an alert."""


class Database:
    """Writes batches, each in one transaction, and does not give up."""

    def __init__(self, url: str, emit: Callable[..., int], alerts: Alerts | None = None) -> None:
        self._url = url
        self._emit = emit
        self._alerts = alerts or Alerts(emit)
        self._connection: Any = None
        self._backoff = Backoff(first_s=0.02, longest_s=1.0, stable_s=1.0)
        self._was_connected = False
        self._began_s = time.monotonic()
        self.since_ns = 0
        self.on_connected: Callable[[Any], Awaitable[None]] | None = None
        """Called with each new connection before anything is written through it."""

    @property
    def connected(self) -> bool:
        """Whether the last that was tried went well."""
        return self._connection is not None and not self._connection.is_closed()

    async def store(self, batch: Batch) -> None:
        """Commit a batch; returns only when it is committed."""
        while True:
            connection = await self.connection()
            try:
                async with asyncio.timeout(WRITE_S), connection.transaction():
                    if batch.executions:
                        await connection.execute(tables.INSERT_EXECUTIONS, *tables.columns(batch.executions))
                    if batch.orders:
                        await connection.execute(tables.INSERT_ORDERS, *tables.columns(batch.orders))
            except WAIT as error:
                await self._lost(error)
            else:
                return

    async def stored(self, exec_id: str) -> dict[str, Any]:
        """Count the rows on a connection of its own, beside the writing. Raises asyncpg's and OS errors."""
        connection = await asyncpg.connect(self._url, timeout=2)
        try:
            row = await connection.fetchrow(tables.COUNT, exec_id, timeout=2)
        finally:
            connection.terminate()
        return dict(row)

    async def connection(self) -> Any:
        """Return a live connection with the tables in place, however long that takes."""
        while not self.connected:
            try:
                self._connection = await self._connect()
            except WAIT as error:
                await self._lost(error)
        return self._connection

    async def close(self) -> None:
        """Close the connection in good order, or cut it; that is no loss."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=1)
            except (*LOST, asyncpg.PostgresError):
                connection.terminate()

    async def _connect(self) -> Any:
        # Nagle-free, no statement cache games: two statements, used for ever.
        connection = await asyncpg.connect(self._url, timeout=2)
        try:
            async with connection.transaction():
                await connection.execute(tables.SCHEMA_LOCK)
                await connection.execute(tables.SCHEMA)
            self.since_ns = self._emit("database_restored" if self._was_connected else "database_connected")
            if self.on_connected is not None:
                await self.on_connected(connection)
        except BaseException:
            connection.terminate()
            raise
        connection.add_termination_listener(self._terminated)
        self._alerts.clear("database_lost")
        self._was_connected = True
        self._backoff.reset()
        return connection

    def _terminated(self, connection: Any) -> None:
        """Note at once that the server went away, also when nothing is being written."""
        if connection is self._connection:
            self._connection = None
            self._tell("the server closed the connection")

    def _tell(self, reason: str) -> None:
        self.since_ns = self._emit("database_lost", reason=reason)
        self._alert(reason)

    def _alert(self, reason: str) -> None:
        text = f"the database is away: {reason}; what is to be stored waits in the stream"
        self._alerts.sound("database_lost", text, reason=reason)

    async def _lost(self, error: Exception) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._tell(f"{type(error).__name__}: {error}")
            connection.terminate()
        elif self._was_connected or time.monotonic() - self._began_s > PATIENCE_S:
            self._alert(f"{type(error).__name__}: {error}")
        await asyncio.sleep(self._backoff.failed(0.0))
