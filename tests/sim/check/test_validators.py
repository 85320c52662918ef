"""Every rule of the eight validators with a history that breaks it; `test_analyse` has the good one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from blackstart.check.facts import Facts
from blackstart.check.validators import VALIDATORS
from blackstart.history.view import History
from blackstart.model.record import Problem, StateRead
from blackstart.model.verdict import Verdict

MS = 1_000_000
READ = 10**12 + 2000 * MS
LATER = READ + 51 * MS
Spoil = Callable[[Any], None]


def outcome(world: Any, name: str) -> tuple[Verdict, set[str]]:
    """Run one validator: its verdict and the codes of what decided it."""
    result = VALIDATORS[name](Facts(world.history()))
    return result.verdict, {f.code for f in result.findings if f.verdict is result.verdict}


def item(key: str, place: str, index: int, **changes: Any) -> Spoil:
    """Alter one entry of a list in a document."""

    def spoil(world: Any) -> None:
        entries = list(world.documents[key][place])
        entries[index] = {**entries[index], **changes}
        world.change(key, **{place: entries})

    return spoil


def fewer(key: str, place: str) -> Spoil:
    """Leave the first entry of a list out of a document."""
    return lambda world: world.change(key, **{place: world.documents[key][place][1:]})


def again(key: str, place: str) -> Spoil:
    """Repeat the first entry of a list in a document."""
    return lambda world: world.change(
        key, **{place: [*world.documents[key][place], world.documents[key][place][0]]}
    )


def top(key: str, **changes: Any) -> Spoil:
    """Alter a document's own fields."""
    return lambda world: world.change(key, **changes)


def oracle_order(**changes: Any) -> Spoil:
    """Alter the order that rests at the exchange."""

    def spoil(world: Any) -> None:
        world.documents["oracle/orders"] = [{**world.documents["oracle/orders"][0], **changes}]

    return spoil


def oracle_position(**changes: Any) -> Spoil:
    """Alter what the exchange states of ALFA."""

    def spoil(world: Any) -> None:
        found = world.documents["oracle/positions"]
        world.documents["oracle/positions"] = {**found, "ALFA": {**found["ALFA"], **changes}}

    return spoil


def everywhere(name: str, **changes: Any) -> Spoil:
    """Alter what the exchange says at both readings: of ALFA's prices, of another symbol, or of a session."""

    def spoil(world: Any) -> None:
        for said in (world.earlier, world.documents):
            found = said[f"oracle/{name}"]
            of_alfa = name == "market_data" and not changes.keys() - found["ALFA"].keys()
            said[f"oracle/{name}"] = {
                **found,
                **({"ALFA": {**found["ALFA"], **changes}} if of_alfa else changes),
            }

    return spoil


def untold(name: str) -> Spoil:
    """Let the exchange say nothing about it."""

    def spoil(world: Any) -> None:
        for said in (world.earlier, world.documents):
            del said[f"oracle/{name}"]

    return spoil


def marked(mark: float) -> Spoil:
    """Value ALFA at another price, in figures that agree with each other."""

    def spoil(world: Any) -> None:
        pnl = world.documents["target/pnl"]
        row = pnl["by_symbol"]["ALFA"]
        more = row["quantity"] * (mark - row["mark"])
        row = {**row, "mark": mark, "unrealised": row["unrealised"] + more}
        world.change(
            "target/pnl",
            unrealised=pnl["unrealised"] + more,
            total=pnl["total"] + more,
            by_symbol={**pnl["by_symbol"], "ALFA": row},
        )

    return spoil


def by_symbol(**more: float) -> Spoil:
    """Add something to ALFA's profit and take it from BRAVO's, so that the sums stay right."""

    def spoil(world: Any) -> None:
        rows = {symbol: dict(row) for symbol, row in world.documents["target/pnl"]["by_symbol"].items()}
        for field, one in more.items():
            rows["ALFA"][field] += one
            rows["BRAVO"][field] -= one
        world.change("target/pnl", by_symbol=rows)

    return spoil


NO_PRICES: dict[str, Any] = {"bid": None, "ask": None, "last": None}


