"""For glue files: a connection on which many requests are under way at once.

Eeach line of answer finding its question by a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

KeyOf = Callable[[bytes], "Hashable | None"]


class Pipelined:
    """A connection of lines.

    `key_of` says which question a line answers; None for a line that answers none.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key_of: KeyOf) -> None:
        self._writer, self._key_of = writer, key_of
        self._waiting: dict[Hashable, asyncio.Future[bytes]] = {}
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def open(cls, address: str, key_of: KeyOf) -> Pipelined:
        """Connect to `host:port`. Raises OSError."""
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)), key_of)

    async def ask(self, key: Hashable, line: bytes) -> bytes:
        """Send a line and return its answer. Raises ConnectionError when the connection ends before."""
        if self._reading.done():
            raise ConnectionError("the connection was closed")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[key] = answer
        self.tell(line)
        try:
            return await answer
        finally:
            self._waiting.pop(key, None)

    def tell(self, line: bytes) -> None:
        """Send a line whose answer does not matter."""
        self._writer.write(line + b"\n")

    def close(self) -> None:
        """Close the connection; whoever waits gets a ConnectionError."""
        self._reading.cancel()
        self._writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                answer = self._waiting.get(self._key_of(line))
                if answer is not None and not answer.done():
                    answer.set_result(line)
        except OSError:
            pass  # told to everybody below
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the other side closed the connection"))
