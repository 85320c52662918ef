"""How the workload talks to the calibration target: pipelined writes, each answered by its name."""

from __future__ import annotations

import asyncio
from typing import Any


class RefusedError(Exception):
    """The write came during an outage and was not done."""


NO = (RefusedError,)  # a clear no: not done, and the connection is good


class Connection:
    """One connection with the writes that wait for their answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.waiting: dict[bytes, asyncio.Future[int]] = {}
        self.listening = asyncio.create_task(self.listen())

    async def listen(self) -> None:
        """Hand each answer to the write that waits for it."""
        while line := await self.reader.readline():
            word, *rest = line.split()
            future = self.waiting.pop(rest[-1], None)
            if future is None or future.done():
                continue
            if word == b"A":
                future.set_result(int(rest[0]))
            else:
                future.set_exception(RefusedError("down"))
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the target closed the connection"))

    def close(self) -> None:
        """Close it."""
        self.listening.cancel()
        self.writer.close()


async def connect(settings: dict[str, Any]) -> Connection:
    """Connect to the target's port."""
    return Connection(*await asyncio.open_connection("127.0.0.1", int(settings["port"])))


async def write(connection: Connection, record: dict[str, Any]) -> dict[str, Any]:
    """Write one record; the answer names the epoch that accepted it."""
    name = str(record["id"]).encode()
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    connection.waiting[name] = future
    connection.writer.write(b"W %b\n" % name)
    epoch = await future
    return {"id": f"{epoch}-{record['id']}"}
