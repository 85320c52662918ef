"""Measuring follows what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

from blackstart.engine.resources import PERIOD_NS, Sampler
from blackstart.errors import TargetError
from blackstart.model.fault import ProcessRef
from blackstart.model.instant import Instant

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.model.record import Record


class Clock:
    """A clock that jumps to whatever is waited for."""

    mono_ns = 0

    def now(self) -> Instant:
        """Say when it is."""
        return Instant(mono_ns=self.mono_ns, wall_ns=self.mono_ns)

    async def sleep_until(self, mono_ns: int) -> None:
        """Go there."""
        self.mono_ns = mono_ns
        await asyncio.sleep(0)


class Target:
    """A target one of whose components is there only from a certain moment on."""

    def __init__(self, clock: Clock, from_ns: int) -> None:
        self._clock = clock
        self._from_ns = from_ns

    async def process(self, component: str) -> ProcessRef:
        """Return this very process, for want of a better one."""
        del component
        if self._clock.mono_ns < self._from_ns:
            raise TargetError("not there yet")
        return ProcessRef(pid=os.getpid(), start_ticks=1)


def test_what_comes_back_is_measured_in_the_next_sample(tmp_path: Path) -> None:
    """A component that was gone is not looked for once a second only: the end of a trial may be near."""
    clock = Clock()
    taken: list[Any] = []

    def sink(record: Record) -> None:
        taken.append(record)
        if len(taken) == 3:
            raise asyncio.CancelledError

    target: Any = Target(clock, PERIOD_NS)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(Sampler(target, ["a"], tmp_path, clock, sink).run())
    assert [list(sample.components) for sample in taken] == [[], ["a"], ["a"]]
