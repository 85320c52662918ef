"""Whole histories analysed: the correct one passes, and whatever is spoiled or missing shows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from blackstart.check import analyse, rpo
from blackstart.check.facts import Facts
from blackstart.history.view import History
from blackstart.model.fault import Witness
from blackstart.model.manifest import Match
from blackstart.model.record import (
    Ended,
    Header,
    Injected,
    LedgerFile,
    OracleSeen,
    Problem,
    ResourceSample,
    Reverted,
    ServiceBatch,
    ServiceWatched,
    SignalSeen,
    StageReached,
    StateRead,
    Witnessed,
)
from blackstart.model.scenario import Expectation, Load, Trigger
from blackstart.model.verdict import Verdict

T0 = 10**12
MS = 1_000_000


def test_a_correct_recovery_passes(world: Any) -> None:
    """Nothing is wrong, nothing unknown, all eight validators and all fifteen items pass."""
    trial = analyse(world.history())
    assert trial.reasons == ()
    assert trial.verdict is Verdict.PASS
    assert len(trial.validation) == 8
    assert [item.number for item in trial.checklist] == list(range(1, 16))
    assert {item.verdict for item in trial.checklist} == {Verdict.PASS}, trial.checklist
    assert (trial.rpo.events, trial.rpo.ms, trial.rpo.notional, trial.rpo.acknowledged) == (0, 0.0, 0.0, 5)
    assert trial.load_per_s == 400
    phases = [
        getattr(trial.rto, f"{p}_ns") for p in ("detection", "response", "recovery", "validation", "resume")
    ]
    assert phases == [MS, 2 * MS, 17 * MS, 5 * MS, 5 * MS]
    assert sum(phases) == trial.rto.total_ns == 30 * MS
    assert trial.rto.uncertainty_ns == 3000


def test_a_deliberate_loss_fails_and_is_named(world: Any) -> None:
    """A target that lost two acknowledged executions is FAILed with their ids, the time and the money."""
    world.ledgers["recovered"] = [r for r in world.ledgers["recovered"] if r["key"] not in ("X3", "X4")]
    trial = analyse(world.history())
    assert trial.verdict is Verdict.FAIL
    assert "X3, X4" in trial.reasons[0]
    assert trial.rpo.streams["executions"].lost == ("X3", "X4")
    assert (trial.rpo.events, trial.rpo.ms) == (2, 3.0)
    assert trial.rpo.notional == (50 * 2_000_000 + 70 * 1_990_000) / 10_000
    assert trial.rpo.streams["executions"].gap_events == 0
    assert (world.folder / "audit" / "executions" / "lost.jsonl").read_text().count("X") == 2


def test_loss_within_the_objective_passes(world: Any) -> None:
    """An objective that allows one lost event is kept by a loss of one, and broken by two."""
    world.objectives(rpo_events=1)
    world.ledgers["recovered"] = world.ledgers["recovered"][:-1]
    assert analyse(world.history()).checks[-1].verdict is Verdict.PASS
    world.ledgers["recovered"] = world.ledgers["recovered"][:-1]
    assert analyse(world.history()).checks[-1].verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("duplicated", lambda rows: [*rows, rows[0]]),
        ("phantom", lambda rows: [*rows, {"key": "GHOST", "seq": 9}]),
        ("corrupted", lambda rows: [{**rows[0], "content": "[]"}, *rows[1:]]),
        ("reordered", lambda rows: [{**rows[0], "seq": 99}, *rows[1:]]),
    ],
)
def test_every_kind_of_damage_fails(world: Any, kind: str, rows: Any) -> None:
    """Twice, invented, altered, out of order: each is a FAIL of its own name."""
    world.ledgers["recovered"] = rows(world.ledgers["recovered"])
    trial = analyse(world.history())
    assert trial.verdict is Verdict.FAIL
    assert trial.reasons[0].startswith(kind)
    assert trial.rpo.streams["executions"].counts[kind] == 1


@pytest.mark.parametrize(
    ("held", "verdict", "code"),
    [
        ("old", Verdict.UNKNOWN, "key-not-unique"),
        ("new", Verdict.UNKNOWN, "key-not-unique"),
        ("other", Verdict.FAIL, "corrupted"),
    ],
)
def test_a_key_acknowledged_with_two_contents_is_no_identity(
    world: Any, held: str, verdict: Verdict, code: str
) -> None:
    """Overwritten and acknowledged anew: whether the later write is the one that is held nobody can tell."""
    rows, kept = world.ledgers["acknowledged"], world.ledgers["recovered"]
    content = {"old": rows[0]["content"], "new": "[2]", "other": "[3]"}[held]
    world.ledgers["acknowledged"] = [*rows, {**rows[0], "seq": 6, "content": "[2]"}]
    world.ledgers["recovered"] = [*kept[1:], {**kept[0], "seq": 6, "content": content}]
    trial = analyse(world.history())
    assert trial.verdict is verdict
    assert trial.reasons[0].startswith(code)
    assert trial.rpo.streams["executions"].not_unique == 1


def test_a_key_acknowledged_twice_alike_is_a_remark(world: Any) -> None:
    """A client that tried again and was answered twice lost nothing."""
    rows = world.ledgers["acknowledged"]
    world.ledgers["acknowledged"] = [*rows, {**rows[0], "seq": 6}]
    lost, result = rpo.check(Facts(world.history()))
    assert result.verdict is Verdict.PASS
    assert "acknowledged-again" in [one.code for one in result.findings]
    assert lost.streams["executions"].acknowledged_again == 1


def test_late_is_not_reordered_and_not_lost(world: Any) -> None:
    """An execution that was booked from a resend is reported as late and costs nothing."""
    rows = world.ledgers["recovered"]
    world.ledgers["recovered"] = [{**rows[0], "seq": 99, "late": True}, *rows[1:]]
    trial = analyse(world.history())
    assert trial.rpo.streams["executions"].late == ("X1",)
    assert trial.rpo.streams["executions"].excused == 1
    assert trial.checks[-1].verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("recovery", "moved", "verdict"),
    [
        ("hot", 7, Verdict.PASS),
        ("hot", 8, Verdict.UNKNOWN),
        ("cold", 11, Verdict.PASS),
        ("cold", 12, Verdict.UNKNOWN),
    ],
)
def test_the_targets_word_does_not_excuse_most_events_from_order(
    world: Any, recovery: str, moved: int, verdict: Verdict
) -> None:
    """Held in reverse and called late: nobody checked the order. After a cold restart it may be more."""
    acknowledged, held = world.ledgers["acknowledged"], world.ledgers["recovered"]
    for number in range(6, 13):
        acknowledged.append({**acknowledged[0], "key": f"X{number}", "seq": number})
        held.append({**held[0], "key": f"X{number}", "seq": number})
    late = [{**row, "seq": -row["seq"], "late": True} for row in held[:moved]]
    world.ledgers["recovered"] = [*late, *held[moved:]]
    scenario = msgspec.structs.replace(world.plan.scenario, recovery=recovery)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    check = {one.check: one for one in analyse(world.history()).checks}["rpo"]
    assert check.verdict is verdict


def test_the_kernels_own_back_off_is_told_beside_the_recovery(world: Any) -> None:
    """After a network fault the longest wait of a connection is remarked: none recovers quicker on it."""
    waiting = [{"ports": [1, 2], "next_try_ms": 290}, {"ports": [2, 3], "next_try_ms": 1440}]
    world.extra.append(Reverted(undo_id="filter:x:floor", verified=None, evidence={"waiting": waiting}))
    trial = analyse(world.history())
    assert trial.verdict is Verdict.PASS
    said = [finding for check in trial.checks for finding in check.findings if finding.code == "tcp-back-off"]
    assert [one.data for one in said] == [{"longest_ms": 1440}]


REQUIRED = [
    Injected,
    Witnessed,
    Reverted,
    LedgerFile,
    ResourceSample,
    ServiceBatch,
    ServiceWatched,
    SignalSeen,
    StageReached,
    StateRead,
    Ended,
]


@pytest.mark.parametrize("kind", REQUIRED)
def test_without_any_kind_of_record_nothing_passes(world: Any, kind: type) -> None:
    """No evidence, no green: each kind of record that is taken away makes the trial UNKNOWN, or FAIL."""
    trial = analyse(world.history(without=lambda record: isinstance(record, kind)))
    assert trial.verdict is not Verdict.PASS
    assert trial.reasons


DOCUMENTS = [
    *(
        f"target/{name}"
        for name in ["positions", "orders", "risk", "pnl", "connectivity", "market_data", "strategy"]
    ),
    "target/infrastructure",
    "oracle/positions",
    "oracle/orders",
]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_without_any_document_nothing_passes(world: Any, name: str) -> None:
    """Every single document is needed."""
    del world.documents[name]
    trial = analyse(world.history())
    assert trial.verdict is Verdict.UNKNOWN
    assert any(name.split("/")[1] in reason for reason in trial.reasons)


@pytest.mark.parametrize("stage", ["steady", "observed", "reverted", "quiesced", "read", "closed"])
def test_without_any_stage_nothing_passes(world: Any, stage: str) -> None:
    """A life cycle with a hole in it proves nothing."""
    trial = analyse(world.history(without=lambda r: isinstance(r, StageReached) and r.stage == stage))
    assert trial.verdict is Verdict.UNKNOWN


def test_every_cut_of_a_history_can_be_analysed(world: Any) -> None:
    """Wherever a history was cut short, the analysis says so instead of breaking, and never passes."""
    records = world.records()
    for length in range(1, len(records), 7):
        trial = analyse(type(world.history()).of(records[:length], world.folder))
        assert trial.verdict is not Verdict.PASS
        assert any("history-cut-short" in reason for reason in trial.reasons)
        assert not any("checker-broke" in reason for reason in trial.reasons)


def test_a_header_alone_is_needed(world: Any) -> None:
    """Without a header there is no trial to speak of: a clear error."""
    with pytest.raises(Exception, match="header"):
        analyse(world.history(without=lambda record: isinstance(record, Header)))


@pytest.mark.parametrize("bit", [None, False])
def test_a_fault_that_did_not_bite_is_unknown(world: Any, bit: bool | None) -> None:
    """A witness that saw nothing makes the trial UNKNOWN."""
    world.witness = Witness(bit=bit, evidence={})
    trial = analyse(world.history())
    assert trial.verdict is Verdict.UNKNOWN
    assert trial.reasons[0].startswith("fault-did-not-bite")


def test_too_little_load_is_unknown(world: Any) -> None:
    """The trial says how much load there was and how much was required."""
    scenario = msgspec.structs.replace(world.plan.scenario, load=Load(minimum_per_s=500))
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    trial = analyse(world.history())
    assert trial.verdict is Verdict.UNKNOWN
    assert "no load at t0 (400/s, 500/s required)" in trial.reasons[0]


def test_problems_become_reasons_and_failure_comes_first(world: Any) -> None:
    """What the conductor noted is in the reasons; FAIL beats UNKNOWN."""
    world.extra = [
        Problem(code="no-quiet", text="market went on", mono_ns=T0),
        Problem(code="revert-failed", text="still there", mono_ns=T0, verdict="FAIL"),
    ]
    trial = analyse(world.history())
    assert trial.verdict is Verdict.FAIL
    assert trial.reasons == ("revert-failed: still there", "no-quiet: market went on")


def test_an_altered_ledger_is_unknown(world: Any) -> None:
    """A ledger file that is not what was written then proves nothing."""
    history = world.history()
    path = world.folder / "ledger" / "executions.recovered.jsonl"
    path.write_text(path.read_text() + "\n")
    trial = analyse(history)
    assert trial.rpo.events is None
    assert any("altered after the trial" in reason for reason in trial.reasons)


def test_nothing_acknowledged_is_no_success(world: Any) -> None:
    """Zero lost of zero acknowledged is UNKNOWN."""
    world.ledgers = {"acknowledged": [], "recovered": []}
    assert any("nothing-acknowledged" in reason for reason in analyse(world.history()).reasons)


def test_a_checker_that_breaks_is_unknown(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in one checker costs that check only, and its reason names the error."""

    def broken(_facts: Any) -> Any:
        raise ZeroDivisionError("seven")

    monkeypatch.setattr("blackstart.check.steady.check", broken)
    trial = analyse(world.history())
    assert trial.verdict is Verdict.UNKNOWN
    assert trial.reasons == tuple(r for r in trial.reasons if "ZeroDivisionError: seven" in r)