def samples(count: int = 4, **changes: Any) -> Spoil:
    """Alter the last measurements of the host."""

    def spoil(world: Any) -> None:
        kept = world.samples[: -count or None]
        world.samples = [*kept, *(world.sample(n, **changes) for n in range(len(kept), len(kept) + count))]

    return spoil


def component(**changes: Any) -> Spoil:
    """Alter the last measurements of the component."""

    def spoil(world: Any) -> None:
        changed = [
            msgspec.structs.replace(s, components={"engine": {**s.components["engine"], **changes}})
            for s in world.samples[-4:]
        ]
        world.samples = [*world.samples[:-4], *changed]

    return spoil


LIMITS = {"position": {"*": 1000}, "gross_notional": 10**12, "concentration_pct": 100.0}
USAGE = {"position": {"ALFA": 40, "BRAVO": 20}, "gross_notional": 80_100_000, "concentration_pct": 50.19}
NO_SIZES = {"gross_notional": None, "concentration_pct": None}

FAILING: list[tuple[str, Spoil, str]] = [
    ("positions", item("target/positions", "positions", 0, quantity=-41), "position-mismatch"),
    ("positions", item("target/positions", "positions", 0, cash=1), "cash-mismatch"),
    ("positions", top("target/positions", positions=[]), "position-mismatch"),
    ("positions", top("target/risk", limits={**LIMITS, "position": {"*": 39}}), "position-limit"),
    ("orders", top("target/orders", orders=[]), "order-not-internal"),
    ("orders", lambda world: world.documents.update({"oracle/orders": []}), "order-not-at-exchange"),
    ("orders", oracle_order(status="partially_filled"), "order-state-mismatch"),
    ("orders", oracle_order(leaves_quantity=9), "order-mismatch"),
    ("orders", item("target/orders", "orders", 0, status="pending_new"), "order-state-mismatch"),
    ("risk", top("target/risk", usage={**USAGE, "position": {"ALFA": 40}}), "risk-usage-wrong"),
    ("risk", top("target/risk", usage={**USAGE, "gross_notional": 90_000_000}), "risk-usage-wrong"),
    ("risk", top("target/risk", breaches=["too much"]), "limit-breached"),
    ("risk", top("target/risk", limits={**LIMITS, "position": {"*": 39}}), "position-limit"),
    ("risk", top("target/risk", limits={**LIMITS, "gross_notional": 1000}), "capital-limit"),
    ("risk", top("target/risk", limits={**LIMITS, "position": {"*": 999}}), "limits-changed"),
    ("risk", top("target/risk", limits={**LIMITS, "concentration_pct": 50.0}), "concentration-limit"),
    ("risk", top("target/risk", usage={**USAGE, "concentration_pct": 60.0}), "risk-usage-wrong"),
    ("risk", marked(1_020_000), "mark-off-market"),
    ("pnl", top("target/pnl", realised=0), "pnl-mismatch"),
    ("pnl", top("target/pnl", realised=float("nan")), "pnl-not-finite"),
    ("pnl", top("target/pnl", total=1), "pnl-does-not-add-up"),
    ("pnl", by_symbol(realised=10**10), "pnl-mismatch"),
    ("pnl", by_symbol(unrealised=10**10), "pnl-mismatch"),
    ("pnl", by_symbol(realised=float("nan")), "pnl-not-finite"),
    ("pnl", marked(1_100_000), "mark-off-market"),
    ("pnl", everywhere("market_data", bid=900_000, ask=900_200, last=900_000), "mark-off-market"),
    ("connectivity", item("target/connectivity", "links", 1, connected=False), "not-connected"),
    ("connectivity", everywhere("connectivity", FIRM=False), "session-not-logged-on"),
    ("market_data", item("target/market_data", "symbols", 0, bid=990_000), "price-off-market"),
    ("market_data", item("target/market_data", "symbols", 0, ask=0), "price-off-market"),
    ("market_data", everywhere("market_data", bid=None), "price-off-market"),
    (
        "market_data",
        item("target/market_data", "symbols", 0, last_update_mono_ns=READ - 1001 * MS),
        "stale-market-data",
    ),
    ("market_data", item("target/market_data", "symbols", 0, stale=True), "stale-market-data"),
    ("market_data", item("target/market_data", "symbols", 0, last_update_mono_ns=None), "no-market-data"),
    ("strategy", top("target/strategy", initialised=False), "not-initialised"),
    ("strategy", item("target/strategy", "indicators", 0, value=float("inf")), "indicator-invalid"),
    ("strategy", item("target/strategy", "indicators", 0, value=None), "indicator-invalid"),
    ("strategy", item("target/strategy", "indicators", 0, samples=3), "indicator-reset"),
    ("strategy", item("target/strategy", "indicators", 0, symbol="OTHER"), "indicator-missing"),
    ("infrastructure", samples(8, disk_percent=91.0), "disk-high"),
    ("infrastructure", component(state="disk-sleep"), "stuck-thread"),
    ("infrastructure", component(state="running", cpu_s=5), "stuck-thread"),
    ("infrastructure", component(thread_states={"D": 4}), "stuck-thread"),
    ("infrastructure", component(thread_states={"D": 1, "T": 3}), "stuck-thread"),
    ("infrastructure", component(rss=400_000_000), "memory-leak"),
    (
        "infrastructure",
        top("target/infrastructure", metrics={"scraped": 1, "last_scraped_mono_ns": LATER}),
        "future-stamp",
    ),
    (
        "infrastructure",
        item("target/infrastructure", "threads", 0, heartbeat_mono_ns=READ - 5001 * MS),
        "stuck-thread",
    ),
    (
        "infrastructure",
        item("target/infrastructure", "timers", 0, last_fired_mono_ns=READ - 4001 * MS),
        "timer-stopped",
    ),
    (
        "infrastructure",
        top("target/infrastructure", configuration={"loaded": False}),
        "configuration-not-loaded",
    ),
    (
        "infrastructure",
        top("target/infrastructure", configuration={"loaded": True, "sha256": "other"}),
        "configuration-changed",
    ),
    ("infrastructure", top("target/infrastructure", logging={"last_written_mono_ns": 1}), "log-silent"),
    ("market_data", fewer("target/market_data", "symbols"), "entry-missing"),
    ("connectivity", fewer("target/connectivity", "links"), "entry-missing"),
    ("infrastructure", fewer("target/infrastructure", "timers"), "entry-missing"),
    ("infrastructure", fewer("target/infrastructure", "threads"), "entry-missing"),
    ("infrastructure", top("target/infrastructure", metrics=None), "entry-missing"),
    ("infrastructure", top("target/infrastructure", logging=None), "entry-missing"),
    ("positions", again("target/positions", "positions"), "duplicate-entry"),
    ("orders", again("target/orders", "orders"), "duplicate-entry"),
    ("market_data", item("target/market_data", "symbols", 0, last_update_mono_ns=LATER), "future-stamp"),
    ("infrastructure", item("target/infrastructure", "threads", 0, heartbeat_mono_ns=LATER), "future-stamp"),
    ("infrastructure", item("target/infrastructure", "timers", 0, last_fired_mono_ns=LATER), "future-stamp"),
    ("infrastructure", top("target/infrastructure", logging={"last_written_mono_ns": LATER}), "future-stamp"),
]


