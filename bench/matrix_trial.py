"""One trial of the guardian matrix: `python -m bench.matrix_trial RUNS KIND [--raise]`.

The fault is taken from the packaged scenarios; it stays in place until the trial ends.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from blackstart.check.analyse import analyse
from blackstart.engine import single, worker
from blackstart.engine.conductor import Kit
from blackstart.engine.suite import RunOptions, run_suite
from blackstart.faults import registry
from blackstart.host import namespaces
from blackstart.model.scenario import FaultStep, Load, Observe, Scenario, Steady, Trigger
from blackstart.scenario import load as scenarios
from blackstart.scenario.plan import carry, plan
from blackstart.target import manifest as manifests

if TYPE_CHECKING:
    from blackstart.contracts import Fault, FaultContext
    from blackstart.model.fault import Receipt

TARGET = "paperfirm"


class Example(NamedTuple):
    """How the packaged scenarios use a fault, or why it cannot be tried."""

    scenario: Scenario | None
    missing: str | None


@functools.cache
def example(kind: str) -> Example:
    """Find the first packaged scenario with that fault, and make it one that does nothing else."""
    manifest = manifests.load(TARGET)
    for one in scenarios.packaged():
        for step in (one.fault, *one.then):
            if step.kind == kind:
                short = _alone(one, step)
                why = carry(manifest, short) or registry.make(kind).unavailable(manifest, step)
                return Example(short, why)
    return Example(None, "no packaged scenario uses it")


def _alone(scenario: Scenario, step: FaultStep) -> Scenario:
    first = msgspec.structs.replace(step, duration_s=None, trigger=Trigger(), components=_one(step))
    return msgspec.structs.replace(
        scenario,
        fault=first,
        then=(),
        expect=(),
        prepare=scenario.prepare if step is scenario.fault else (),
        trigger=Trigger(),
        load=Load(minimum_per_s=1),
        steady=Steady(hold_s=0.2),
        observe=Observe(limit_s=6, after_s=0.1, quiesce_s=1),
    )


def _one(step: FaultStep) -> tuple[str, ...]:
    """One component is enough where a scenario goes through them all."""
    return ("risk",) if "@each" in step.components else step.components


class Raising:
    """A fault that breaks things and then fails inside `inject`."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self.name = fault.name
        if hasattr(fault, "prepare"):
            self.prepare = fault.prepare
        if hasattr(fault, "aim"):
            self.aim = fault.aim

    def unavailable(self, target: Any, step: FaultStep) -> str | None:
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
    manifest = manifests.load(TARGET)
    scenario = example(kind).scenario
    assert scenario is not None
    options = RunOptions(runs=Path(runs), seed=7, kit=Kit(), conduct=worker.run)
    if more:
        isolation = namespaces.enter(k for k in manifest.isolation if namespaces.unavailable(k) is None)
        kit = Kit(isolation=isolation, fault=lambda name: Raising(registry.make(name)))  # type: ignore[arg-type,return-value]
        options = RunOptions(runs=Path(runs), seed=7, kit=kit, conduct=single.run, analyse=analyse)
    run = asyncio.run(run_suite(manifest, plan(scenario, manifest, seed=7), options))
    for trial in run.trials:
        print(trial.verdict, *trial.reasons, sep="\t")


if __name__ == "__main__":
    main()
