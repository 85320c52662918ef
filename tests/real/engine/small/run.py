"""Run one trial as a process of its own: RUNS SCENARIO. Prints each stage; ends with the trial's folder."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blackstart.engine.conductor import Kit
from blackstart.engine.suite import RunOptions, run_suite
from blackstart.scenario.load import packaged, select
from blackstart.scenario.plan import plan
from blackstart.target.manifest import load


def progress(event: str, figures: Mapping[str, Any]) -> None:
    """Say how far it is."""
    what = figures.get("stage") or figures.get("folder") or ""
    print(event, what, flush=True)
    if event == "trial-ended":
        print("verdict", figures["trial"].verdict, *figures["trial"].reasons, sep="\t", flush=True)


manifest = load(Path(__file__).with_name("small.toml"))
plans = [one for scenario, _ in select(packaged(), sys.argv[2:]) for one in plan(scenario, manifest, seed=7)]
asyncio.run(run_suite(manifest, plans, RunOptions(runs=Path(sys.argv[1]), seed=7, kit=Kit(progress=progress))))