@pytest.mark.parametrize(("name", "spoil", "code"), FAILING, ids=[f"{n}-{c}" for n, _, c in FAILING])
def test_a_broken_rule_fails(world: Any, name: str, spoil: Spoil, code: str) -> None:
    """The validator FAILs with the code of the rule that is broken."""
    spoil(world)
    verdict, codes = outcome(world, name)
    assert verdict is Verdict.FAIL
    assert code in codes


def test_a_log_may_be_silent_where_nothing_ended(world: Any) -> None:
    """A fault that only makes the going hard leaves nothing to be told; it is remarked, not failed."""
    top("target/infrastructure", logging={"last_written_mono_ns": 1})(world)
    scenario = msgspec.structs.replace(world.plan.scenario, degrades=True)
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    verdict, codes = outcome(world, "infrastructure")
    assert verdict is Verdict.PASS
    assert "log-silent" in codes


@pytest.mark.parametrize(("after_ms", "jumped"), [(3_600_000, False), (2_000, True)], ids=["hour", "seconds"])
def test_an_indicator_may_take_as_many_samples_as_the_time_allows(
    world: Any, after_ms: int, jumped: bool
) -> None:
    """A million samples are a turned bit after seconds, and an hour's work after an hour."""
    item("target/strategy", "indicators", 0, samples=1_000_000)(world)
    records = [
        msgspec.structs.replace(one, mono_ns=READ + (after_ms - 2_000) * MS)
        if isinstance(one, StateRead) and (one.name, one.moment) == ("strategy", "after")
        else one
        for one in world.records()
    ]
    found = VALIDATORS["strategy"](Facts(History.of(records, world.folder)))
    assert ("indicator-jumped" in [one.code for one in found.findings]) is jumped


