"""Side by side, no long trial is left over alone at the end."""

from __future__ import annotations

from blackstart.engine.suite import longest_first
from blackstart.model.scenario import FaultStep, Objectives, Observe, Plan, Scenario


def plan(name: str, *, lasts_s: float | None = None, after_s: float = 1.0, limit_s: float = 30.0) -> Plan:
    """Make a plan whose fault stays for `lasts_s`."""
    scenario = Scenario(
        id=name,
        title="",
        requirement="R1",
        fault=FaultStep(kind="kill", duration_s=lasts_s),
        objectives=Objectives(rto_ms=1.0),
        observe=Observe(after_s=after_s, limit_s=limit_s),
    )
    return Plan(trial_id=name, scenario=scenario, components=("engine",), service="s", seed=1, replay="-")


def test_what_takes_long_for_sure_begins_before_what_may_take_long() -> None:
    """A fault of five seconds with eight of service afterwards, though it is given up after 30 s."""
    plans = [
        plan("short"),
        plan("patient", limit_s=120.0),
        plan("fault", lasts_s=5.0),
        plan("zombie", lasts_s=5.0, after_s=8.0),
    ]
    assert [one.trial_id for one in sorted(plans, key=longest_first)] == [
        "zombie",
        "fault",
        "patient",
        "short",
    ]
