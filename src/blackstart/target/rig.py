"""All that stands around one target for one trial: the target, its oracle, its load.

And everybody who watches.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.errors import BlackstartError, ManifestError, TargetError
from blackstart.model.record import WORKLOAD_FAILED, Problem
from blackstart.target import managed_events, probes, signals, streams
from blackstart.target import services as sources
from blackstart.target.exchange_oracle import ExchangeOracle
from blackstart.target.local import LocalTarget
from blackstart.target.suggest import did_you_mean
from blackstart.target.workload import WorkloadProcess

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from blackstart.contracts import Clock, Probe, Protect, Signal, Sink
    from blackstart.model.manifest import EventSource, Manifest, Match, Service
    from blackstart.model.record import LedgerFile

COMPONENT_AGAIN_S = 0.1


def build(
    manifest: Manifest, *, run_dir: Path, seed: int, clock: Clock, sink: Sink, protect: Protect
) -> LocalRig:
    """Return the rig for one trial (a RigFactory); nothing is started before `rig.target.open()`."""
    target = LocalTarget(manifest, run_dir=run_dir, seed=seed, clock=clock, sink=sink, protect=protect)
    return LocalRig(target)


class LocalRig:
    """Implements Rig of `blackstart.contracts`."""

    def __init__(self, target: LocalTarget) -> None:
        manifest = target.manifest
        self.target = target
        self.oracle: ExchangeOracle | None = None
        self.workload: WorkloadProcess | None = None
        if manifest.oracle is not None:
            url = manifest.oracle.url
            self.oracle = ExchangeOracle(
                manifest, manifest.oracle, lambda: target.expand(url, where="oracle.url")
            )
        if manifest.workload is not None:
            self.workload = WorkloadProcess(
                manifest,
                run_dir=target.run_dir,
                seed=target.seed,
                settings=target.settings,
                spawn=target.operator.spawn,
            )
            target.on_restart.append(self.workload.refresh)

    async def watch(self, services: Sequence[str], interest: Sequence[Match]) -> None:
        """Watch signals, probes, deaths, the load, the service streams and the oracle's interesting events.

        It goes on until cancelled.

        Raises ManifestError when there is no such service, TargetError when another host is lost. A watcher
        that fails leaves a Problem and does not stop the others.
        """
        watching = [self._service(name) for name in services]
        jobs = [*watching, *self._signals(), *self._deaths(), *self._probes(services)]
        if self.oracle is not None:
            jobs.append(sources.oracle_events(self.oracle, interest, sink=self.target.sink))
        if self.workload is not None:
            jobs.append(self._load(self.workload))
        try:
            async with asyncio.TaskGroup() as group:
                for job in jobs:
                    group.create_task(self._guarded(job))
                await self.target.hosts.sight()
        except ExceptionGroup as failed:  # only the loss of a host gets here
            raise failed.exceptions[0] from None

    async def watch_symbols(self, service: str, sink: Sink) -> None:
        """Give events with the symbol as key (`chaos.radius.TellsSymbols`). Raises ManifestError."""
        spec = self.target.manifest.services.get(service)
        if spec is None or spec.symbol is None:
            raise ManifestError("has no `symbol`", where=f"services.{service}")
        await self._follow(service, msgspec.structs.replace(spec, key=spec.symbol), sink)

    async def acknowledged(self, stream: str, folder: Path) -> LedgerFile:
        """Write what was acknowledged of a stream, by the oracle or by the workload's ledger.

        Whichever the manifest names.
        """
        source = self.target.manifest.streams[stream].acknowledged
        keeper = self.workload if source == "workload" else self.oracle
        if keeper is None:
            raise TargetError(f"nobody keeps `{source}`", where=f"streams.{stream}.acknowledged")
        return await keeper.export(stream, folder)

    async def totals(self, stream: str) -> tuple[int | None, int | None]:
        """Return how many events were acknowledged and how many the target holds.

        None where that is not cheap to know.
        """
        source = self.target.manifest.streams[stream].acknowledged
        if source == "workload":
            acknowledged = await self.workload.total() if self.workload else None
        else:
            acknowledged = await self.oracle.total(source.removeprefix("oracle:")) if self.oracle else None
        return acknowledged, await streams.total(self.target, stream)

    def _service(self, name: str) -> Coroutine[Any, Any, None]:
        target, known = self.target, self.target.manifest.services
        if name not in known:
            raise ManifestError(f"no service `{name}`{did_you_mean(name, known)}", where=target.name)
        return self._follow(name, known[name], target.sink)

    def _follow(self, name: str, spec: Service, sink: Sink) -> Coroutine[Any, Any, None]:
        target, clock = self.target, self.target.clock
        if spec.source == "oracle" and self.oracle is not None:
            return sources.from_oracle(name, spec, self.oracle, sink=sink)
        if spec.source == "workload" and self.workload is not None:
            return sources.from_workload(name, spec, self.workload, clock=clock, sink=sink)
        if spec.source == "sql":
            dsn = target.expand(spec.dsn or "", where=f"services.{name}.dsn")
            return sources.from_sql(name, spec, dsn, clock=clock, sink=sink)
        if spec.source.startswith("probe:"):
            probe = self._probe(spec.source.removeprefix("probe:"))
            return sources.from_probe(name, probe, clock=clock, sink=sink)
        raise ManifestError(f"source `{spec.source}` is not there", where=f"services.{name}")

    def _signals(self) -> list[Coroutine[Any, Any, None]]:
        target = self.target
        sources = [self._source(name, spec) for name, spec in target.manifest.events.items()]
        return [signals.run(source, clock=target.clock, sink=target.sink) for source in sources]

    def _source(self, name: str, spec: EventSource) -> Signal:
        target = self.target
        if spec.files is None:
            logs, spawn = target.run_dir / "logs", target.operator.spawn
            return managed_events.source(name, spec, logs=logs, spawn=spawn, clock=target.clock)
        files = target.expand(spec.files, where=f"events.{name}")
        if spec.host is not None:
            return signals.RemoteLines(name, spec, files, target.hosts, target.clock)
        return signals.follow_events(name, spec, files, target.clock)

    def _probes(self, services: Sequence[str]) -> list[Coroutine[Any, Any, None]]:
        target = self.target
        busy = {target.manifest.services[name].source.removeprefix("probe:") for name in services}
        names = [name for name in target.manifest.probes if name not in busy]
        return [probes.run(self._probe(name), clock=target.clock, sink=target.sink) for name in names]

    def _probe(self, name: str) -> Probe:
        target = self.target
        return probes.make(
            name,
            target.manifest.probes[name],
            lambda text: target.expand(text, where=f"probes.{name}"),
            target.clock,
        )

    def _deaths(self) -> list[Coroutine[Any, Any, None]]:
        """Watch components that others start; processes of our own are watched from their start."""
        components = self.target.manifest.components
        here = {name: spec for name, spec in components.items() if spec.host is None}
        there = [name for name in components if name not in here]
        return [
            *(self._lives(name) for name, spec in here.items() if spec.process is None),
            *(self.target.hosts.lives(name) for name in there),
        ]

    async def _lives(self, component: str) -> None:
        while True:
            try:
                ref = await self.target.watch(component)
            except TargetError:
                await asyncio.sleep(COMPONENT_AGAIN_S)
            else:
                await self.target.death(ref)

    async def _load(self, workload: WorkloadProcess) -> None:
        """Tell when the load ends by itself: from then on no silence is the target's."""
        ended_ns, how = await workload.ended()
        self.target.sink(Problem(code=WORKLOAD_FAILED, text=how, mono_ns=ended_ns))

    async def _guarded(self, job: Coroutine[Any, Any, None]) -> None:
        try:
            await job
        except BlackstartError as error:
            self._problem(error.render())
        except Exception as error:  # noqa: BLE001 - the others go on watching; the verdict hears of it
            self._problem(f"{type(error).__name__}: {error}")

    def _problem(self, text: str) -> None:
        now = self.target.clock.now().mono_ns
        self.target.sink(Problem(code="watch-failed", text=text, mono_ns=now))
