"""Whether a load that is over was told to end, or is missed."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from blackstart.engine.clocks import SystemClock
from blackstart.model.record import ServiceWatched
from blackstart.target.services import Watched, _beat


@pytest.mark.parametrize("told", [True, False])
def test_a_load_that_was_told_to_end_is_not_missed(*, told: bool) -> None:
    """The watch may outlive the load by a moment: only an end that nobody asked for is an error."""
    records: list[Any] = []
    watched = Watched("orders", records.append)
    workload: Any = SimpleNamespace(running=True, stopping=False)

    async def main() -> None:
        looked = asyncio.Event()

        def now() -> Any:
            looked.set()
            return SystemClock().now()

        clock: Any = SimpleNamespace(now=now)
        beat = asyncio.ensure_future(_beat(watched, workload, clock))
        await looked.wait()
        workload.running, workload.stopping = False, told
        await asyncio.sleep(0.2)
        beat.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beat
        watched.end()

    asyncio.run(main())
    (found,) = records
    assert isinstance(found, ServiceWatched)
    assert found.error == (None if told else "the workload does not run")
