"""The recorder's writing while its database dies."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from paperfirm.recorder.database import Database
from paperfirm.recorder.tables import Batch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEATHS = (
    asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress"),
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    ConnectionResetError(),
)


class Connection:
    """A connection whose commit may fail."""

    def __init__(self, death: Exception | None) -> None:
        self.death = death
        self.terminated = False

    def is_closed(self) -> bool:
        """Say whether it was cut."""
        return self.terminated

    def terminate(self) -> None:
        """Cut it."""
        self.terminated = True

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Fail at the end, or not."""
        yield
        if self.death is not None:
            raise self.death


@pytest.mark.parametrize("death", DEATHS, ids=lambda one: type(one).__name__)
def test_a_commit_that_dies_with_its_server_is_done_again(death: Exception) -> None:
    """However the client library calls it: the batch is committed on the next connection, the loss told."""
    events: list[str] = []
    lives = [Connection(death), Connection(None)]

    async def store() -> None:
        database = Database("postgresql://", lambda event, **_: events.append(event) or 0)  # type: ignore[func-returns-value]

        async def connect() -> Any:
            return next(one for one in lives if not one.terminated)

        database._connect = connect  # type: ignore[method-assign]
        await database.store(Batch([], [], []))

    asyncio.run(store())
    assert [one.terminated for one in lives] == [True, False]
    assert "database_lost" in events
