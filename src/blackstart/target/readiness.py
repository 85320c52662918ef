"""Waiting until a process is ready: a file, an URL, a TCP port, or a line of its log."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

from blackstart.target import http

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blackstart.model.manifest import Ready

POLL_S = 0.0015  # plus the loop's own grain stays below 2 ms


def check(ready: Ready, log: Path, since: int) -> Callable[[], Awaitable[bool]]:
    """Return the question to ask.

    `ready` has its variables expanded; `since` is the log's size before this start.
    """
    if ready.file is not None:
        path = Path(ready.file)
        return lambda: _file(path)
    if ready.url is not None:
        return UrlCheck(ready.url).ask
    if ready.tcp is not None:
        address = ready.tcp
        return lambda: tcp_accepts(address)
    if ready.log is not None:
        return LogCheck(log, since, ready.log).ask
    return _at_once


class UrlCheck:
    """Does an URL answer 200? The connection is kept between questions."""

    def __init__(self, url: str) -> None:
        self._connection = http.Connection(url)

    async def ask(self) -> bool:
        """Ask once; anything but 200 is no."""
        try:
            async with asyncio.timeout(1.0):
                answer = await self._connection.request()
        except (OSError, TimeoutError):
            return False
        if answer.status == 200:  # noqa: PLR2004
            self._connection.close()
            return True
        return False


class LogCheck:
    """Did a line appear in the log since the start? Reads only what is new."""

    def __init__(self, log: Path, since: int, pattern: str) -> None:
        self._log, self._position = log, since
        self._pattern = re.compile(pattern.encode())
        self._rest = b""

    async def ask(self) -> bool:
        """Look at the new part."""
        with self._log.open("rb") as stream:
            stream.seek(self._position)
            data = stream.read()
        self._position += len(data)
        text = self._rest + data
        self._rest = text[text.rfind(b"\n") + 1 :]
        return self._pattern.search(text) is not None


async def tcp_accepts(address: str) -> bool:
    """Say whether `host:port` accepts a connection."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _file(path: Path) -> bool:
    return path.exists()  # noqa: ASYNC240 - a look at a local file


async def _at_once() -> bool:
    return True
