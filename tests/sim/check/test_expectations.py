"""What a scenario expects of the target, judged from a history."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from blackstart.check.expectations import ExpectationWatch, check, undeclared
from blackstart.check.facts import Facts
from blackstart.history.view import History
from blackstart.model.fault import Receipt, Undo, Witness
from blackstart.model.manifest import Manifest, Match, Operation
from blackstart.model.record import Injected, OracleSeen, Record, Reverted, SignalSeen, Witnessed
from blackstart.model.scenario import Expectation
from blackstart.model.verdict import Verdict

SECOND = 1_000_000_000
MANIFEST = Manifest(
    schema=1,
    name="m",
    environment="sim",
    signs={
        "alarm": (Match(event="alert", where={"detail.code": "fire"}),),
        "siren": "the building has none",
    },
)


def signal(at_s: float, code: str = "fire", **detail: Any) -> SignalSeen:
    """Make an alert of the target."""
    ns = round(at_s * SECOND)
    fields = {"detail": {"code": code, **detail}}
    return SignalSeen(source="log", event="alert", mono_ns=ns, seen_mono_ns=ns, fields=fields)


def fault(at_s: float, step: int = 0, *, uncertainty_s: float = 0.0) -> Injected:
    """Make a fault."""
    receipt = Receipt(
        fault="kill",
        mechanism="x",
        t0_mono_ns=round(at_s * SECOND),
        t0_source="x",
        uncertainty_ns=round(uncertainty_s * SECOND),
        undo=(Undo(id="x", action="continue", arguments={}),),
    )
    return Injected(receipt=receipt, step=step)


def judged(expected: dict[str, Any], *records: Record, faults: int = 1) -> tuple[Verdict, str]:
    """Judge one expectation."""
    watch = ExpectationWatch(Expectation(why="alarm raised", **expected), MANIFEST, faults=faults)
    for record in records:
        watch.feed(record)
    found = watch.finding()
    return found.verdict, found.code


@pytest.mark.parametrize(
    ("expected", "records", "verdict"),
    [
        ({}, [fault(10), signal(11)], Verdict.PASS),
        ({}, [signal(9), fault(10)], Verdict.FAIL),
        ({}, [fault(10), signal(11, "smoke")], Verdict.FAIL),
        ({"within_s": 0.5}, [fault(10), signal(11)], Verdict.FAIL),
        ({"where": {"detail.floor": 3}}, [fault(10), signal(11, floor=2)], Verdict.FAIL),
        ({"where": {"detail.floor": 3}}, [fault(10), signal(11, floor=3)], Verdict.PASS),
        ({"at_least": 2}, [fault(10), signal(11)], Verdict.FAIL),
        ({"at_most": 1}, [fault(10), signal(11), signal(12)], Verdict.FAIL),
        ({"never": True}, [fault(10), signal(11)], Verdict.FAIL),
        ({"never": True}, [signal(9), fault(10), signal(11, "smoke")], Verdict.PASS),
        ({"after": "start"}, [signal(9), fault(10)], Verdict.PASS),
    ],
)
def test_what_was_seen_in_time_decides(
    expected: dict[str, Any], records: list[Record], verdict: Verdict
) -> None:
    """Only the sign itself counts, from its moment on, as often and as soon as was asked."""
    assert judged({"signal": "alarm", **expected}, *records)[0] is verdict


def test_a_reaction_within_the_uncertainty_of_t0_counts() -> None:
    """The kernel may have killed at any moment before t0 that the uncertainty allows; no earlier."""
    early = [signal(9.99), fault(10, uncertainty_s=0.02)]
    assert judged({"signal": "alarm"}, *early)[0] is Verdict.PASS
    assert judged({"signal": "alarm"}, signal(9.9), fault(10, uncertainty_s=0.02))[0] is Verdict.FAIL


@pytest.mark.parametrize(
    ("operations", "code"), [({}, "not-applicable"), ({"stop": Operation(urls=("u",))}, "missed")]
)
def test_what_is_given_to_some_targets_is_asked_of_them_alone(
    operations: dict[str, Operation], code: str
) -> None:
    """Without the operation it is not looked for, and that is told; with it, it must be seen."""
    manifest = msgspec.structs.replace(MANIFEST, operations=operations)
    expected = Expectation(why="alarm raised", signal="alarm", given="stop")
    watch = ExpectationWatch(expected, manifest, faults=1)
    watch.feed(fault(10))
    found = watch.finding()
    assert found.code == f"expectation-{code}"
    assert "no operation `stop`" in found.text or code == "missed"
    unsaid = msgspec.structs.replace(expected, signal="bell")
    assert list(undeclared(manifest, [unsaid])) == (["bell"] if code == "missed" else [])
    assert watch.pending(11 * SECOND) is (code == "missed")


def test_it_counts_from_the_last_fault_or_from_the_revert() -> None:
    """`then` is the last of several faults, `revert` the last undo; what was seen before does not count."""
    expected = {"signal": "alarm", "after": "then"}
    early = [fault(10), signal(11), fault(12, step=1)]
    assert judged(expected, *early, faults=2) == (Verdict.FAIL, "expectation-missed")
    assert judged(expected, *early, signal(13), faults=2)[0] is Verdict.PASS
    assert judged(expected, fault(10), signal(11), faults=2) == (Verdict.UNKNOWN, "expectation-not-judged")
    undone = Reverted(undo_id="x", verified=True, evidence={}, mono_ns=20 * SECOND)
    after = {"signal": "alarm", "after": "revert"}
    assert judged(after, fault(10), signal(11), undone)[0] is Verdict.FAIL
    assert judged(after, fault(10), undone, signal(21))[0] is Verdict.PASS
    closed = Reverted(undo_id="process:firm:1", verified=True, evidence={}, mono_ns=22 * SECOND)
    assert judged(after, fault(10), undone, signal(21), closed)[0] is Verdict.PASS, "the end of the target"


def undone(at_s: float, undo: str = "x") -> Reverted:
    """Make the moment at which a fault was taken back."""
    return Reverted(undo_id=undo, verified=True, evidence={}, mono_ns=round(at_s * SECOND))


@pytest.mark.parametrize(
    ("expected", "at_s", "verdict"),
    [
        ({"before": "then"}, 11, Verdict.PASS),
        ({"before": "then"}, 13, Verdict.FAIL),
        ({"before": "then", "never": True}, 11, Verdict.FAIL),
        ({"before": "then", "never": True}, 13, Verdict.PASS),
        ({"before": "revert"}, 13, Verdict.PASS),
        ({"before": "revert"}, 16, Verdict.FAIL),
        ({"after": "then", "before": "revert", "never": True}, 13, Verdict.FAIL),
        ({"after": "then", "before": "revert", "never": True}, 11, Verdict.PASS),
        ({"after": "then", "before": "revert", "never": True}, 16, Verdict.PASS),
    ],
)
def test_a_time_that_counts_can_end(expected: dict[str, Any], at_s: float, verdict: Verdict) -> None:
    """At the last fault, or when the first was taken back; what comes later neither serves nor harms."""
    smoke = [signal(10.5, "smoke"), signal(13, "smoke")]
    records = [fault(10), *smoke, fault(12, step=1), undone(15)]
    alarm = signal(at_s)
    place = next((k for k, one in enumerate(records) if at_s < time_of(one)), len(records))
    found = judged({"signal": "alarm", **expected}, *records[:place], alarm, *records[place:], faults=2)
    assert found[0] is verdict


def time_of(record: Record) -> float:
    """Say when a record was made, in seconds."""
    if isinstance(record, Injected):
        return record.receipt.t0_mono_ns / SECOND
    assert isinstance(record, SignalSeen | Reverted)
    return (record.mono_ns or 0) / SECOND


def test_a_premise_that_does_not_hold_is_nobodys_failure() -> None:
    """What makes the trial the one it should be: where it is missing, the trial is UNKNOWN and says so."""
    came_late = [fault(10), signal(11), fault(12, step=1), undone(15)]
    middle = {"signal": "alarm", "before": "then", "never": True, "premise": True}
    assert judged(middle, *came_late, faults=2) == (Verdict.UNKNOWN, "premise-not-met")
    under_way = {"signal": "alarm", "before": "then", "premise": True}
    assert judged(under_way, *came_late, faults=2)[0] is Verdict.PASS
    assert judged(under_way, fault(10), fault(12, step=1), faults=2) == (Verdict.UNKNOWN, "premise-not-met")


def test_a_time_without_an_end_is_not_judged() -> None:
    """The last fault never came, or was never taken back: nobody can say what was seen before."""
    for expected, records in (
        ({"before": "then"}, [fault(10), signal(11)]),
        ({"before": "revert"}, [fault(10), fault(12, step=1), signal(13)]),
    ):
        found = judged({"signal": "alarm", **expected}, *records, faults=2)
        assert found == (Verdict.UNKNOWN, "expectation-not-judged")


def test_what_must_never_be_seen_counts_from_the_certain_moment() -> None:
    """Within the uncertainty before t0 the fault may not have been there yet."""
    never = {"signal": "alarm", "never": True}
    seen = [signal(9.99), fault(10, uncertainty_s=0.02), signal(11, "smoke")]
    assert judged(never, *seen)[0] is Verdict.PASS


def test_the_end_of_the_last_fault_is_that_of_no_other() -> None:
    """An earlier fault that is taken back later, at the end of the trial, does not move the moment."""
    last = msgspec.structs.replace(
        fault(12, step=1),
        receipt=msgspec.structs.replace(
            fault(12).receipt, undo=(Undo(id="y", action="continue", arguments={}),)
        ),
    )
    records = [fault(10), last, undone(15, "y"), signal(16), undone(30, "x")]
    assert judged({"signal": "alarm", "after": "revert"}, *records, faults=2)[0] is Verdict.PASS


def test_nobody_waits_for_what_would_come_too_late() -> None:
    """Once the time that counts is over, a trial does not wait for it."""
    expected = Expectation(why="w", signal="alarm", before="then")
    watch = ExpectationWatch(expected, MANIFEST, faults=2)
    watch.feed(fault(10))
    assert watch.pending(11 * SECOND)
    watch.feed(fault(12, step=1))
    assert not watch.pending(13 * SECOND)


def test_nobody_is_judged_by_signs_that_nobody_described() -> None:
    """An undeclared sign is UNKNOWN, even where it must never be seen; one ruled out is a remark."""
    for never in (False, True):
        expected = {"signal": "bell", "never": never}
        assert judged(expected, fault(10)) == (Verdict.UNKNOWN, "expectation-not-judged")
    assert judged({"signal": "siren"}, fault(10)) == (Verdict.PASS, "expectation-not-applicable")


def test_what_never_was_seen_has_been_looked_for() -> None:
    """Where nobody told anything since the fault, nobody could have told this; the rest is counted."""
    expected = Expectation(why="no alarm", signal="alarm", never=True)

    def finding(*records: Record, silence: bool = False) -> tuple[Verdict, str, str]:
        watch = ExpectationWatch(expected, MANIFEST, faults=1, silence=silence)
        for record in records:
            watch.feed(record)
        found = watch.finding()
        return found.verdict, found.code, found.text

    assert finding(signal(9, "smoke"), fault(10))[:2] == (Verdict.UNKNOWN, "not-looked")
    heard = finding(fault(10), signal(11, "smoke"), signal(12, "smoke"))
    assert heard[:2] == (Verdict.PASS, "expectation-met")
    assert "looked for in 2 events of log" in heard[2]
    silent = finding(fault(10), silence=True)
    assert silent[0] is Verdict.PASS, "a target that need not tell of a fault that ends nothing"
    assert "the target told of nothing" in silent[2]


def test_a_limit_of_which_nothing_was_seen_has_been_looked_for() -> None:
    """`at most one` proves nothing of a target that told of nothing; of the exchange's events we know."""
    expected = {"at_least": 0, "at_most": 1}
    alarm, logon = {"signal": "alarm", **expected}, {"oracle": "logon", **expected}
    assert judged(alarm, signal(9, "smoke"), fault(10)) == (Verdict.UNKNOWN, "not-looked")
    assert judged(alarm, fault(10), signal(11, "smoke")) == (Verdict.PASS, "expectation-met")
    assert judged(alarm, fault(10), signal(11)) == (Verdict.PASS, "expectation-met")
    assert judged(logon, fault(10)) == (Verdict.PASS, "expectation-met")


