"""All that stands around one target for one trial."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from blackstart.model.fault import Undo

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.contracts.oracle import Oracle, Workload
    from blackstart.contracts.seeing import Clock, Sink
    from blackstart.contracts.target import Target
    from blackstart.model.manifest import Manifest, Match
    from blackstart.model.record import Record


class Rig(Protocol):
    """All that stands around one target for one trial.

    `blackstart.target.rig.build` makes it from a manifest.
    """

    @property
    def target(self) -> Target:
        """Return the target; nothing is started before its `open`."""
        ...

    @property
    def oracle(self) -> Oracle | None:
        """Return the oracle, if the manifest names one."""
        ...

    @property
    def workload(self) -> Workload | None:
        """Return the load, if the manifest names one."""
        ...

    async def watch(self, services: Sequence[str], interest: Sequence[Match]) -> None:
        """Watch signals, probes, component deaths, the named service streams and oracle events of interest.

        Until cancelled. Called once the target is open. Everything seen goes to the rig's sink at once, as
        records; service events as a `ServiceBatch` of one or more (the recorder merges them), events that
        match `interest` as `OracleSeen` too. A probe's first answer counts as a change. Leaves a
        `ServiceWatched` for each service behind when cancelled, and when it lost sight.
        """
        ...

    async def acknowledged(self, stream: str, folder: Path) -> Record:
        """Write what was acknowledged of a stream, by the oracle or by the workload.

        Returns its `LedgerFile`.
        """
        ...

    async def totals(self, stream: str) -> tuple[int | None, int | None]:
        """How many events were acknowledged and how many the target holds.

        None where counting is not cheap.
        """
        ...


Protect = Callable[[Iterable[Undo]], Awaitable[None]]
"""See `FaultContext.protect`: every process that Blackstart starts is protected by a `kill` undo, too."""


class RigFactory(Protocol):
    """Makes the rig for one trial; nothing is started before `rig.target.open()`."""

    def __call__(
        self, manifest: Manifest, *, run_dir: Path, seed: int, clock: Clock, sink: Sink, protect: Protect
    ) -> Rig:
        """Make it. Raises ManifestError when the manifest names something that is not there."""
        ...
