"""The local rig, watching as many service streams as a trial needs (`contracts.Rig.watch`).

`target.rig.LocalRig.watch` takes one stream with everything else; each further stream is watched beside it.
The oracle learns to be disarmed and to let the market rest.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, cast

from blackstart.errors import ManifestError
from blackstart.model.fault import Undo
from blackstart.target import rig as local
from blackstart.target import services as streams
from blackstart.target.exchange_oracle import ExchangeOracle

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from blackstart.contracts import Clock, Oracle, Protect, Rig, Sink, Target, Workload
    from blackstart.model.manifest import Manifest, Match
    from blackstart.model.record import Record

_ONE_AT_A_TIME = "service" in inspect.signature(local.LocalRig.watch).parameters


class WideRig:
    """Implements `contracts.Rig` around a `LocalRig`."""

    def __init__(self, inner: local.LocalRig, clock: Clock, sink: Sink) -> None:
        self._inner, self._clock, self._sink = inner, clock, sink

    @property
    def target(self) -> Target:
        """See `contracts.Rig`."""
        return self._inner.target

    @property
    def oracle(self) -> Oracle | None:
        """See `contracts.Rig`."""
        return self._inner.oracle

    @property
    def workload(self) -> Workload | None:
        """See `contracts.Rig`."""
        return self._inner.workload

    async def watch(self, services: Sequence[str], interest: Sequence[Match]) -> None:
        """See `contracts.Rig`."""
        watch = cast("Any", self._inner.watch)
        if not _ONE_AT_A_TIME:
            await watch(services, interest)
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(watch(services[0], interest))
            for name in services[1:]:
                group.create_task(self._further(name))

    async def acknowledged(self, stream: str, folder: Path) -> Record:
        """See `contracts.Rig`."""
        return await self._inner.acknowledged(stream, folder)

    async def totals(self, stream: str) -> tuple[int | None, int | None]:
        """See `contracts.Rig`."""
        return await self._inner.totals(stream)

    def _further(self, name: str) -> Coroutine[Any, Any, None]:
        target, inner = self._inner.target, self._inner
        spec = target.manifest.services[name]
        if spec.source == "oracle" and inner.oracle is not None:
            return streams.from_oracle(name, spec, inner.oracle, sink=self._sink)
        if spec.source == "workload" and inner.workload is not None:
            return streams.from_workload(name, spec, inner.workload, clock=self._clock, sink=self._sink)
        raise ManifestError(
            f"`{spec.source}` cannot carry the load", where=f"services.{name}", hint="oracle or workload"
        )


class Exchange(ExchangeOracle):
    """The paper exchange as the oracle, able to be disarmed by the guardian and to let the market rest."""

    def disarm(self) -> Undo:
        """See `contracts.Misbehaving`."""
        arguments = {"method": "DELETE", "url": f"{self._url()}/control/misbehave"}
        return Undo(id="exchange:disarm", action="http", arguments=arguments)

    async def quiet(self) -> None:
        """See `contracts.Quiets`."""
        await self._post("/control/phase", {"phase": "close"})


def build(manifest: Manifest, *, run_dir: Path, seed: int, clock: Clock, sink: Sink, protect: Protect) -> Rig:
    """Make the rig for one trial; see `contracts.RigFactory`."""
    inner = local.build(manifest, run_dir=run_dir, seed=seed, clock=clock, sink=sink, protect=protect)
    if manifest.oracle is not None:
        url = manifest.oracle.url
        inner.oracle = Exchange(
            manifest, manifest.oracle, lambda: inner.target.expand(url, where="oracle.url")
        )
    return WideRig(inner, clock, sink)
