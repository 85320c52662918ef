"""A session of chaos with fakes under a simulated clock, for the tests beside this file."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import engine_fakes as fakes
import msgspec
import pytest

from blackstart.chaos import log
from blackstart.chaos.judge import here
from blackstart.chaos.model import Candidate, Orders, Profile, Radius, Summary
from blackstart.chaos.plan import Planned, choices
from blackstart.chaos.session import conduct
from blackstart.engine.clocks import SimClock, simulate
from blackstart.engine.conductor import Kit
from blackstart.engine.resources import Sampler
from blackstart.model.manifest import StateDocument
from blackstart.model.record import ProcessSeen, ResourceSample, ServiceBatch
from blackstart.model.stops import Stops
from blackstart.target.ledger import Row, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


FAULT = Candidate(kind="fake", components=("server",), duration_s=(0.05, 0.05))
LONG_S = 4.0
LONG = Candidate(kind="fake", components=("server",), duration_s=(LONG_S, LONG_S))
DOCUMENT = StateDocument(url="http://nowhere")
PERIOD_S = 0.005  # of the probe of the simulated system


class Stage:
    """A session with fakes, and what became of it."""

    def __init__(self, folder: Path, *, stop: Stops | None = None, **world: Any) -> None:
        self.folder = folder
        self.settings = {"rate": 400, "outage_ms": 80, **world}
        self.profile = Profile(
            name="simulated",
            title="simulated",
            environments=("sim",),
            schedule="-",
            fault=(FAULT,),
            interval_s=(10.0, 12.0),
            recovery_limit_s=10.0,
            settle_s=2.0,
            stop=stop or Stops(not_recovered_s=20.0),
        )
        self.manifest = fakes.manifest()
        self.world: Any = None
        self.watch_symbols: Any = None
        self.fault: Any = fakes.FakeFault
        self.guard: Any = None
        self.closes_after_s: float | None = None
        self.told: list[tuple[str, Any]] = []
        self.on: dict[str, Callable[[], None]] = {}
        self.judge: Any = here
        self.hear: Callable[[str, Any], None] = lambda _event, _figures: None
        self.clock: Any = None
        self.components: dict[str, int] = {}
        self.sticks = False
        self.oracle: Any = None
        self.documents: dict[str, Any] = {}
        self.ledgers: Callable[[], tuple[int, int]] | None = None
        """How many events of a stream each side has, and of which the target lacks the first ones."""
        self.totals: Callable[[], tuple[int | None, int | None]] = lambda: (None, None)

    def kit(self) -> Kit:
        """Put the fakes in the place of the real ones."""
        self.clock = clock = SimClock(asyncio.get_running_loop())

        def rig(_manifest: Any, *, sink: Any, **_: Any) -> Any:
            self.world = fakes.World(clock, sink, **self.settings)
            made = fakes.FakeRig(self.world)
            made.target.manifest = self.manifest

            async def totals(_stream: str) -> tuple[int | None, int | None]:
                return self.totals()

            async def document(name: str) -> Any:
                return self.documents[name]

            self._keep_ledgers(made)
            made.totals = totals
            made.oracle = self.oracle
            if self.documents:
                made.target.document = document
            if self.watch_symbols is not None:
                made.watch_symbols = self.watch_symbols
            return made

        async def guard(_run: Path, *, on_halt: Any) -> Any:
            self.guard = fakes.FakeGuard([], sticks=self.sticks)
            self.guard.on_halt = on_halt
            return self.guard

        def progress(event: str, figures: Any) -> None:
            self.told.append((event, figures))
            self.hear(event, figures)
            if event in self.on:
                self.on[event]()

        return Kit(
            clock=clock,
            rig=rig,
            guard=guard,
            fault=lambda _kind: self.fault(lambda: self.world),
            progress=progress,
        )

    def _keep_ledgers(self, made: Any) -> None:
        """Have both sides read by their keys, where `ledgers` says what they hold."""
        ledgers = self.ledgers
        if ledgers is None:
            return

        async def acknowledged(stream: str, folder: Path) -> Any:
            return self._written(stream, "acknowledged", folder, range(ledgers()[0]))

        async def held(stream: str, folder: Path) -> Any:
            count, lacks = ledgers()
            return self._written(stream, "recovered", folder, range(lacks, count))

        made.acknowledged, made.target.export = acknowledged, held
        made.target.document = lambda name: self.documents[name]

    def _written(self, stream: str, side: Any, folder: Path, keys: Iterable[int]) -> Any:
        writer = Writer(stream, side, folder)
        for key in keys:
            writer.add(Row(key=str(key)))
        return writer.close()

    def run(self, **orders: Any) -> Summary:
        """Conduct the session in simulated time; work beside the loop is done at once."""
        settings: dict[str, Any] = {"target": "simulated", "profile": self.profile, "seed": 7, **orders}

        async def at_once(work: Any, *arguments: Any) -> Any:
            await asyncio.sleep(0)
            return work(*arguments)

        async def main() -> Summary:
            found, _ = choices(self.profile, self.manifest, lambda _step: None)
            wanted = Orders(**settings, not_after_wall_ns=self._closes())
            planned = Planned(found, wanted, self.manifest)
            return await conduct(
                wanted, self.manifest, self.folder, self.kit(), planned, aside=at_once, judge=self.judge
            )

        def measured(sampler: Any) -> ResourceSample:
            return self.sample(sampler._clock.now().mono_ns)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sampler, "sample", measured)
            return simulate(main())

    def sample(self, mono_ns: int) -> ResourceSample:
        """Measure the `components` that live now."""
        living = {
            name: {"pid": pid, "state": "sleeping", "rss": 1, "cpu_s": 0.0}
            for name, pid in self.components.items()
        }
        return ResourceSample(
            mono_ns=mono_ns, cpu_percent=1.0, memory_percent=1.0, disk_percent=1.0, components=living
        )

    def dies(self, component: str) -> None:
        """Let a component end, as the watcher of deaths tells it."""
        pid, now = self.components.pop(component), self.clock.now().mono_ns
        self.world.sink(ProcessSeen(component=component, what="exited", pid=pid, mono_ns=now))

    def ctrl_c(self) -> None:
        """End the session in order."""
        main = next(task for task in asyncio.all_tasks() if task.get_coro().__name__ == "main")  # type: ignore[union-attr]
        main.cancel()

    def _closes(self) -> int | None:
        """Return when the window closes, by the simulated wall clock."""
        now = SimClock(asyncio.get_running_loop()).now().wall_ns
        return None if self.closes_after_s is None else now + round(self.closes_after_s * 1e9)

    def limit_to(self, symbol: str, *, falls_silent: bool = False, trades: bool = True) -> None:
        """Allow only this symbol to be disturbed; BRAVO, outside, trades every 0.2 s, or else as said."""
        services = {
            name: msgspec.structs.replace(one, symbol="symbol")
            for name, one in self.manifest.services.items()
        }
        self.manifest = msgspec.structs.replace(self.manifest, symbols=(symbol, "BRAVO"), services=services)
        self.profile = msgspec.structs.replace(self.profile, radius=Radius(symbols=(symbol,)))

        async def watch_symbols(service: str, sink: Any) -> None:
            while True:
                await self.world.wait_ms(200)
                if trades and not (falls_silent and self.world.down.is_set()):
                    sink(ServiceBatch(service=service, events=[(self.world.clock.now().mono_ns, "BRAVO", 0)]))

        self.watch_symbols = watch_symbols

    def codes(self) -> list[str]:
        """Name the alerts in order."""
        return [one.code for one in log.alerts(self.folder)]

    def after(self, moment: Callable[[], None], delay_s: float) -> None:
        """Do something that long after the chaos has begun."""

        def begin() -> None:
            asyncio.get_running_loop().call_later(delay_s, moment)

        self.on["playing"] = begin
