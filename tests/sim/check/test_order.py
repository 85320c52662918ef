"""The order of things: what was in flight is forgiven, what is new before validation is not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from blackstart.check import order, rto
from blackstart.check.facts import Facts
from blackstart.model.record import ProbeChange, ProcessSeen, SignalSeen
from blackstart.model.verdict import Verdict

T0 = 10**12
MS = 1_000_000
PERIOD = 2_500_000


def found(world: Any, *without: type) -> dict[str, Any]:
    """Check a history without records of some kinds, and return the findings by code."""
    facts = Facts(world.history(without=lambda record: isinstance(record, without)))
    return {finding.code: finding for finding in order.check(facts, rto.check(facts)[0]).findings}


def signal(event: str, after_ms: float) -> SignalSeen:
    """Make an event of the target, so long after t0."""
    mono = T0 + round(after_ms * MS)
    return SignalSeen(source="events", event=event, mono_ns=mono, seen_mono_ns=mono)


def stage(world: Any, *extra: tuple[float, str]) -> None:
    """Kill at t0: noticed at 2 ms, response at 3, back at 200, validated at 210, trading from 220 on."""
    world.signals = [
        signal("peer_lost", 2),
        signal("promotion_started", 3),
        signal("engine_ready", 200),
        signal("state_validated", 210),
    ]
    before = [(mono, "1-C1", 0) for mono in range(T0 - 4000 * MS, T0 + 1, PERIOD)]
    after = [(mono, "1-C2", 0) for mono in range(T0 + 220 * MS, T0 + 1400 * MS, PERIOD)]
    world.service = sorted(before + after + [(T0 + round(ms * MS), key, 0) for ms, key in extra])


def test_trading_after_validation_is_in_order(world: Any) -> None:
    """Without anything early there is nothing to say."""
    stage(world)
    assert found(world) == {}


@pytest.mark.parametrize("ms", [30.0, 150.0, 199.0, 201.0, 209.9])
def test_an_order_between_drain_and_validation_fails(world: Any, ms: float) -> None:
    """A burst that a session layer sends again is trading before validation like any other."""
    stage(world, *[(ms + n / 1000, f"1-C{n}") for n in range(7)])
    finding = found(world)["traded-before-validated"]
    assert finding.verdict is Verdict.FAIL
    assert finding.data["count"] == 7


@pytest.mark.parametrize("ms", [0.5, 2.5])
def test_what_arrives_before_the_response_was_in_flight(world: Any, ms: float) -> None:
    """The oracle had it before the recovery began: nothing to say."""
    stage(world, (ms, "1-C9"))
    assert found(world) == {}


def test_what_arrives_without_an_interruption_after_the_last_notice_was_in_flight(world: Any) -> None:
    """Within three usual gaps of 2.5 ms: a busy machine holds up oracle and target alike. It is said."""
    stage(world, (9.0, "1-C9"), (41.0, "1-C10"))
    assert found(world)["traded-before-validated"].data["keys"] == ["1-C10"]
    world.signals.append(signal("peer_lost", 40))
    assert set(found(world)) == {"in-flight"}


@pytest.mark.parametrize(
    ("goes_on", "key", "codes"),
    [
        (True, "1-C9", set()),
        (True, "2-C9", {"traded-before-validated"}),
        (False, "1-C9", {"traded-before-validated"}),
    ],
)
def test_who_was_to_go_on_and_did_resumed_nothing(
    world: Any, goes_on: bool, key: str, codes: set[str]
) -> None:
    """Where the scenario expects it; orders of a new epoch, and going on unasked, are too early."""
    stage(world)
    went_on = [(mono, "1-C1", 0) for mono in range(T0 + PERIOD, T0 + 1400 * MS, PERIOD)]
    before = [event for event in world.service if event[0] <= T0]
    world.service = sorted([*before, *went_on, (T0 + 100 * MS, key, 0)])
    scenario = msgspec.structs.replace(world.plan.scenario, goes_on=goes_on)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    assert set(found(world)) & {"traded-before-validated"} == codes


def test_who_was_to_go_on_and_stopped_is_judged_as_ever(world: Any) -> None:
    """After an interruption there is something that resumed."""
    stage(world, (150.0, "1-C9"))
    scenario = msgspec.structs.replace(world.plan.scenario, goes_on=True)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    assert "traded-before-validated" in found(world)


@pytest.mark.parametrize(
    ("silence_ms", "early"), [((1000, 1300), False), ((100, 300), True)], ids=["after", "before"]
)
def test_who_was_to_go_on_is_judged_from_its_first_interruption_on(
    world: Any, silence_ms: tuple[int, int], early: bool
) -> None:
    """A silence long after the validation makes no early trade of what had never stopped until then."""
    stage(world)
    world.signals = [one for one in world.signals if one.event != "state_validated"]
    world.signals.append(signal("state_validated", 600))
    before = [event for event in world.service if event[0] <= T0]
    begin, end = (T0 + ms * MS for ms in silence_ms)
    after = [(mono, "1-C1", 0) for mono in range(T0 + PERIOD, T0 + 1400 * MS, PERIOD)]
    world.service = [*before, *(event for event in after if not begin < event[0] < end)]
    scenario = msgspec.structs.replace(world.plan.scenario, goes_on=True)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    assert ("traded-before-validated" in found(world)) is early


@pytest.mark.parametrize(("percent", "early"), [(100.0, False), (50.0, True)], ids=["busy", "idle"])
def test_a_hiccup_of_a_busy_host_makes_no_early_trade(world: Any, percent: float, early: bool) -> None:
    """Eight usual gaps of silence before the validation: with processors to spare an interruption."""
    stage(world)
    world.signals = [one for one in world.signals if one.event != "state_validated"]
    world.signals.append(signal("state_validated", 600))
    before = [event for event in world.service if event[0] <= T0]
    after = [(mono, "1-C1", 0) for mono in range(T0 + PERIOD, T0 + 1400 * MS, PERIOD)]
    begin, end = T0 + 300 * MS, T0 + 300 * MS + 8 * PERIOD
    world.service = [*before, *(event for event in after if not begin < event[0] < end)]
    world.samples = [world.sample(number, cpu_percent=percent) for number in range(12)]
    scenario = msgspec.structs.replace(world.plan.scenario, goes_on=True)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    assert ("traded-before-validated" in found(world)) is early


@pytest.mark.parametrize("scenario", ["goes_on", "degrades"])
@pytest.mark.parametrize(("key", "early"), [("1-C1", False), ("2-C1", True)], ids=["nobody", "a new epoch"])
def test_a_silence_of_which_nobody_recovered_leaves_nothing_to_validate(
    world: Any, key: str, early: bool, scenario: str
) -> None:
    """What somebody recovered only after it had ended, and what was validated then, was something else."""
    stage(world)
    world.signals = [signal("promotion_started", 550), signal("state_validated", 600)]
    before = [event for event in world.service if event[0] <= T0]
    begin, end = T0 + 300 * MS, T0 + 500 * MS
    after = [(mono, "1-C1", 0) for mono in range(T0 + PERIOD, begin, PERIOD)]
    after += [(mono, key, 0) for mono in range(end, T0 + 1400 * MS, PERIOD)]
    world.service = [*before, *after]
    changed = msgspec.structs.replace(world.plan.scenario, **{scenario: True})
    world.plan = msgspec.structs.replace(world.plan, scenario=changed)
    assert ("traded-before-validated" in found(world, ProcessSeen, ProbeChange)) is early
    assert "traded-before-validated" in found(world), "an end was seen"


def test_a_later_epoch_was_never_in_flight(world: Any) -> None:
    """Whoever took over sends new orders, however early they come."""
    stage(world, (4.0, "2-C9"))
    assert found(world)["traded-before-validated"].data["keys"] == ["2-C9"]


def test_orders_of_the_old_epoch_long_after_the_takeover_are_stale(world: Any) -> None:
    """An order cannot be younger than the takeover of its epoch."""
    stage(world, (220.0, "2-C1"), (1100.0, "1-C8"))
    world.service = [e for e in world.service if e[1] != "1-C2"]
    assert "stale-orders" not in found(world)
    world.service.append((T0 + 1300 * MS, "1-C9", 0))
    finding = found(world)["stale-orders"]
    assert (finding.verdict, finding.data["orders"]) == (Verdict.FAIL, ["1-C9"])


def test_orders_that_the_target_made_before_the_failure_are_stale(world: Any) -> None:
    """Where the document says when an order was made, its age is known."""
    stage(world)
    key = "1-C77"
    world.service.append((T0 + 900 * MS, key, 0))
    document = world.documents["target/orders"]
    for made_ms, stale in ((-50, False), (-150, True)):
        made = {"cl_ord_id": key, "status": "filled", "created_mono_ns": T0 + made_ms * MS}
        world.documents["target/orders"] = {"orders": [*document["orders"], made]}
        assert ("stale-orders" in found(world)) is stale


def test_only_orders_are_judged(world: Any) -> None:
    """Rows that become visible before the state is validated are no trading."""
    stage(world, (150.0, "1-C9"))
    spec = msgspec.structs.replace(world.manifest.services["orders"], source="sql", query="x", dsn="y")
    world.manifest = msgspec.structs.replace(world.manifest, services={"orders": spec})
    assert found(world) == {}
