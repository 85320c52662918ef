"""How busy host and components are, measured by us four times a second.

For the infrastructure validator (R54).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

import psutil

from blackstart.contracts import Clock, HasHosts, HasProcesses, Sink, Target
from blackstart.errors import BlackstartError
from blackstart.host import procs
from blackstart.model.record import ResourceSample

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PERIOD_NS = 250_000_000
_RESOLVE_EVERY = 4


class Sampler:
    """Samples until cancelled.

    Processes are looked up anew once a second, because faults change them; those that are gone before
    every sample, so that their return is seen when it happens. Those of other hosts are measured there, by
    the helper.
    """

    def __init__(
        self, target: Target, components: Iterable[str], folder: Path, clock: Clock, sink: Sink
    ) -> None:
        self._target = target
        there = target.manifest.host_of if isinstance(target, HasHosts) else lambda _: None
        self._remote = tuple(name for name in components if there(name) is not None)
        self._components = tuple(name for name in components if name not in self._remote)
        self._there: dict[str, dict[str, Any]] = {}
        self._folder = folder
        self._clock = clock
        self._sink = sink
        self._processes: dict[str, psutil.Process] = {}

    async def run(self) -> None:
        """Sample for ever."""
        psutil.cpu_percent()
        due_ns = self._clock.now().mono_ns
        turn = 0
        missing: tuple[str, ...] = ()
        while True:
            await self._resolve(self._components if turn % _RESOLVE_EVERY == 0 else missing)
            due_ns += PERIOD_NS
            await self._clock.sleep_until(due_ns)
            await self._ask_there()
            sample = self.sample()
            self._sink(sample)
            missing = _missing(self._components, sample)
            turn += 1

    def sample(self) -> ResourceSample:
        """Measure once."""
        found = ((name, _component(process)) for name, process in self._processes.items())
        return ResourceSample(
            mono_ns=self._clock.now().mono_ns,
            cpu_percent=psutil.cpu_percent(),
            memory_percent=psutil.virtual_memory().percent,
            disk_percent=_disk_percent(self._folder),
            components={**{name: one for name, one in found if one is not None}, **self._there},
        )

    async def _ask_there(self) -> None:
        target = self._target
        if isinstance(target, HasHosts) and self._remote:
            found = await asyncio.gather(*(target.measure(name) for name in self._remote))
            pairs = zip(self._remote, found, strict=True)
            self._there = {name: dict(one) for name, one in pairs if one is not None}

    async def _resolve(self, names: Iterable[str]) -> None:
        target = self._target
        if not isinstance(target, HasProcesses):
            return
        for name in names:
            known = self._processes.get(name)
            with contextlib.suppress(BlackstartError, psutil.Error):
                pid = (await target.process(name)).pid
                if known is None or known.pid != pid:
                    self._processes[name] = psutil.Process(pid)


def _missing(names: Iterable[str], sample: ResourceSample) -> tuple[str, ...]:
    return tuple(n for n in names if sample.components.get(n, {}).get("state", "zombie") == "zombie")


def _component(process: psutil.Process) -> dict[str, Any] | None:
    try:
        with process.oneshot():
            times = process.cpu_times()
            return {
                "pid": process.pid,
                "cpu_s": times.user + times.system,
                "rss": process.memory_info().rss,
                "threads": process.num_threads(),
                "state": process.status(),
                "thread_states": procs.thread_states(process.pid),
            }
    except psutil.Error:
        return None


def _disk_percent(folder: Path) -> float:
    """Share of the disk that an ordinary user can no longer use, like `df` counts it."""
    disk = os.statvfs(folder)
    used = disk.f_blocks - disk.f_bfree
    return 100.0 * used / max(used + disk.f_bavail, 1)