def test_ruled_out_validators_are_left_out(world: Any) -> None:
    """What the manifest rules out is neither green nor unknown: it is named with its reason."""
    world.manifest = msgspec.structs.replace(world.manifest, not_applicable={"pnl": "keeps no books"})
    del world.documents["target/pnl"]
    trial = analyse(world.history())
    assert trial.verdict is Verdict.PASS
    assert "pnl" not in trial.validation
    assert trial.not_applicable == {"pnl": "keeps no books"}
    assert "keeps no books" in trial.checklist[3].evidence


def test_the_note_is_computed_from_the_history(world: Any) -> None:
    """The fill that set the fault off, and those up to t0, say how much of the large order was filled."""
    trigger = Trigger(at="oracle", event="fill", where={"cum_quantity": 500})
    scenario = msgspec.structs.replace(world.plan.scenario, trigger=trigger)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    for done, after in ((500, -2), (600, -1), (700, 5)):
        fields = {"cl_ord_id": "L", "cum_quantity": done, "leaves_quantity": 1000 - done}
        world.extra.append(OracleSeen(event="fill", mono_ns=T0 + after * MS, fields=fields))
    assert analyse(world.history()).note == "600 of 1000 filled"


def test_objectives_of_the_manifest_win(world: Any) -> None:
    """A manifest may tighten a scenario's objective for its system."""
    world.manifest = msgspec.structs.replace(world.manifest, objectives={"R1": {"rto_ms": 20}})
    trial = analyse(world.history())
    assert trial.verdict is Verdict.FAIL
    assert trial.reasons[0].startswith("rto-exceeded")
    assert trial.objectives["rto_ms"] == 20


