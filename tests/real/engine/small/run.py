"""Run trials as `blackstart` does: RUNS SCENARIO…. Prints each stage; ends with the trial's folder.

`JOBS` side by side; the server starts `LATE` seconds late.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.engine import worker
from blackstart.engine.conductor import Kit
from blackstart.engine.suite import RunOptions, run_suite
from blackstart.scenario.load import load as scenarios
from blackstart.scenario.load import select
from blackstart.scenario.plan import plan
from blackstart.target.manifest import load
from blackstart.testing.examples import SMALL

if TYPE_CHECKING:
    from collections.abc import Mapping


def progress(event: str, figures: Mapping[str, Any]) -> None:
    """Say how far it is."""
    what = figures.get("stage") or figures.get("folder") or ""
    print(event, what, flush=True)
    if event == "trial-ended":
        print("verdict", figures["trial"].verdict, *figures["trial"].reasons, sep="\t", flush=True)


manifest = load(SMALL)
server = manifest.processes["server"]
late = msgspec.structs.replace(server, command=[*server.command, os.environ.get("LATE", "0")])
manifest = msgspec.structs.replace(manifest, processes={**manifest.processes, "server": late})
known = scenarios(Path(__file__).with_name("scenarios"))
plans = [one for scenario, _ in select(known, sys.argv[2:]) for one in plan(scenario, manifest, seed=7)]
jobs = int(os.environ.get("JOBS", "1"))
options = RunOptions(
    runs=Path(sys.argv[1]), seed=7, kit=Kit(progress=progress), jobs=jobs, conduct=worker.run
)
asyncio.run(run_suite(manifest, plans, options))
