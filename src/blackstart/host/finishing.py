"""Work that is not left half-done: it goes to its end also when whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


async def finished(work: Coroutine[None, None, T]) -> T:
    """Do it, and when cancelled wait for its end before saying so: only then can it be taken back.

    Raises what the work raises; when cancelled CancelledError, whatever came of the work.
    """
    doing = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait([doing])
        if not doing.cancelled():
            doing.exception()  # it was seen
        raise
