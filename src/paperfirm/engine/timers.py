"""Periodic work on the event loop, with a record of when each timer last fired."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer(msgspec.Struct):
    """A timer as shown under `/state/infrastructure`."""

    name: str
    period_ms: float
    last_fired_mono_ns: int = 0


class Timers:
    """All timers of the process."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._mono = clock
        self._timers: dict[str, tuple[Timer, asyncio.TimerHandle]] = {}

    def every(self, name: str, period_s: float, work: Callable[[], Any]) -> None:
        """Call `work` every `period_s`; late turns are not made up for."""
        timer = Timer(name, period_s * 1000)
        loop = asyncio.get_running_loop()

        def fire() -> None:
            timer.last_fired_mono_ns = self._mono()
            self._timers[name] = (timer, loop.call_later(period_s, fire))
            work()

        self._timers[name] = (timer, loop.call_later(period_s, fire))

    def stop(self, *names: str) -> None:
        """Stop some timers, or all."""
        for name in names or list(self._timers):
            found = self._timers.pop(name, None)
            if found is not None:
                found[1].cancel()

    def documents(self) -> list[dict[str, Any]]:
        """Return the rows of `/state/infrastructure`."""
        return [msgspec.to_builtins(timer) for timer, _ in self._timers.values()]
