"""For glue files: a connection on which many requests are under way at once.

Each line of answer finding its question by a key.
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

    With `beat`, a line that the other side answers at once: when somebody waits and nothing was heard for
    `silent_s`, it is sent, and when nothing is heard for as long again the connection is taken for dead, as
    FIX does with its TestRequest. A process that hangs keeps its connections open for ever.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key_of: KeyOf) -> None:
        self._writer, self._key_of = writer, key_of
        self._waiting: dict[Hashable, asyncio.Future[bytes]] = {}
        self._heard = 0
        self._reading = asyncio.create_task(self._read(reader))
        self._beating: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, address: str, key_of: KeyOf, *, beat: bytes | None = None, silent_s: float = 0.5
    ) -> Pipelined:
        """Connect to `host:port`. Raises OSError."""
        host, _, port = address.rpartition(":")
        connection = cls(*await asyncio.open_connection(host, int(port)), key_of)
        if beat is not None:
            connection._beating = asyncio.create_task(connection._beat(beat, silent_s))
        return connection

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
        if self._beating is not None:
            self._beating.cancel()
        self._writer.close()

    async def _beat(self, line: bytes, silent_s: float) -> None:
        """End the reading when the other side is silent although somebody waits."""
        while not await self._silent(silent_s, line):
            pass
        self._reading.cancel()

    async def _silent(self, silent_s: float, beat: bytes) -> bool:
        heard = self._heard
        await asyncio.sleep(silent_s)
        if not self._waiting or self._heard != heard:
            return False
        self.tell(beat)
        await asyncio.sleep(silent_s)
        return self._heard == heard

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                self._heard += 1
                answer = self._waiting.get(self._key_of(line))
                if answer is not None and not answer.done():
                    answer.set_result(line)
        except OSError:
            pass  # told to everybody below
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the other side closed the connection"))
