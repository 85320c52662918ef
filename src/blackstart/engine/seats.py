"""How many trials may run side by side, and who must be alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Leave = Callable[[], Awaitable[None]]


class Seats:
    """So many seats; who must be alone takes all of them. First come, first served: nobody waits for ever."""

    def __init__(self, count: int) -> None:
        self._count = self._free = count
        self._changed = asyncio.Condition()
        self._queue = asyncio.Lock()

    @asynccontextmanager
    async def taken(self, *, alone: bool) -> AsyncIterator[Leave]:
        """Hold one seat, or all; yields how to leave it before the end."""
        wanted = self._count if alone else 1
        async with self._queue, self._changed:
            await self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        held = wanted

        async def leave() -> None:
            nonlocal held
            async with self._changed:
                self._free, held = self._free + held, 0
                self._changed.notify_all()

        try:
            yield leave
        finally:
            await leave()