def stamped(at_s: float, seen_s: float, code: str = "fire") -> SignalSeen:
    """Make an alert that reached us at another moment than it says."""
    return msgspec.structs.replace(signal(at_s, code), seen_mono_ns=round(seen_s * SECOND))


@pytest.mark.parametrize(
    ("expected", "seen", "verdict"),
    [
        ({}, stamped(1.7e9, 9), Verdict.UNKNOWN),  # by the wall clock, from before the fault
        ({}, stamped(1.7e9, 11), Verdict.PASS),  # after it, whichever clock is right
        ({"never": True}, stamped(0.011, 11), Verdict.UNKNOWN),  # in microseconds
        ({"never": True}, stamped(9.5, 10.2), Verdict.PASS),  # told late, within reason: before the fault
        ({"within_s": 2}, stamped(11, 14), Verdict.UNKNOWN),  # in time, or too late
        ({}, stamped(8, 11), Verdict.UNKNOWN),
    ],
)
def test_a_sign_with_a_stamp_that_cannot_be_right_decides_nothing(
    expected: dict[str, Any], seen: SignalSeen, verdict: Verdict
) -> None:
    """Where the stamp and the moment at which it reached us do not come to the same, nobody knows."""
    found, code = judged({"signal": "alarm", **expected}, fault(10), seen, signal(12, "smoke"))
    assert found is verdict
    assert (code == "stamp-not-credible") is (verdict is Verdict.UNKNOWN)