UNKNOWN: list[tuple[str, Spoil, str]] = [
    ("positions", lambda world: world.documents.update({"oracle/positions": {}}), "nothing-to-compare"),
    ("positions", lambda w: w.ledgers["acknowledged"].pop(), "oracle-inconsistent"),
    ("orders", top("target/orders", orders=[{"status": "new"}]), "malformed-document"),
    ("positions", item("target/positions", "positions", 0, cash=None), "not-compared"),
    ("positions", oracle_position(cash=None), "not-compared"),
    ("risk", top("target/risk", usage=None), "no-usage"),
    ("risk", top("target/risk", usage={**USAGE, "gross_notional": None}), "not-compared"),
    ("risk", top("target/risk", usage={**USAGE, "concentration_pct": None}), "not-compared"),
    ("risk", top("target/risk", limits={**LIMITS, **NO_SIZES}, usage={**USAGE, **NO_SIZES}), "not-compared"),
    ("risk", top("target/risk", limits={"position": {}}), "no-limits"),
    ("risk", top("target/risk", limits={**LIMITS, "position": {"ALFA": 1000}}), "no-limits"),
    ("risk", lambda w: untold("market_data")(w) or w.documents.pop("target/pnl"), "capital-not-recomputed"),
    ("risk", untold("market_data"), "not-read"),
    *(("orders", oracle_order(**{field: None}), "not-compared") for field in ("side", "price", "symbol")),
    ("orders", item("target/orders", "orders", 0, side=None), "not-compared"),
    ("orders", oracle_order(quantity=None, cum_quantity=None), "not-compared"),
    ("pnl", top("target/pnl", by_symbol={}), "no-mark"),
    ("pnl", untold("market_data"), "not-read"),
    ("pnl", everywhere("market_data", **NO_PRICES), "mark-not-compared"),
    ("pnl", lambda world: world.earlier.clear(), "market-not-read"),
    ("connectivity", untold("connectivity"), "not-read"),
    (
        "connectivity",
        lambda world: world.documents.update({"oracle/connectivity": {}}) or world.earlier.clear(),
        "session-not-compared",
    ),
    ("market_data", untold("market_data"), "not-read"),
    ("market_data", lambda world: world.earlier.clear(), "market-not-read"),
    ("market_data", item("target/market_data", "symbols", 0, symbol="OTHER"), "price-not-compared"),
    ("market_data", everywhere("market_data", OTHER={"bid": 1, "ask": 2, "last": 1}), "symbol-missing"),
    ("market_data", item("target/market_data", "symbols", 0, bid=None, ask=None), "price-not-compared"),
    ("connectivity", top("target/connectivity", links=[]), "nothing-to-compare"),
    ("market_data", top("target/market_data", symbols=[]), "nothing-to-compare"),
    ("strategy", top("target/strategy", indicators=None), "malformed-document"),
    ("strategy", item("target/strategy", "indicators", 0, value=0.0), "indicators-zero"),
    ("strategy", item("target/strategy", "indicators", 0, samples=999), "indicators-frozen"),
    ("strategy", item("target/strategy", "indicators", 0, samples=10**9), "indicator-jumped"),
    ("infrastructure", lambda world: world.samples.clear(), "not-measured"),
    ("infrastructure", samples(12, components={}), "not-measured"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spoil", "code"), UNKNOWN, ids=[f"{n}-{c}" for n, _, c in UNKNOWN])
def test_what_cannot_be_seen_is_unknown(world: Any, name: str, spoil: Spoil, code: str) -> None:
    """A validator that cannot look says UNKNOWN and why; it never passes."""
    spoil(world)
    verdict, codes = outcome(world, name)
    assert verdict is not Verdict.PASS
    assert code in {
        f.code for f in VALIDATORS[name](Facts(world.history())).findings if f.verdict is Verdict.UNKNOWN
    }
    assert codes


@pytest.mark.parametrize("name", sorted(VALIDATORS))
def test_an_error_while_reading_is_unknown(world: Any, name: str) -> None:
    """A document that answered with an error is UNKNOWN, with that error in the reason."""
    records = [
        msgspec.structs.replace(r, document=None, error="503 Service Unavailable")
        if isinstance(r, StateRead) and r.moment == "after" and r.name == name and r.side == "target"
        else r
        for r in world.records()
    ]
    result = VALIDATORS[name](Facts(History.of(records, world.folder)))
    assert result.verdict is Verdict.UNKNOWN
    assert any("503" in finding.text for finding in result.findings)


COMPARED_WITH_BEFORE = ["risk", "connectivity", "market_data", "strategy", "infrastructure"]


@pytest.mark.parametrize("name", COMPARED_WITH_BEFORE)
@pytest.mark.parametrize(("document", "code"), [(None, "not-read"), ("garbage", "malformed-document")])
def test_nothing_to_compare_with_from_before_the_fault_is_unknown(
    world: Any, name: str, document: Any, code: str
) -> None:
    """Without the document from before the fault nobody compared the two: never a PASS."""
    world.before[f"target/{name}"] = document
    assert outcome(world, name) == (Verdict.UNKNOWN, {code})


def test_every_traded_symbol_has_market_data(world: Any) -> None:
    """A symbol with a position that the document never named fails, whatever stood there before the fault."""
    fewer("target/market_data", "symbols")(world)
    world.before["target/market_data"] = world.documents["target/market_data"]
    assert outcome(world, "market_data") == (Verdict.FAIL, {"symbol-missing"})


def test_symbols_that_are_not_the_target_s_need_no_market_data(world: Any) -> None:
    """Where the manifest names what the target trades, the exchange may have more."""
    everywhere("market_data", OTHER={"bid": 1, "ask": 2, "last": 1})(world)
    world.manifest = msgspec.structs.replace(world.manifest, symbols=("ALFA", "BRAVO"))
    assert outcome(world, "market_data")[0] is Verdict.PASS


def test_what_is_measured_after_the_final_read_does_not_count(world: Any) -> None:
    """The target is taken down on purpose then: a component that was stuck before is still found."""
    component(state="disk-sleep")(world)
    after = [msgspec.structs.replace(world.sample(n), mono_ns=READ + 10**9, components={}) for n in range(5)]
    world.samples += after
    assert outcome(world, "infrastructure") == (Verdict.FAIL, {"stuck-thread"})


def test_cold_restart_may_begin_indicators_anew(world: Any) -> None:
    """After a cold restart fewer samples are a remark."""
    scenario = msgspec.structs.replace(world.plan.scenario, recovery="cold")
    world.plan = msgspec.structs.replace(world.plan, scenario=scenario)
    item("target/strategy", "indicators", 0, samples=3)(world)
    assert outcome(world, "strategy") == (Verdict.PASS, {"indicator-reset"})


@pytest.mark.parametrize(
    ("exposure", "alfa", "verdict"),
    [
        ("worst", 50, Verdict.PASS),
        ("position", 40, Verdict.PASS),
        ("worst", 40, Verdict.FAIL),
        ("position", 50, Verdict.FAIL),
        (None, 50, Verdict.UNKNOWN),
        (None, 40, Verdict.UNKNOWN),
        (None, 45, Verdict.FAIL),
    ],
)
def test_usage_is_what_the_target_says_it_counts(
    world: Any, exposure: str | None, alfa: int, verdict: Verdict
) -> None:
    """The position as it is, or the worst that open orders could make of it; which, must be said."""
    world.documents["oracle/orders"] = [{**world.documents["oracle/orders"][0], "side": "sell"}]
    gross = alfa * 1_005_000 + 20 * 1_995_000
    usage = {"position": {"ALFA": alfa, "BRAVO": 20}, "gross_notional": gross, "exposure": exposure}
    world.change("target/risk", usage={**usage, "concentration_pct": 100 * alfa * 1_005_000 / gross})
    assert outcome(world, "risk")[0] is verdict


def test_exposure_need_not_be_stated_where_it_makes_no_difference(world: Any) -> None:
    """Without an order that could enlarge a position both conventions say the same."""
    assert outcome(world, "risk")[0] is Verdict.PASS


def test_a_limit_on_the_worst_is_held_against_the_worst(world: Any) -> None:
    """A target that counts open orders exceeds its limit when they could make the position too large."""
    world.documents["oracle/orders"] = [{**world.documents["oracle/orders"][0], "side": "sell"}]
    usage = {"position": {"ALFA": 50, "BRAVO": 20}, "exposure": "worst"}
    for said in (world.before, world.documents):
        said["target/risk"] = {**said["target/risk"], "usage": usage, "limits": {"position": {"*": 45}}}
    assert outcome(world, "risk") == (Verdict.FAIL, {"position-limit"})


@pytest.mark.parametrize(
    ("limit", "above", "verdict", "code"),
    [
        (50.0, None, Verdict.FAIL, "concentration-limit"),
        (50.0, 80_099_999, Verdict.FAIL, "concentration-limit"),
        (50.0, 80_100_000, Verdict.PASS, "concentration-not-in-force"),
        (50.2, None, Verdict.PASS, None),
    ],
)
def test_concentration_is_limited_from_a_stated_size_on(
    world: Any, limit: float, above: float | None, verdict: Verdict, code: str | None
) -> None:
    """One symbol is 50.19 % of 80.1 million: a limit below that fails where it is in force."""
    limits = {**LIMITS, "concentration_pct": limit, "concentration_from": above}
    for said in (world.before, world.documents):
        said["target/risk"] = {**said["target/risk"], "limits": limits}
    assert outcome(world, "risk") == (verdict, {code} if code else set())


def test_an_order_without_position_is_valued_at_the_market(world: Any) -> None:
    """What only open orders expose has no mark in the P&L; the middle of the exchange's book will do."""
    order = {
        **world.documents["oracle/orders"][0],
        "symbol": "CHARLIE",
        "quantity": 10,
        "leaves_quantity": 10,
    }
    world.documents["oracle/orders"] = [order]
    for said in (world.earlier, world.documents):
        said["oracle/market_data"]["CHARLIE"] = {"bid": 2_999_900, "ask": 3_000_100, "last": None}
    usage = {"position": {"ALFA": 40, "BRAVO": 20, "CHARLIE": 10}, "exposure": "worst"}
    share = {"concentration_pct": 100 * 40.2 / 110.1}
    world.change("target/risk", usage={**usage, **share, "gross_notional": 80_100_000 + 30_000_000})
    assert outcome(world, "risk") == (Verdict.PASS, set())
    world.change("target/risk", usage={**usage, "gross_notional": 80_100_000})
    assert outcome(world, "risk") == (Verdict.FAIL, {"risk-usage-wrong"})


def test_the_third_quantity_follows_from_two(world: Any) -> None:
    """Quantity, what is filled and what is left are compared although each side states another two."""
    item("target/orders", "orders", 0, leaves_quantity=None)(world)
    oracle_order(cum_quantity=None)(world)
    assert outcome(world, "orders") == (Verdict.PASS, set())
    oracle_order(cum_quantity=None, leaves_quantity=9)(world)
    assert outcome(world, "orders")[0] is Verdict.FAIL


def test_a_wrong_quantity_of_profit_fails(world: Any) -> None:
    """The quantity that profit is stated of is the exchange's, exactly."""
    by_symbol(quantity=1)(world)
    assert outcome(world, "pnl") == (Verdict.FAIL, {"pnl-quantity"})


def test_profit_by_symbol_sums_to_the_whole(world: Any) -> None:
    """Within the tolerance of each symbol, but not of the sum: what is stated as a whole is more."""
    rows = world.documents["target/pnl"]["by_symbol"]
    less = {symbol: {**row, "realised": row["realised"] - 900_000} for symbol, row in rows.items()}
    world.change("target/pnl", by_symbol=less)
    assert outcome(world, "pnl") == (Verdict.FAIL, {"pnl-does-not-add-up"})


def test_quantities_that_are_not_stated_by_symbol_are_remarked(world: Any) -> None:
    """Positions are compared elsewhere: that profit names none is said, not judged."""
    rows = world.documents["target/pnl"]["by_symbol"]
    world.change("target/pnl", by_symbol={symbol: {**row, "quantity": None} for symbol, row in rows.items()})
    assert "not-compared" in outcome(world, "pnl")[1]
    assert outcome(world, "pnl")[0] is Verdict.PASS


def test_profit_tolerance_is_the_objective(world: Any) -> None:
    """One hundred dollars are tolerated unless the objectives say otherwise."""
    world.change(
        "target/pnl", realised=2_100_000 + 999_999, total=world.documents["target/pnl"]["total"] + 999_999
    )
    assert outcome(world, "pnl")[0] is Verdict.PASS
    world.objectives(pnl_tolerance=1.0)
    assert outcome(world, "pnl")[0] is Verdict.FAIL


def test_busy_host_is_a_remark(world: Any) -> None:
    """High CPU and memory of the host warn, as in the source document, and say what of it is the target's."""
    samples(8, cpu_percent=99.0, memory_percent=95.0)(world)
    result = VALIDATORS["infrastructure"](Facts(world.history()))
    assert result.verdict is Verdict.PASS
    said = {finding.code: finding.text for finding in result.findings}
    assert said == {
        "cpu-high": "cpu use of the host 99 %, of which the target's components kept 1.00 cores busy",
        "memory-high": "memory use of the host 95 %, of which the target's components hold 47 MiB",
    }


@pytest.mark.parametrize("changes", [{"pid": 43}, {"thread_states": None}])
def test_what_was_not_measured_is_said(world: Any, changes: dict[str, Any]) -> None:
    """A process of one sample, or of unseen threads, is a remark that names the component."""
    last = world.samples[-1]
    engine = {**last.components["engine"], **changes}
    world.samples[-1] = msgspec.structs.replace(last, components={"engine": engine})
    result = VALIDATORS["infrastructure"](Facts(world.history()))
    assert result.verdict is Verdict.PASS
    found = {(f.code, f.data.get("component")) for f in result.findings}
    assert ("threads-not-measured", "engine") in found
    assert (("memory-not-measured", "engine") in found) is ("pid" in changes)


def test_a_disk_full_of_our_own_history_is_no_failure_of_the_target(world: Any) -> None:
    """Blackstart could not write: that is UNKNOWN for the trial, and the full disk is only a remark."""
    samples(8, disk_percent=99.0)(world)
    world.extra = [Problem(code="disk-full", text="no space left on device", mono_ns=READ)]
    result = VALIDATORS["infrastructure"](Facts(world.history()))
    assert result.verdict is Verdict.PASS
    assert "disk-high" in {finding.code for finding in result.findings}


@pytest.mark.parametrize("price", [996_000, 1_002_000])
def test_prices_may_move_while_the_target_is_read(world: Any, price: int) -> None:
    """What lies between the exchange's prices before and after is right, give or take half a percent."""
    world.documents["oracle/market_data"]["ALFA"] = {"bid": 1_000_000, "ask": 1_000_200, "last": 1_000_000}
    marked(price)(world)
    item("target/market_data", "symbols", 0, bid=price - 100, ask=price + 100)(world)
    for name in ("pnl", "market_data"):
        assert outcome(world, name)[0] is Verdict.PASS, name


def test_a_side_of_the_book_may_empty_while_the_target_is_read(world: Any) -> None:
    """An ask that is gone at the second reading need not be stated, and may be."""
    world.documents["oracle/market_data"]["ALFA"]["ask"] = None
    assert outcome(world, "market_data")[0] is Verdict.PASS
    item("target/market_data", "symbols", 0, ask=None)(world)
    assert outcome(world, "market_data")[0] is Verdict.PASS


def test_a_session_may_change_while_the_target_is_read(world: Any) -> None:
    """A link that was logged on at either reading is as the target says."""
    world.documents["oracle/connectivity"] = {"FIRM": False}
    assert outcome(world, "connectivity")[0] is Verdict.PASS
