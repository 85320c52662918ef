"""The question to a database that follows a table, against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from blackstart.target.services import SqlPoll
from paperfirm.servers import enter, is_ready, make_cluster, placement, plan_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 100_000
QUERY = "SELECT n, n::text AS key FROM told WHERE n > coalesce($1, 0) ORDER BY n"


@pytest.fixture
def dsn() -> Iterator[str]:
    """Run a database; its address."""
    folder = Path(tempfile.mkdtemp(prefix="poll-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    plan = plan_postgres(folder, port)
    asyncio.run(make_cluster(plan))
    with plan.log.open("ab") as log:
        server = subprocess.Popen(
            plan.argv,
            stdout=log,
            stderr=log,
            preexec_fn=enter(plan.identity, plan.death_signal),  # noqa: PLW1509 - no threads here
            cwd="/",
        )
    try:
        end = time.monotonic() + 20.0
        while not is_ready(plan, server.pid):
            assert time.monotonic() < end
            time.sleep(0.01)
        yield plan.url
    finally:
        server.send_signal(plan.stop_signal)
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)
        placement.sweep()


def test_catching_up_with_a_large_table_holds_one_row(dsn: str) -> None:
    """Chaos watches anew at each injection: what a long session stored must not be loaded each time."""

    async def main() -> tuple[list[object], int, list[str], list[str]]:
        connection = await asyncpg.connect(dsn)
        await connection.execute(f"CREATE TABLE told AS SELECT generate_series(1, {ROWS}) AS n")
        poll = SqlPoll(QUERY, dsn)
        tracemalloc.start()
        newest = await poll.ask(newest=True)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        await connection.execute("INSERT INTO told VALUES (100001), (100002)")
        following, nothing = await poll.ask(), await poll.ask(newest=True)
        await poll.close()
        await connection.close()
        assert newest is not None
        assert following is not None
        assert nothing is not None
        return [one[0] for one in newest], most, [one[1] for one in following], [one[1] for one in nothing]

    newest, most, following, nothing = asyncio.run(main())
    assert newest == [ROWS]
    assert most < 3_000_000
    assert following == ["100001", "100002"]
    assert nothing == []
