"""Trials side by side: when the next one begins."""

from __future__ import annotations

import asyncio
from pathlib import Path  # noqa: TC003  # pytest reads the annotations
from typing import TYPE_CHECKING

import msgspec
import pytest

from blackstart.check.analyse import analyse
from blackstart.engine import single, suite
from blackstart.engine.clocks import SystemClock
from blackstart.engine.conductor import Analyse, Kit
from blackstart.engine.suite import RunOptions, run_suite
from blackstart.scenario import load
from blackstart.scenario.plan import plan
from blackstart.target import manifest as manifests

if TYPE_CHECKING:
    from blackstart.model.manifest import Manifest
    from blackstart.model.outcome import Trial
    from blackstart.model.scenario import Plan


@pytest.mark.parametrize(
    ("stages", "jobs", "together", "attached"),
    [
        (["open", "observed"], 2, 2, False),
        (["open", "observed", "reverted"], 2, 3, False),
        (["open", "observed", "reverted", "closed"], 2, 3, False),
        (["open", "closed"], 2, 3, False),
        (["open", "observed", "reverted", "closed"], 1, 1, False),
        (["open", "observed", "reverted", "closed"], 2, 1, True),
    ],
)
def test_the_next_trial_begins_when_one_is_reverted_only_side_by_side(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    stages: list[str],
    jobs: int,
    together: int,
    attached: bool,
) -> None:
    """A trial that is no longer timed keeps nobody waiting; one after the other it does, to the very end.

    A target that is there once is broken by one trial after the other, whatever `jobs` says.
    """
    manifest = manifests.load("paperfirm")
    wanted = [one for one in load.packaged() if one.id in ("R1", "R2", "R3")]
    plans = [one for scenario in wanted for one in plan(scenario, manifest, seed=1)]
    if attached:
        manifest = msgspec.structs.replace(manifest, processes={})
    begun, ended, most = list[str](), list[str](), 0

    async def conduct(plan: Plan, manifest: Manifest, folder: Path, kit: Kit, _: Analyse) -> Trial:
        nonlocal most
        begun.append(plan.trial_id)
        assert kit.progress is not None
        for stage in stages:
            answer = kit.progress("stage", {"trial_id": plan.trial_id, "stage": stage})
            if answer is not None:
                await answer
        for _ in range(20):
            await asyncio.sleep(0)
            most = max(most, len(begun) - len(ended))
        ended.append(plan.trial_id)
        return single.unknown(plan, manifest, folder, SystemClock().now(), "not conducted")

    def told(_event: str, figures: object) -> None:
        assert figures

    monkeypatch.setattr(suite.leftovers, "clear", lambda _: [])
    options = RunOptions(runs=tmp_path, kit=Kit(progress=told), analyse=analyse, jobs=jobs, conduct=conduct)
    run = asyncio.run(run_suite(manifest, plans, options))
    assert [one.id for one in run.trials] == ["R1", "R2", "R3"]
    assert most == together
