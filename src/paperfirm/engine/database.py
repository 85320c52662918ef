"""What the database remembers, asked on a cold start only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 3.0
RETRY_S = 0.1


class History(msgspec.Struct, frozen=True):
    """Which executions and finished orders are stored.

    `at_exchange`: those orders that the exchange has had. `refused`: client's id to the reason, of those that
    it never had.
    """

    executions: frozenset[str] = frozenset()
    orders: frozenset[str] = frozenset()
    at_exchange: frozenset[str] = frozenset()
    refused: dict[str, str] = {}


async def read_history(url: str, emit: Callable[..., int]) -> History:
    """Read it; an absent or empty database is no obstacle, only less to check against.

    (event `database_unread`).
    """
    try:
        async with asyncio.timeout(LIMIT_S):
            history = await _read_when_up(url)
    except Exception as error:  # noqa: BLE001 - the exchange is the authority; whatever is wrong here is reported
        emit("database_unread", reason=f"{type(error).__name__}: {error}")
        return History()
    emit("database_read", executions=len(history.executions), orders=len(history.orders))
    return history


async def _read_when_up(url: str) -> History:
    """Wait for a database that is still starting, as it does beside a cold engine."""
    while True:
        try:
            return await _read(url)
        except OSError:
            await asyncio.sleep(RETRY_S)


async def _read(url: str) -> History:
    import asyncpg  # noqa: PLC0415 - 0.1 s of import that only a cold start needs

    connection = await asyncpg.connect(url)
    try:
        orders = await connection.fetch("select cl_ord_id, client_order_id, order_id, reason from orders")
        executions = await connection.fetch("select exec_id from executions")
    finally:
        await connection.close()
    return History(
        frozenset(row[0] for row in executions),
        frozenset(row[0] for row in orders),
        frozenset(row[0] for row in orders if row[2]),
        {row[1]: row[3] for row in orders if row[1] and not row[2]},
    )
