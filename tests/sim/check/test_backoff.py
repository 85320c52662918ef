"""Whoever crashes again and again is started again after growing pauses, by our own measure (R36)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from blackstart.check.analyse import analyse
from blackstart.model.fault import Witness
from blackstart.model.scenario import Expectation, FaultStep
from blackstart.model.verdict import Verdict

GROWING = [5.0, 125, 215, 412, 810, 1605, 2006, 2016, 2013]  # as the reference firm does it


def crashed(world: Any, pauses: list[float], *, ours: bool = False, expected: bool = True) -> Any:
    """Have the engine crash again and again, with these pauses (ms) in between."""
    expect = (Expectation(why="pauses", signal="back-off"),) if expected else ()
    scenario = msgspec.structs.replace(
        world.plan.scenario, fault=FaultStep(kind="crash_loop", components=("engine",)), expect=expect
    )
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    struck, deaths = world.receipt.t0_mono_ns, []
    for number, pause_ms in enumerate([*pauses, 0.0], start=1):
        deaths.append({"number": number, "pid": number, "struck_mono_ns": struck, "noticed_after_ms": 2.0})
        struck += round((2.0 + pause_ms) * 1e6)
    told = {"wanted": len(deaths), "died": len(deaths), "deaths": deaths, "started_by_blackstart": ours}
    world.witness = Witness(bit=True, evidence={"engine": told})
    return world


@pytest.mark.parametrize(
    ("pauses", "ours", "verdict", "code"),
    [
        (GROWING, False, Verdict.PASS, "backed-off"),
        ([0, 100, 200, 300], False, Verdict.PASS, "backed-off"),
        ([100.0] * 9, False, Verdict.FAIL, "no-back-off"),
        ([12, 10, 14, 11, 9, 15, 12, 16, 13], False, Verdict.FAIL, "no-back-off"),
        ([4, 6, 5, 7, 11, 9, 12, 14, 10], False, Verdict.UNKNOWN, "back-off-not-measured"),  # noise of a look
        ([100, *[5000] * 8], False, Verdict.PASS, "backed-off"),  # at its longest from the second on
        ([100, 200, *[400] * 7], False, Verdict.PASS, "backed-off"),
        ([0, 1000, *[2000] * 7], False, Verdict.PASS, "backed-off"),
        ([0.0] * 9, False, Verdict.UNKNOWN, "back-off-not-measured"),
        (GROWING[::-1], False, Verdict.FAIL, "no-back-off"),
        ([100, 2000, 2000], False, Verdict.UNKNOWN, "back-off-not-measured"),
        ([100.0] * 9, True, Verdict.PASS, "back-off-not-applicable"),
    ],
)
def test_pauses_have_to_grow(
    world: Any, pauses: list[float], ours: bool, verdict: Verdict, code: str
) -> None:
    """A tight loop is no back-off, whatever the target says of itself."""
    trial = analyse(crashed(world, pauses, ours=ours).history())
    (found,) = [one for one in trial.checks if one.check == "backoff"]
    assert (found.verdict, [one.code for one in found.findings]) == (verdict, [code])


def test_the_pauses_are_told_as_they_were(world: Any) -> None:
    """From one death to the next blow, without the time that the kernel took to notice."""
    trial = analyse(crashed(world, GROWING).history())
    (found,) = [one for one in trial.checks if one.check == "backoff"]
    assert found.findings[0].data["pauses_ms"] == pytest.approx(GROWING)


@pytest.mark.parametrize("how", ["nobody expects it", "the manifest rules it out", "another fault"])
def test_it_is_judged_where_it_is_to_be_seen_only(world: Any, how: str) -> None:
    """No back-off asked for, none promised, no crash loop: nothing is judged."""
    world = crashed(world, [100.0] * 9, expected=how != "nobody expects it")
    if how == "the manifest rules it out":
        signs = {**world.manifest.signs, "back-off": "constant pauses by design"}
        world.manifest = msgspec.structs.replace(world.manifest, signs=signs)
    if how == "another fault":
        scenario = msgspec.structs.replace(world.plan.scenario, fault=FaultStep(kind="kill"))
        world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    assert not [one for one in analyse(world.history()).checks if one.check == "backoff"]


@pytest.mark.parametrize("witness", [{"bit": False}, {"bit": None}, {"evidence": {}}])
def test_a_loop_that_did_not_come_about_tells_nothing(world: Any, witness: dict[str, Any]) -> None:
    """Fewer deaths than asked for, or none told: the pauses between those that there were are no answer."""
    world = crashed(world, GROWING)
    world.witness = msgspec.structs.replace(world.witness, **witness)
    (found,) = [one for one in analyse(world.history()).checks if one.check == "backoff"]
    assert (found.verdict, [one.code for one in found.findings]) == (
        Verdict.UNKNOWN,
        ["back-off-not-measured"],
    )
