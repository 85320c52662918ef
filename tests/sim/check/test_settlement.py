"""A crash in the settlement of a day: in it indeed, and the day settled once and as it was (R37)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from blackstart.check.analyse import analyse
from blackstart.model.manifest import Match, StateDocument
from blackstart.model.record import OracleSeen, SignalSeen
from blackstart.model.verdict import CheckResult, Verdict

MS = 1_000_000
T0 = 10**12
REALISED = {"ALFA": 40 * 10_000 + 60 * 20_000, "BRAVO": 50 * 10_000}
DAY: dict[str, Any] = {"day": 3, "positions": {"ALFA": -40, "BRAVO": 20}, "by_symbol": REALISED}


def phase(after_ms: float, day: int = 3) -> OracleSeen:
    """Let the exchange settle a day."""
    fields = {"phase": "settlement", "day": day}
    return OracleSeen(event="phase", mono_ns=T0 + round(after_ms * MS), fields=fields)


def signal(event: str, after_ms: float) -> SignalSeen:
    """Make an event of the target, so long after the fault."""
    mono = T0 + round(after_ms * MS)
    return SignalSeen(source="events", event=event, mono_ns=mono, seen_mono_ns=mono + MS)


@pytest.fixture(name="settling")
def settling_world(world: Any) -> Any:
    """Return a world whose fault came in a settlement that was then completed, once and rightly."""
    scenario = msgspec.structs.replace(world.plan.scenario, settles=True)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    names = ("started", "finished", "found")
    signs = {f"settlement-{name}": (Match(event=f"settlement_{name}"),) for name in names}
    state = {**world.manifest.state, "settlements": StateDocument(url="http://x")}
    world.manifest = msgspec.structs.replace(world.manifest, signs=signs, state=state)
    world.signals += [signal("settlement_started", -0.3), signal("settlement_finished", 40)]
    world.extra = [phase(-0.5)]
    world.before["target/settlements"] = {"settlements": []}
    world.documents["target/settlements"] = {"settlements": [DAY]}
    return world


def judged(world: Any) -> CheckResult:
    """Judge the trial's settlement."""
    (found,) = [one for one in analyse(world.history()).checks if one.check == "settlement"]
    return found


def codes(found: CheckResult) -> list[str]:
    """Name what decided."""
    return [one.code for one in found.findings if one.verdict is found.verdict]


def test_a_day_that_was_settled_as_it_was_is_right(settling: Any) -> None:
    """In the settlement, once, and with the positions and the profit of the exchange's executions."""
    found = judged(settling)
    assert (found.verdict, codes(found)) == (Verdict.PASS, ["in-settlement", "settled-as-executed"])


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ({"settlement_finished": 40}, "nobody told that a settlement had begun"),
        ({"settlement_started": 5, "settlement_finished": 40}, "nobody told that a settlement had begun"),
        ({"settlement_started": -0.3, "settlement_finished": -0.1}, "was over before"),
        ({"settlement_started": -0.3, "settlement_found": 40}, "was durable before"),
    ],
    ids=["no start", "started after", "finished before", "found done"],
)
def test_a_crash_outside_the_settlement_shows_nothing(
    settling: Any, events: dict[str, float], text: str
) -> None:
    """Too early or too late, the day may be settled ever so rightly: UNKNOWN, with the reason."""
    told = [signal(name, after_ms) for name, after_ms in events.items()]
    settling.signals = [one for one in settling.signals if "settlement" not in one.event] + told
    found = judged(settling)
    assert (found.verdict, codes(found)) == (Verdict.UNKNOWN, ["not-in-settlement"])
    assert any(text in one.text for one in found.findings)


@pytest.mark.parametrize(
    ("days", "code"),
    [
        ([], "not-settled"),
        ([DAY, DAY], "settled-twice"),
        ([DAY, {**DAY, "day": 4}], "settled-unasked"),
        ([{**DAY, "positions": {"ALFA": -40, "BRAVO": 19}}], "settled-position"),
        ([{**DAY, "positions": {"ALFA": -40}}], "settled-position"),
        ([{**DAY, "by_symbol": {**REALISED, "ALFA": REALISED["ALFA"] + 1_100_000}}], "settled-profit"),
        ([{"day": 3, "positions": DAY["positions"], "realised": 0}], "settled-profit"),
    ],
    ids=["never", "twice", "another day", "position", "no position", "profit", "profit as a whole"],
)
def test_a_wrong_settlement_fails(settling: Any, days: list[dict[str, Any]], code: str) -> None:
    """Twice, never, with a wrong position or a wrong profit: each is a failure with its own name."""
    settling.documents["target/settlements"] = {"settlements": days}
    settling.objectives(pnl_tolerance=50.0)
    found = judged(settling)
    assert found.verdict is Verdict.FAIL
    assert code in codes(found)


def test_what_is_executed_the_next_day_is_not_settled_yet(settling: Any) -> None:
    """Only the executions up to the exchange's settlement count; whoever carried later ones is wrong."""
    settling.extra = [phase(-1.5)]  # the last one, X5, came 1 ms before the fault
    wrong = judged(settling)
    assert (wrong.verdict, codes(wrong)) == (Verdict.FAIL, ["settled-position", "settled-profit"])
    day = {**DAY, "positions": {"ALFA": 60, "BRAVO": 20}, "by_symbol": {"ALFA": 400_000, "BRAVO": 500_000}}
    settling.documents["target/settlements"] = {"settlements": [day]}
    assert judged(settling).verdict is Verdict.PASS


def test_days_from_before_the_trial_are_no_surprise(settling: Any) -> None:
    """A target that goes on has settled days before; the profit of all of them together must be right."""
    former = {"day": 2, "positions": {"ALFA": 0}, "by_symbol": {"ALFA": 400_000}}
    today = {**DAY, "by_symbol": {"ALFA": REALISED["ALFA"] - 400_000, "BRAVO": REALISED["BRAVO"]}}
    settling.before["target/settlements"] = {"settlements": [former]}
    settling.documents["target/settlements"] = {"settlements": [former, today]}
    assert judged(settling).verdict is Verdict.PASS


@pytest.mark.parametrize("missing", ["document", "phase", "figures"])
def test_what_nobody_looked_at_is_unknown(settling: Any, missing: str) -> None:
    """No document, no word of the exchange, or no profit stated: nothing was compared."""
    if missing == "document":
        del settling.documents["target/settlements"]
    elif missing == "phase":
        settling.extra = []
    else:
        day = {key: DAY[key] for key in ("day", "positions")}
        settling.documents["target/settlements"] = {"settlements": [day]}
    assert judged(settling).verdict is Verdict.UNKNOWN


def test_a_target_may_rule_the_comparison_out(settling: Any) -> None:
    """With a reason, which the finding repeats; the moment of the crash is judged all the same."""
    why = {"settlements": "the back office does it"}
    settling.manifest = msgspec.structs.replace(settling.manifest, not_applicable=why)
    del settling.documents["target/settlements"]
    found = judged(settling)
    assert (found.verdict, codes(found)) == (Verdict.PASS, ["in-settlement", "settlement-not-applicable"])
    assert "the back office does it" in found.findings[-1].text