def test_the_objectives_of_a_trial_are_those_of_its_repetitions(world: Any) -> None:
    """What is asked of `R1` is asked of `R1#2` as well."""
    world.manifest = msgspec.structs.replace(world.manifest, objectives={"R1:engine": {"rto_ms": 20}})
    for name in ("R1:engine", "R1:engine#2"):
        world.plan = msgspec.structs.replace(world.plan, trial_id=name)
        assert analyse(world.history()).reasons[0].startswith("rto-exceeded")


@pytest.mark.parametrize("rising", [[], ["executions"]])
def test_missing_while_the_target_catches_up_is_not_lost(world: Any, rising: list[str]) -> None:
    """Books that had not come to rest show what is missing, not what is lost; at rest it is lost."""
    world.ledgers["recovered"] = world.ledgers["recovered"][:-1]
    records = [
        msgspec.structs.replace(one, detail={"settled": False, "rising": rising})
        if isinstance(one, StageReached) and one.stage == "quiesced"
        else one
        for one in world.records()
    ]
    trial = analyse(History.of(records, world.folder))
    (found,) = [one for one in trial.checks if one.check == "rpo"]
    codes = {one.code: one.verdict for one in found.findings if one.verdict is not Verdict.PASS}
    assert codes == ({"still-catching-up": Verdict.UNKNOWN} if rising else {"lost": Verdict.FAIL})
    assert trial.rpo.events == 1
    assert trial.verdict is found.verdict


