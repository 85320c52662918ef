"""One trial of the guardian matrix: `python -m bench.matrix_trial RUNS KIND [--raise]`.

The fault stays in place until the trial ends. `RUNS --next-start` does what every start of Blackstart does.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackstart.check.analyse import analyse
from blackstart.engine import leftovers, single, worker
from blackstart.engine.conductor import Kit
from blackstart.engine.suite import RunOptions, run_suite
from blackstart.faults import registry
from blackstart.host import namespaces
from blackstart.scenario.plan import plan
from blackstart.target import manifest as manifests
from blackstart.testing import examples

if TYPE_CHECKING:
    from blackstart.contracts import Fault, FaultContext
    from blackstart.model.fault import Receipt
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep


class Raising:
    """A fault that breaks things and then fails inside `inject`."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self.name = fault.name
        for ability in ("prepare", "aim"):
            if hasattr(fault, ability):
                setattr(self, ability, getattr(fault, ability))

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See the fault."""
        return self._fault.unavailable(target, step)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Break it, and break down."""
        await self._fault.inject(ctx, step)
        raise RuntimeError("an exception in the middle of inject")

    witness: Any = None
    revert: Any = None


def main() -> None:
    """Run the trial as `blackstart` does, in a worker; the raising one in this process."""
    runs, kind, *more = sys.argv[1:]
    if kind == "--next-start":
        leftovers.clear(Path(runs))
        return
    manifest = manifests.load(examples.EXAMPLES[kind].target)
    options = RunOptions(runs=Path(runs), seed=7, kit=Kit(), conduct=worker.run)
    if more:
        isolation = namespaces.enter(k for k in manifest.isolation if namespaces.unavailable(k) is None)
        kit = Kit(isolation=isolation, fault=lambda name: Raising(registry.make(name)))  # type: ignore[arg-type,return-value]
        options = RunOptions(runs=Path(runs), seed=7, kit=kit, conduct=single.run, analyse=analyse)
    run = asyncio.run(run_suite(manifest, plan(examples.trial(kind), manifest, seed=7), options))
    for trial in run.trials:
        print(trial.verdict, *trial.reasons, sep="\t")


if __name__ == "__main__":
    main()
