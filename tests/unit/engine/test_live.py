from __future__ import annotations

import pytest

from blackstart.engine.live import Live
from blackstart.model.fault import Receipt
from blackstart.model.manifest import Manifest
from blackstart.model.record import Injected, ProcessSeen, ResourceSample
from blackstart.model.scenario import FaultStep, Objectives, Plan, Scenario

SCENARIO = Scenario(
    id="T", title="t", requirement="T", fault=FaultStep(kind="kill"), objectives=Objectives(rto_ms=1.0)
)
PLAN = Plan(trial_id="T", scenario=SCENARIO, components=("engine",), service="orders", seed=1, replay="")
RECEIPT = Receipt(fault="kill", mechanism="SIGKILL", t0_mono_ns=100, t0_source="the kill")


def sample(mono_ns: int, **pids: int) -> ResourceSample:
    """Measure these processes."""
    components = {name: {"pid": pid, "state": "sleeping"} for name, pid in pids.items()}
    return ResourceSample(
        mono_ns=mono_ns, cpu_percent=0, memory_percent=0, disk_percent=0, components=components
    )


def struck(before: ResourceSample) -> Live:
    """Return what is known right after pid 41 was killed."""
    live = Live(PLAN, Manifest(schema=1, name="thing"))
    live(before)
    live(Injected(receipt=RECEIPT))
    live(ProcessSeen(component="engine", what="exited", pid=41, mono_ns=101))
    return live


@pytest.mark.parametrize(
    ("after", "back"),
    [
        ({}, False),
        ({"engine": 41, "spare": 43}, False),
        ({"engine": 43, "spare": 43}, False),
        ({"engine": 42, "spare": 43}, True),
        ({"engine": 43, "spare": 44}, True),
    ],
)
def test_observation_goes_on_until_as_many_live_as_before(after: dict[str, int], *, back: bool) -> None:
    """The conductor waits by the rule that the checker judges by: no killed pid, and no process fewer."""
    live = struck(sample(50, engine=41, spare=43))
    assert not live.lives_again(["engine"])
    live(sample(150, **after))
    assert live.lives_again(["engine"]) is back


def test_what_was_never_measured_is_not_waited_for() -> None:
    """Nobody can see its return; the checker says UNKNOWN."""
    assert struck(sample(50, spare=43)).lives_again(["engine"])
