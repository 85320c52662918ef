"""The engine's eye on the recorder: whether the database is reachable and holds what was published.

A recorder that was away, or lost its database or its queue, comes back with new links. Then the engine asks
what the tables hold and compares that with its own outbox: `database_in_step`. (Before it writes anything
the recorder itself has compared the tables with the stream's cursor: `state_validated`.)
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from paperfirm.http import HttpError, fetch

if TYPE_CHECKING:
    from collections.abc import Callable

    from paperfirm.engine.state import State

LOOK_S = 0.1
LIMIT_S = 1.0
AGREE_LIMIT_S = 5.0


class Joined(msgspec.Struct, frozen=True):
    """One link of the recorder, and since when it is as it is."""

    connected: bool = False
    since_mono_ns: int = 0


class RecorderState(msgspec.Struct, frozen=True):
    """What the recorder says of itself (`GET /state`)."""

    database: Joined = Joined()
    queue: Joined = Joined()
    pid: int = 0

    @property
    def working(self) -> bool:
        """Whether it can record now."""
        return self.database.connected and self.queue.connected


class Stored(msgspec.Struct, frozen=True):
    """What the tables hold (`GET /stored?exec_id=X`): rows, and whether that execution is among them."""

    executions: int
    orders: int
    has: bool


class Expected(msgspec.Struct, frozen=True):
    """What the tables must hold at least: everything that the stream has acknowledged to us."""

    executions: int
    orders: int
    last_exec_id: str


def expected(state: State) -> Expected:
    """Count what has left the outbox; the newest execution among it is the cursor."""
    waiting = [entry.kind for entry in state.outbox]
    unsent = waiting.count("execution")
    fills = len(state.executions) - unsent
    busts = sum(one.busted for one in state.executions) - waiting.count("bust")
    orders = sum(not one.open for one in state.orders.values()) - waiting.count("order")
    return Expected(fills + busts, orders, state.executions[fills - 1].exec_id if fills else "")


class RecorderWatch:
    """Looks ten times a second; compares again whenever the recorder has come back."""

    def __init__(
        self, port: int, state: State, *, emit: Callable[..., int], clock: Callable[[], int]
    ) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._state = state
        self._emit = emit
        self._mono = clock
        self._seen = RecorderState()
        self.connected = False
        """Whether the recorder is there and has its database."""
        self.since_mono_ns = clock()

    async def run(self) -> None:
        """Watch for ever; cancel to stop."""
        while True:
            try:
                await self._look()
            except HttpError:
                self._mark(up=False)
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        now: RecorderState = await self._ask("/state", RecorderState)
        self._mark(up=now.database.connected)
        if not now.working or now == self._seen:
            return
        if await self._in_step():
            self._seen = now

    async def _in_step(self) -> bool:
        """Wait until the tables hold what was published when we began to look."""
        want = expected(self._state)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + AGREE_LIMIT_S
        while True:
            found: Stored = await self._ask(f"/stored?exec_id={want.last_exec_id}", Stored)
            detail = {"executions": found.executions, "orders": found.orders}
            if lacking(want, found) is None:
                self._emit("database_in_step", **detail)
                return True
            if loop.time() > until_s:
                self._emit("validation_failed", findings=[lacking(want, found)], **detail)
                return False
            await asyncio.sleep(LOOK_S / 5)

    async def _ask(self, path: str, kind: type[Any]) -> Any:
        status, body = await fetch(self._base + path, limit_s=LIMIT_S)
        if status != HTTPStatus.OK:
            raise HttpError(f"GET {path}: status {status}")
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise HttpError(f"GET {path}: {error}") from error

    def _mark(self, *, up: bool) -> None:
        if up != self.connected:
            self.connected = up
            self.since_mono_ns = self._emit("link_restored" if up else "link_lost", link="database")


def lacking(want: Expected, found: Stored) -> str | None:
    """Say what the tables lack, or None."""
    if found.executions < want.executions or found.orders < want.orders:
        return (
            f"database holds {found.executions} executions and {found.orders} orders, "
            f"published were {want.executions} and {want.orders}"
        )
    return None if found.has or not want.last_exec_id else f"execution {want.last_exec_id} is not stored"
