"""How a workload talks to a small system that goes on between trials, whose records are kept apart."""

from __future__ import annotations

import asyncio
import json
from typing import Any


class Connection:
    """Answers come in the order of the questions."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, run: str) -> None:
        self.reader, self.writer, self.run, self.turn = reader, writer, run, asyncio.Lock()

    async def ask(self, text: str) -> bytes:
        """Send a line and read one."""
        async with self.turn:
            self.writer.write(text.encode() + b"\n")
            answer = await self.reader.readline()
        if not answer:
            raise ConnectionError("closed")
        return answer


async def connect(settings: dict[str, Any]) -> Connection:
    """Open a connection; `run` is this trial's folder, and nobody else's."""
    link = await asyncio.open_connection("127.0.0.1", int(settings["port"]), limit=1 << 26)
    return Connection(*link, settings["run"])


async def write(connection: Connection, record: dict[str, Any]) -> None:
    """Write one record."""
    await connection.ask(json.dumps({**record, "run": connection.run}))


async def read(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Read back what this trial wrote."""
    connection = await connect(settings)
    answer = json.loads(await connection.ask("read"))
    connection.writer.close()
    return [one for one in answer if one["run"] == settings["run"]]