@pytest.mark.parametrize(
    ("waited_ms", "verdict"), [(None, Verdict.FAIL), (20, Verdict.FAIL), (1000, Verdict.PASS)]
)
def test_the_time_that_an_answer_took_is_no_age(world: Any, waited_ms: int | None, verdict: Verdict) -> None:
    """Data 1.05 s old when the answer came may have been 50 ms old when they were written down."""
    read_ns = T0 + 2000 * MS
    symbols = world.documents["target/market_data"]["symbols"]
    old = [{**one, "last_update_mono_ns": read_ns - 1050 * MS} for one in symbols]
    world.change("target/market_data", symbols=old)
    asked = None if waited_ms is None else read_ns - waited_ms * MS
    records = [
        msgspec.structs.replace(one, asked_mono_ns=asked)
        if isinstance(one, StateRead) and one.mono_ns == read_ns
        else one
        for one in world.records()
    ]
    trial = analyse(History.of(records, world.folder))
    assert trial.validation["market_data"].verdict is verdict


@pytest.mark.parametrize("observed", [True, False])
def test_what_was_missed_when_it_was_broken_off_nobody_waited_for(world: Any, *, observed: bool) -> None:
    """The kill switch ends a trial in the midst: its expectations are open. What must never be is not."""
    expect = (
        Expectation(why="it is told", signal="detected", at_least=9),
        Expectation(why="nobody crashes", signal="validated", never=True),
    )
    signs = {"detected": (Match(event="peer_lost"),), "validated": (Match(event="state_validated"),)}
    world.manifest = msgspec.structs.replace(world.manifest, signs=signs)
    scenario = msgspec.structs.replace(world.plan.scenario, expect=expect)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)

    def cut(record: Any) -> bool:
        return isinstance(record, StageReached) and record.stage == "observed" and not observed

    trial = analyse(world.history(cut))
    (found,) = [one for one in trial.checks if one.check == "expectations"]
    missed = ("expectation-missed", Verdict.FAIL) if observed else ("expectation-not-judged", Verdict.UNKNOWN)
    assert [(one.code, one.verdict) for one in found.findings] == [
        missed,
        ("expectation-exceeded", Verdict.FAIL),
    ]
