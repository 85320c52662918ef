"""An orderly stop ends in order: the exit status tells (R24)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from blackstart.check.analyse import analyse
from blackstart.check.ending import orderly
from blackstart.model.fault import ProcessRef, Witness
from blackstart.model.manifest import Component, Process
from blackstart.model.scenario import FaultStep
from blackstart.model.verdict import Verdict


def stopped(world: Any, status: int | None, *, kind: str = "terminate") -> Any:
    """Have the engine be asked to stop, and end with that status."""
    scenario = msgspec.structs.replace(world.plan.scenario, fault=FaultStep(kind=kind))
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    hit = {"engine": ProcessRef(41, 1)}
    world.receipt = msgspec.structs.replace(world.receipt, fault=kind, processes=hit)
    world.samples = [
        world.sample(
            k,
            components={
                "engine": {
                    "pid": 41 if k <= 0 else 42,
                    "cpu_s": k / 10,
                    "rss": 1,
                    "threads": 1,
                    "state": "sleeping",
                }
            },
        )
        for k in range(-2, 12)
    ]
    world.witness = Witness(bit=True, evidence={"engine": {"pid": 41, "status": status}})
    return world


@pytest.mark.parametrize(
    ("status", "verdict", "code"),
    [
        (0, Verdict.PASS, "ended-in-order"),
        (-15, Verdict.FAIL, "not-ended-in-order"),
        (143, Verdict.FAIL, "not-ended-in-order"),
        (-11, Verdict.FAIL, "not-ended-in-order"),
        (1, Verdict.FAIL, "not-ended-in-order"),
        (None, Verdict.PASS, "end-not-seen"),
    ],
)
def test_whoever_dies_of_the_signal_was_not_shut_down(
    world: Any, status: int | None, verdict: Verdict, code: str
) -> None:
    """Status 0 is an orderly end, and no other; one that nobody saw is said to be unseen."""
    trial = analyse(stopped(world, status).history())
    (found,) = [one for one in trial.checks if one.check == "ending"]
    assert (found.verdict, [one.code for one in found.findings]) == (verdict, [code])
    assert trial.verdict is verdict


def test_a_target_may_say_what_its_orderly_end_is(world: Any) -> None:
    """Who ends with 143 by convention says so in the manifest, for the process or for the component."""
    engine = Process(command=("engine",), restart="self", stop_status=(0, 143))
    world.manifest = msgspec.structs.replace(world.manifest, processes={"engine": engine})
    assert analyse(stopped(world, 143).history()).verdict is Verdict.PASS
    component = Component(process="engine", stop_status=(-15,))
    manifest = msgspec.structs.replace(world.manifest, components={"engine": component})
    assert orderly(manifest, "engine") == (-15,)
    assert orderly(manifest, "elsewhere") == (0,)


def test_of_a_kill_nobody_asks_how_it_ended(world: Any) -> None:
    """Only what was asked to stop can end in order."""
    trial = analyse(stopped(world, -9, kind="kill").history())
    assert "ending" not in {one.check for one in trial.checks}
