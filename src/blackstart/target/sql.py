"""PostgreSQL as a witness: our own questions to the target's database, over our own connection (asyncpg)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from blackstart.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT_S = 10.0
_MAINTENANCE = ("postgres", "template1")


def _asyncpg() -> Any:
    try:
        import asyncpg  # noqa: PLC0415 - optional: only targets with SQL need it
    except ImportError:
        hint = "pip install 'blackstart[targets]'"
        raise TargetError("asking a database needs the package asyncpg", hint=hint) from None
    return asyncpg


async def connect(dsn: str, *, database: str | None = None) -> Any:
    """Open a connection. Raises TargetError (the address without its password)."""
    asyncpg = _asyncpg()
    try:
        async with asyncio.timeout(LIMIT_S):
            return await asyncpg.connect(dsn, database=database, command_timeout=LIMIT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise TargetError(f"cannot connect: {error or type(error).__name__}", where=_public(dsn)) from error


async def rows(dsn: str, query: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the rows of a query, oldest first as it says. Raises TargetError."""
    connection = await connect(dsn)
    try:
        async with connection.transaction(readonly=True):
            async for row in connection.cursor(query, prefetch=2000):
                yield dict(row)
    except (OSError, _asyncpg().PostgresError) as error:
        raise TargetError(f"{type(error).__name__}: {error}", where=query) from error
    finally:
        await connection.close(timeout=LIMIT_S)


async def count(dsn: str, query: str) -> int:
    """Return how many rows a query yields. Raises TargetError."""
    connection = await connect(dsn)
    try:
        held = query.rstrip("; \n")
        counting = f"SELECT count(*) FROM ({held}) AS held"  # noqa: S608 - the manifest's own query
        return int(await connection.fetchval(counting))
    except (OSError, _asyncpg().PostgresError) as error:
        raise TargetError(f"{type(error).__name__}: {error}", where=query) from error
    finally:
        await connection.close(timeout=LIMIT_S)


async def ask(dsn: str, statement: str, *arguments: Any, from_outside: bool = False) -> Any:
    """Carry out one statement; returns the first value of its first row.

    `from_outside`: connected to a maintenance database of the same server. Raises TargetError.
    """
    name = urlsplit(dsn).path.strip("/")
    outside = next(one for one in _MAINTENANCE if one != name) if from_outside else None
    connection = await connect(dsn, database=outside)
    try:
        return await connection.fetchval(statement, *arguments)
    except (OSError, _asyncpg().PostgresError) as error:
        raise TargetError(f"{type(error).__name__}: {error}", where=statement) from error
    finally:
        await connection.close(timeout=LIMIT_S)


def _public(dsn: str) -> str:
    return dsn.rpartition("@")[2]
