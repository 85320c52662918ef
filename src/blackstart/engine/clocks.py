"""Clocks: the real one, and a simulated one that jumps forward as soon as everybody waits."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from blackstart.model.instant import Instant

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


_AT_ONCE_NS, _TRIES = 20_000, 5


class SystemClock:
    """The kernel's clocks."""

    def now(self) -> Instant:
        """Read both clocks at one moment: who loses the processor between the two reads, reads again.

        The distance of the two moves stamps from one clock to the other, and must not hold what was lost.
        """
        for _ in range(_TRIES):
            mono_ns, wall_ns = time.monotonic_ns(), time.time_ns()
            if time.monotonic_ns() - mono_ns <= _AT_ONCE_NS:
                break
        return Instant(mono_ns, wall_ns)

    async def sleep_until(self, mono_ns: int) -> None:
        """Wait until the monotonic clock shows `mono_ns`.

        Never returns early, though timers may fire early.
        """
        while (left_ns := mono_ns - time.monotonic_ns()) > 0:  # noqa: ASYNC110 - there is no event but the time
            await asyncio.sleep(left_ns / 1e9)


class SimLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer when nothing is ready.

    `limit_s` ends a simulation that would wait for ever: with nothing to wait for, that is a deadlock.
    """

    def __init__(self, *, start_s: float = 1000.0, limit_s: float = 1e6) -> None:
        super().__init__()
        self._now = start_s
        self._end = start_s + limit_s

    def time(self) -> float:
        """Return the simulated seconds."""
        return self._now

    def _run_once(self) -> None:
        # `_ready` and `_scheduled` are the base loop's own queues; they have not changed since Python 3.4.
        if not self._ready and not self._scheduled:  # type: ignore[attr-defined]
            raise RuntimeError("simulation: everybody waits for something that never comes")
        if not self._ready:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0]._when)  # type: ignore[attr-defined] # noqa: SLF001 - as above
        if self._now > self._end:
            raise RuntimeError("simulation: the time limit is over")
        super()._run_once()  # type: ignore[misc]


class SimClock:
    """The clock of a `SimLoop`; wall time starts at `wall_start_ns`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, wall_start_ns: int = 1_700_000_000_000_000_000
    ) -> None:
        self._loop = loop
        self._offset_ns = wall_start_ns - self._mono_ns()

    def now(self) -> Instant:
        """Read the simulated time."""
        mono_ns = self._mono_ns()
        return Instant(mono_ns, mono_ns + self._offset_ns)

    async def sleep_until(self, mono_ns: int) -> None:
        """Wait in simulated time."""
        while self._mono_ns() < mono_ns:  # noqa: ASYNC110 - there is no event but the time
            await asyncio.sleep(max((mono_ns - self._mono_ns()) / 1e9, 1e-9))

    def _mono_ns(self) -> int:
        return round(self._loop.time() * 1e9)


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a simulated loop; `SimClock(asyncio.get_running_loop())` tells its time."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(main)


async def pause(clock: SystemClock | SimClock, seconds: float) -> None:
    """Wait for a while by `clock`."""
    await clock.sleep_until(clock.now().mono_ns + round(seconds * 1e9))
