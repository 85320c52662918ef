"""What this room's tests share: a rig around a small manifest, and waiting for a condition."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from blackstart.model.instant import Instant
from blackstart.model.manifest import Component, Manifest, Process, Ready
from blackstart.model.record import ProcessSeen, Record, ServiceBatch
from blackstart.target.rig import LocalRig, build

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from blackstart.model.fault import Undo


class Clock:
    """The kernel's clocks."""

    def now(self) -> Instant:
        """Read both."""
        return Instant(time.monotonic_ns(), time.time_ns())

    async def sleep_until(self, mono_ns: int) -> None:
        """Wait."""
        while (left := mono_ns - time.monotonic_ns()) > 0:  # noqa: ASYNC110 - time itself is awaited
            await asyncio.sleep(left / 1e9)


class Notes:
    """Sink and guardian in one: keeps the records, and what was put under protection and when."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.undos: list[Undo] = []

    async def protect(self, undos: Iterable[Undo]) -> None:
        """Hold undo records."""
        self.undos.extend(undos)

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the records of a kind."""
        return [record for record in self.records if isinstance(record, kind)]

    def seen(self, what: str) -> list[ProcessSeen]:
        """Return what happened to processes."""
        return [record for record in self.of(ProcessSeen) if record.what == what]

    def seen_all(self) -> list[ProcessSeen]:
        """Return everything that happened to processes."""
        return self.of(ProcessSeen)

    def events(self) -> list[tuple[int, str, int]]:
        """Return all service events."""
        return [event for batch in self.of(ServiceBatch) for event in batch.events]


async def until(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    """Wait for a condition; fail when it does not come."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come"
        await asyncio.sleep(0.005)


def manifest(command: list[str], **process: Any) -> Manifest:
    """Return a manifest with one process `server`, which is the component `main`."""
    ready = process.pop("ready", Ready(limit_s=10.0))
    server = Process(command=tuple(command), ready=ready, **process)
    main = {"main": Component(process="server")}
    return Manifest(schema=1, name="t", environment="test", processes={"server": server}, components=main)


@asynccontextmanager
async def rig(described: Manifest, folder: Path) -> AsyncIterator[tuple[LocalRig, Notes]]:
    """Open a target and close it again, whatever happens."""
    notes = Notes()
    made = build(
        described, run_dir=folder, seed=7, clock=Clock(), sink=notes.records.append, protect=notes.protect
    )
    try:
        await made.target.open()
        yield made, notes
    finally:
        if made.workload is not None:
            await made.workload.stop()
        await made.target.close()
