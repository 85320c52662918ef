"""Glue of the small system: write one line and wait for "yes"; read all lines; where its rows lie."""

from __future__ import annotations

import asyncio
import json
from typing import Any

_ROW, _VALUE = 12, 8


class Connection:
    """Answers come in the order of the questions."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self._turn = reader, writer, asyncio.Lock()

    async def ask(self, text: str) -> bytes:
        """Send a line and read one. Raises ConnectionError when there is none."""
        async with self._turn:
            self._writer.write(text.encode() + b"\n")
            answer = await self._reader.readline()
        if not answer:
            raise ConnectionError("closed")
        return answer

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


async def connect(settings: dict[str, Any]) -> Connection:
    """Open a connection."""
    return Connection(*await asyncio.open_connection("127.0.0.1", int(settings["port"]), limit=1 << 26))


async def write(connection: Connection, record: dict[str, Any]) -> None:
    """Write one record."""
    answer = await connection.ask(json.dumps(record))
    if answer != b"yes\n":
        raise ValueError(answer.decode())


async def read(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Read everything back."""
    return list(await _asked(settings, "read"))


async def status(settings: dict[str, Any]) -> dict[str, Any]:
    """Ask the server what it knows of itself."""
    return dict(await _asked(settings, "status"))


async def locate_rows(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Say where the values of the rows lie in the mapped file."""
    path = f"{settings['run']}/memory"
    names = enumerate(("count", "limit"))
    return [{"path": path, "offset": k * _ROW, "length": _VALUE, "name": name} for k, name in names]


async def _asked(settings: dict[str, Any], question: str) -> Any:
    connection = await connect(settings)
    try:
        return json.loads(await connection.ask(question))
    finally:
        connection.close()
