"""One trial of the guardian matrix: `python -m bench.matrix_trial RUNS KIND [--hold | --raise WHERE]`.

The fault stays in place until the trial ends, soon or, with `--hold`, after a minute. `--raise after` has
`inject` fail when its deed is done, `before` between the undo record and the deed, `middle` in mid-deed: half
way through its lines, of which `--raise count` tells how many there are. `RUNS --next-start` does what every
start of Blackstart does.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from blackstart.check.analyse import analyse
from blackstart.engine import leftovers, single, worker
from blackstart.engine.conductor import Kit
from blackstart.engine.suite import RunOptions, run_suite
from blackstart.faults import registry
from blackstart.host import namespaces
from blackstart.model.scenario import Observe
from blackstart.scenario.plan import plan
from blackstart.target import manifest as manifests
from blackstart.testing import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from blackstart.contracts import Fault, FaultContext
    from blackstart.model.fault import Receipt, Undo, Witness
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep, Scenario

    TraceFunction = Callable[[FrameType, str, object], object]


FAULTS = str(Path(registry.__file__).parent)
BROKEN = "an exception in the middle of inject"


class Raising:
    """A fault that fails inside `inject`: when its deed is done, or at a line of its own code.

    Lines count from the return of the first `protect`: from then on something is owed.
    """

    def __init__(self, fault: Fault, where: str) -> None:
        self._fault = fault
        self._at = int(where) if where.isdigit() else {"before": 1}.get(where)
        self._counts = where == "count"
        self._lines: int | None = None
        self.name = fault.name
        for ability in ("prepare", "aim"):
            if hasattr(fault, ability):
                setattr(self, ability, getattr(fault, ability))

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See the fault."""
        return self._fault.unavailable(target, step)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Break it, and break down."""
        if self._at is None and not self._counts:
            await self._fault.inject(ctx, step)
            raise RuntimeError(BROKEN)
        protect = ctx.protect

        async def protected(undos: Iterable[Undo]) -> None:
            await protect(undos)
            self._lines = self._lines or 0

        ctx.protect = protected  # type: ignore[method-assign]
        sys.settrace(self._enter)
        try:
            receipt = await self._fault.inject(ctx, step)
        finally:
            sys.settrace(None)
            ctx.protect = protect  # type: ignore[method-assign]
        print(f"lines of inject\t{self._lines or 0}", flush=True)
        if self._counts:
            return receipt
        raise RuntimeError(BROKEN)  # the deed has fewer lines than that, or needs no undo

    def _enter(self, frame: FrameType, _event: str, _arg: object) -> TraceFunction | None:
        return self._line if frame.f_code.co_filename.startswith(FAULTS) else None

    def _line(self, _frame: FrameType, event: str, _arg: object) -> TraceFunction | None:
        if event == "line" and self._lines is not None:
            self._lines += 1
            if self._lines == self._at:
                raise RuntimeError(BROKEN)
        return self._line

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """See the fault: a trial that only counts comes so far."""
        return await self._fault.witness(ctx, receipt)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """See the fault."""
        await self._fault.revert(ctx, receipt)


def scenario(kind: str, *, hold: bool) -> Scenario:
    """Return the example as a scenario; with `hold` it is watched for a minute."""
    made = examples.trial(kind)
    return structs.replace(made, observe=Observe(limit_s=60, after_s=60, quiesce_s=1)) if hold else made


def main() -> None:
    """Run the trial as `blackstart` does, in a worker; the raising one in this process."""
    runs, kind, *more = sys.argv[1:]
    if kind == "--next-start":
        leftovers.clear(Path(runs))
        return
    manifest = manifests.load(examples.EXAMPLES[kind].target)
    options = RunOptions(runs=Path(runs), seed=7, kit=Kit(), conduct=worker.run)
    if more[:1] == ["--raise"]:
        isolation = namespaces.enter(k for k in manifest.isolation if namespaces.unavailable(k) is None)
        kit = Kit(isolation=isolation, fault=lambda name: Raising(registry.make(name), more[1]))  # type: ignore[arg-type,return-value]
        options = RunOptions(runs=Path(runs), seed=7, kit=kit, conduct=single.run, analyse=analyse)
    planned = plan(scenario(kind, hold=more == ["--hold"]), manifest, seed=7)
    run = asyncio.run(run_suite(manifest, planned, options))
    for trial in run.trials:
        print(trial.verdict, *trial.reasons, sep="\t")


if __name__ == "__main__":
    main()