def test_an_event_of_the_exchange_can_be_expected() -> None:
    """The oracle's own events need no declaration."""
    seen = OracleSeen(event="logon", mono_ns=11 * SECOND, fields={})
    assert judged({"oracle": "logon"}, fault(10), seen)[0] is Verdict.PASS
    assert judged({"oracle": "logon"}, fault(10), signal(11))[0] is Verdict.FAIL


def test_a_trial_waits_for_what_may_still_come() -> None:
    """Until it was seen or its time is over; never for what must not come."""
    watch = ExpectationWatch(Expectation(why="w", signal="alarm", within_s=5), MANIFEST, faults=1)
    assert watch.pending(0)
    watch.feed(fault(10))
    assert watch.pending(14 * SECOND)
    assert not watch.pending(16 * SECOND)
    watch.feed(signal(12))
    assert not watch.pending(14 * SECOND)
    assert not ExpectationWatch(Expectation(why="w", signal="alarm", never=True), MANIFEST, faults=1).pending(
        0
    )


@pytest.mark.parametrize(
    ("bit", "verdict"), [(True, Verdict.FAIL), (False, Verdict.UNKNOWN), (None, Verdict.UNKNOWN)]
)
def test_of_a_fault_that_did_not_bite_nothing_is_expected(world: Any, bit: Any, verdict: Verdict) -> None:
    """A target that was not broken has no alarm to raise: UNKNOWN, and no FAIL of the target."""
    scenario = msgspec.structs.replace(
        world.plan.scenario, expect=(Expectation(why="alarm raised", signal="alarm"),)
    )
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    world.manifest = msgspec.structs.replace(world.manifest, signs=MANIFEST.signs)
    records = [one for one in world.records() if not isinstance(one, Witnessed)]
    records.append(Witnessed(witness=Witness(bit=bit, evidence={})))
    found = check(Facts(History.of(records, world.folder)))
    assert found.verdict is verdict


def test_where_a_premise_does_not_hold_nothing_is_anybodys_failure(world: Any) -> None:
    """What was missed in a trial that was not the one it should be is UNKNOWN; with the premise it FAILs."""
    missed = Expectation(why="alarm raised", signal="alarm")
    for premises, verdict in (
        ((), Verdict.FAIL),
        ((Expectation(why="in the middle", oracle="nothing", premise=True),), Verdict.UNKNOWN),
    ):
        scenario = msgspec.structs.replace(world.plan.scenario, expect=(missed, *premises))
        world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
        world.manifest = msgspec.structs.replace(world.manifest, signs=MANIFEST.signs)
        assert check(Facts(History.of(world.records(), world.folder))).verdict is verdict
