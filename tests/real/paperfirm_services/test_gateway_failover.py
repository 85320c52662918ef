"""The router's part of a firm against a real exchange whose primary gateway dies."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from fixsession.clock import Now
from paperexchange.testing import Running, running
from paperfirm.config import Endpoint
from paperfirm.router.connection import keep_connected
from paperfirm.router.fence import Fence
from paperfirm.router.gateways import BACKUP, PRIMARY, Gateways
from paperfirm.router.inbound import InboundLog
from paperfirm.router.sent import RememberingStore
from paperfirm.router.service import Router
from paperfirm.wire import Bind, Inbound, Send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT_S = 15.0


class Engine:
    """An engine's link that remembers what it was sent."""

    def __init__(self) -> None:
        self.frames: list[Any] = []

    def send(self, frame: Any) -> None:
        """Remember a frame."""
        self.frames.append(frame)

    def close(self) -> None:
        """Do nothing."""

    abort = close


class Desk:
    """A router that keeps itself connected to both gateways of an exchange, and an engine bound to it."""

    def __init__(self, folder: Path, exchange: Running) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        loop = asyncio.get_running_loop()
        self.router = Router(
            identity=("FIRM", "PAPEREX"),
            account="FIRM",
            store=RememberingStore(folder / "session.log"),
            log=InboundLog(folder / "inbound"),
            fence=Fence(folder / "epoch.json"),
            emit=self._emit,
            now=lambda: Now(time.monotonic_ns(), time.time_ns()),
            soon=loop.call_soon,
            symbols=frozenset(exchange.endpoints["symbols"]),
            gateways=Gateways(backup=True, patience_ns=200_000_000, now_ns=time.monotonic_ns()),
            backup_store=RememberingStore(folder / "backup.log"),
        )
        places = {PRIMARY: exchange.endpoints["fix"], BACKUP: exchange.endpoints["fix_backup"]}
        endpoints = {name: Endpoint(place["host"], place["port"]) for name, place in places.items()}
        self.engine = Engine()
        self._bound = False
        self._tasks = [
            asyncio.create_task(keep_connected(self.router, endpoints, self._emit)),
            asyncio.create_task(self._tick()),
        ]

    def _emit(self, event: str, **detail: Any) -> int:
        self.events.append((event, detail))
        return time.monotonic_ns()

    async def _tick(self) -> None:
        while True:
            self.router.tick()
            await asyncio.sleep(0.02)

    async def until(self, fits: Callable[[], bool]) -> None:
        """Wait until it is so."""
        end_s = time.monotonic() + LIMIT_S
        while not fits():
            assert time.monotonic() < end_s, self.events[-8:]
            await asyncio.sleep(0.01)

    async def trade(self, cl_ord_id: str) -> None:
        """Send an order and wait for its acknowledgement."""
        link: Any = self.engine
        self.router.engine_message(link, Bind("engine-a", 1, 0, "", []))
        self.router.engine_message(link, Send(cl_ord_id, "ALFA", "buy", 9, 500_000, "day"))
        await self.until(lambda: cl_ord_id in self.acknowledged())

    def acknowledged(self) -> list[str]:
        """Return the ids of acknowledged orders."""
        reports = [frame.report for frame in self.engine.frames if isinstance(frame, Inbound)]
        return [report.cl_ord_id for report in reports if report.exec_type == "0"]

    async def close(self) -> None:
        """End what was begun."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Running]:
    """Start an exchange without other participants."""
    with running(tmp_path / "x", "--participants", "0") as made:
        made.get("/health")
        yield made


async def control(exchange: Running, **body: Any) -> None:
    """Ask the exchange while the router goes on."""
    await asyncio.to_thread(lambda: exchange.post("/control/gateway", **body))


def test_the_session_moves_to_the_promoted_backup_and_back(exchange: Running, tmp_path: Path) -> None:
    """Primary gone, backup promoted: orders are acknowledged at the backup; and back when that is demoted."""

    async def run() -> None:
        desk = Desk(tmp_path, exchange)
        await desk.until(lambda: desk.router.session_up)
        await desk.trade("1-C1")
        await control(exchange, gateway="primary", up=False)
        await control(exchange, gateway="backup", promoted=True)
        await desk.until(lambda: desk.router.session_up and desk.router.gateway == BACKUP)
        await desk.trade("1-C2")
        await control(exchange, gateway="primary", up=True)
        await control(exchange, gateway="backup", promoted=False, up=False)
        await desk.until(lambda: desk.router.session_up and desk.router.gateway == PRIMARY)
        await desk.trade("1-C3")
        await desk.close()

    asyncio.run(run())
    orders = exchange.get("/accounts/FIRM/orders")["orders"]
    assert [order["cl_ord_id"] for order in orders] == ["1-C1", "1-C2", "1-C3"]


def test_without_promotion_the_session_waits_for_the_primary(exchange: Running, tmp_path: Path) -> None:
    """A backup that is not promoted is asked and left; the next session is at the primary."""

    async def run() -> None:
        desk = Desk(tmp_path, exchange)
        await desk.until(lambda: desk.router.session_up)
        await control(exchange, gateway="primary", up=False)
        await desk.until(
            lambda: ("gateway_not_in_force", BACKUP) in [(e, d.get("gateway")) for e, d in desk.events]
        )
        assert not desk.router.session_up
        await control(exchange, gateway="primary", up=True)
        await desk.until(lambda: desk.router.session_up)
        assert desk.router.gateway == PRIMARY
        assert "gateway_changed" not in [event for event, _ in desk.events]
        await desk.trade("1-C1")
        await desk.close()

    asyncio.run(run())
