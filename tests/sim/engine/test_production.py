"""What an approval does to a run of trials: one after the other, none that would not be over in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from blackstart.engine import approval as approvals
from blackstart.engine import permit, single, suite
from blackstart.engine.clocks import SimClock, simulate
from blackstart.engine.conductor import Kit
from blackstart.engine.suite import RunOptions, run_suite
from blackstart.model.approval import Approval, Grant
from blackstart.model.manifest import Manifest
from blackstart.model.scenario import FaultStep, Objectives, Plan, Scenario
from blackstart.scenario import approved

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blackstart.engine.conductor import Analyse
    from blackstart.model.outcome import Run, Trial

NS = 1_000_000_000
MANIFEST = Manifest(schema=1, name="firm", environment="production")
STEP = FaultStep(kind="kill", components=("engine",))
SCENARIO = Scenario(id="P1", title="p", requirement="R23", fault=STEP, objectives=Objectives(rto_ms=1))
PLAN = Plan(trial_id="P1", scenario=SCENARIO, components=STEP.components, service="s", seed=1, replay="-")


def granted(ends_wall_ns: int) -> Grant:
    """Make one that ends then."""
    approval = Approval(
        target="firm",
        manifest_sha256="",
        what={},
        kinds=("kill",),
        from_wall_ns=0,
        until_wall_ns=ends_wall_ns,
        markets=("XNYS",),
        margin_s=1800.0,
        reason="drill",
    )
    return Grant(
        approval=approval,
        sha256="0" * 64,
        signers=(),
        used_by="root",
        used_wall_ns=0,
        ends_wall_ns=ends_wall_ns,
        opens={},
        place="/place",
    )


async def no_leftovers(_options: RunOptions) -> None:
    """Find nothing of earlier runs."""


class Stage:
    """Three trials of so many seconds under an approval, in simulated time."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._patch = monkeypatch
        self.most = self._now = 0
        self.withdrawn: Callable[[Grant, Manifest], str | None] = lambda *_: None
        monkeypatch.setattr(suite, "_clear_leftovers", no_leftovers)  # a thread knows no simulated time
        monkeypatch.setattr(approvals, "safe", lambda place: place)
        monkeypatch.setattr(permit, "check_plan", lambda *_: None)

    def run(self, *, approved_s: float, trial_s: float, limits_s: float) -> Run:
        """Run them; each says that it may take `limits_s`."""
        self._patch.setattr(permit, "withdrawn", self.withdrawn)
        self._patch.setattr(approved, "longest_s", lambda _plan, _manifest: limits_s)

        async def conduct(plan: Plan, manifest: Manifest, folder: Path, kit: Kit, _: Analyse) -> Trial:
            self._now += 1
            self.most = max(self.most, self._now)
            begun, why = kit.clock.now(), "conducted"
            try:
                await kit.clock.sleep_until(begun.mono_ns + round(trial_s * NS))
            except asyncio.CancelledError:
                why = f"interrupted after {(kit.clock.now().mono_ns - begun.mono_ns) / NS:.0f} s"
            self._now -= 1
            return single.unknown(plan, manifest, folder, begun, why)

        async def main() -> Run:
            clock = SimClock(asyncio.get_running_loop())
            grant = granted(clock.now().wall_ns + round(approved_s * NS))
            self._patch.setattr(permit, "grant", lambda *_: grant)
            options = RunOptions(
                runs=self._folder, conduct=conduct, jobs=3, kit=Kit(clock=clock), approvals=self._folder
            )
            return await run_suite(MANIFEST, [PLAN, PLAN, PLAN], options)

        return simulate(main())


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Make one."""
    return Stage(tmp_path, monkeypatch)


def test_one_after_the_other_and_each_says_by_what(stage: Stage) -> None:
    """In production `--jobs` runs nothing side by side, and every trial carries its approval."""
    run = stage.run(approved_s=3600, trial_s=60, limits_s=300)
    assert [one.reasons for one in run.trials] == [("conducted",)] * 3
    assert stage.most == 1
    assert all(one.approval is not None for one in run.trials)


def test_a_trial_that_would_not_be_over_in_time_does_not_begin(stage: Stage) -> None:
    """The third has not all its limits before the end: it is UNKNOWN, and says why."""
    run = stage.run(approved_s=400, trial_s=60, limits_s=300)
    first, second, third = (one.reasons[0] for one in run.trials)
    assert (first, second) == ("conducted", "conducted")
    assert third.startswith("not-permitted: it may take 300 s with all its limits; the approval ends")


def test_what_overruns_its_limits_is_interrupted_at_the_end(stage: Stage) -> None:
    """When the approval ends, or a market is about to open, nothing goes on and nothing begins."""
    run = stage.run(approved_s=400, trial_s=9999, limits_s=300)
    assert [one.reasons[0] for one in run.trials] == ["interrupted after 400 s"]
    assert run.interrupted


def test_withdrawn_is_over_with_the_next_trial(stage: Stage) -> None:
    """Whoever takes their signature back ends it."""
    answers = iter([None, "ben withdrew the approval", "ben withdrew the approval"])
    stage.withdrawn = lambda *_: next(answers)
    run = stage.run(approved_s=3600, trial_s=60, limits_s=300)
    gone = "not-permitted: ben withdrew the approval"
    assert [one.reasons[0] for one in run.trials] == ["conducted", gone, gone]
