"""A made-up trial: the history of a correct recovery, which tests then spoil in one place at a time."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from blackstart.history.view import History
from blackstart.model.fault import Receipt, Undo, Witness
from blackstart.model.manifest import (
    Component,
    Manifest,
    Match,
    ProbeSpec,
    Process,
    Service,
    StateDocument,
    Stream,
)
from blackstart.model.record import (
    Ended,
    Header,
    Injected,
    LedgerFile,
    ProbeChange,
    ProcessSeen,
    Record,
    ResourceSample,
    Reverted,
    ServiceBatch,
    ServiceWatched,
    SignalSeen,
    StageReached,
    StateRead,
    Witnessed,
)
from blackstart.model.scenario import FaultStep, Objectives, Plan, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

MS = 1_000_000
T0 = 10**12
PERIOD = 2_500_000
FILLS = [
    ("X1", "ALFA", "buy", 100, 1_000_000),
    ("X2", "ALFA", "sell", 40, 1_010_000),
    ("X3", "BRAVO", "sell", 50, 2_000_000),
    ("X4", "BRAVO", "buy", 70, 1_990_000),
    ("X5", "ALFA", "sell", 100, 1_020_000),
]
MARKS = {"ALFA": 1_005_000, "BRAVO": 1_995_000}


def manifest() -> Manifest:
    """Describe a small trading system."""
    documents = [
        "positions",
        "orders",
        "risk",
        "pnl",
        "connectivity",
        "market_data",
        "strategy",
        "infrastructure",
    ]
    return Manifest(
        schema=1,
        name="firm",
        environment="sim",
        processes={"engine": Process(command=("engine",), restart="self")},
        components={"engine": Component(process="engine")},
        phases={
            "detected": (Match(event="peer_lost"),),
            "responded": (Match(event="promotion_started"),),
            "recovered": (Match(event="engine_ready"),),
            "validated": (Match(event="state_validated"),),
        },
        probes={"ready": ProbeSpec(url="http://x")},
        ready="ready",
        services={"orders": Service(source="oracle", event="order_accepted", epoch=r"^(\d+)-")},
        streams={
            "executions": Stream(
                acknowledged="oracle:executions",
                key="exec_id",
                content=("symbol", "side", "quantity", "price"),
                url="http://x",
            )
        },
        state={name: StateDocument(url="http://x") for name in documents},
    )


def plan(**changes: Any) -> Plan:
    """Plan to kill the engine; `changes` go to the scenario."""
    settings: dict[str, Any] = {
        "id": "R1",
        "title": "hot failover",
        "requirement": "R1",
        "fault": FaultStep(kind="kill"),
        "objectives": Objectives(rto_ms=500),
    }
    scenario = Scenario(**{**settings, **changes})
    return Plan(
        trial_id=scenario.id,
        scenario=scenario,
        components=("engine",),
        service="orders",
        seed=7,
        replay="replay",
    )


def events(
    start_ns: int, end_ns: int, *, epoch: int = 1, period_ns: int = PERIOD
) -> list[tuple[int, str, int]]:
    """Orders at a steady rhythm."""
    moments = range(start_ns, end_ns, period_ns)
    return [(mono, f"{epoch}-C{number:07d}", 1000) for number, mono in enumerate(moments)]


def signal(event: str, after_ms: float) -> SignalSeen:
    """Make an event of the target, so long after t0."""
    mono = T0 + round(after_ms * MS)
    return SignalSeen(source="events", event=event, mono_ns=mono, seen_mono_ns=mono + MS)


def documents(read_ns: int) -> dict[str, Any]:
    """Say what a correct target and its exchange say after FILLS."""
    cash = {"ALFA": -100_000_000 + 40_400_000 + 102_000_000, "BRAVO": 100_000_000 - 139_300_000}
    realised = {"ALFA": 40 * 10_000 + 60 * 20_000, "BRAVO": 50 * 10_000}
    quantity = {"ALFA": -40, "BRAVO": 20}
    total = {s: cash[s] + quantity[s] * MARKS[s] for s in MARKS}
    pnl = {
        s: {
            "realised": realised[s],
            "unrealised": total[s] - realised[s],
            "mark": MARKS[s],
            "quantity": quantity[s],
        }
        for s in MARKS
    }
    order = {
        "cl_ord_id": "2-C0000001", "status": "new", "symbol": "ALFA", "side": "buy", "price": 990_000,
        "quantity": 10, "cum_quantity": 0, "leaves_quantity": 10,
    }  # fmt: skip
    return {
        "target/positions": {
            "positions": [{"symbol": s, "quantity": quantity[s], "cash": cash[s]} for s in MARKS]
        },
        "target/orders": {"orders": [order, {"cl_ord_id": "1-C0000001", "status": "filled"}]},
        "target/risk": {
            "limits": {"position": {"*": 1000}, "gross_notional": 10**12, "concentration_pct": 100.0},
            "usage": {
                "position": {"ALFA": 40, "BRAVO": 20},
                "gross_notional": 40 * MARKS["ALFA"] + 20 * MARKS["BRAVO"],
                "concentration_pct": 50.19,
            },
            "breaches": [],
        },
        "target/pnl": {
            "realised": sum(realised.values()),
            "unrealised": sum(total.values()) - sum(realised.values()),
            "total": sum(total.values()),
            "by_symbol": pnl,
        },
        "target/connectivity": {
            "links": [
                {"name": "PAPEREX", "kind": "exchange", "connected": True},
                {"name": "pg", "kind": "database", "connected": True},
                {"name": "nats", "kind": "queue", "connected": True},
            ]
        },
        "target/market_data": {
            "symbols": [
                {
                    "symbol": s,
                    "bid": MARKS[s] - 100,
                    "ask": MARKS[s] + 100,
                    "last_update_mono_ns": read_ns - 50 * MS,
                    "stale": False,
                }
                for s in MARKS
            ]
        },
        "target/strategy": {
            "initialised": True,
            "indicators": [
                {"symbol": "ALFA", "name": "ema_mid", "value": 100.5, "samples": read_ns // 10**9}
            ],
        },
        "target/infrastructure": {
            "configuration": {"loaded": True, "sha256": "c0"},
            "timers": [{"name": "checkpoint", "period_ms": 1000, "last_fired_mono_ns": read_ns - 100 * MS}],
            "threads": [{"component": "engine", "name": "loop", "heartbeat_mono_ns": read_ns - MS}],
            "logging": {"last_written_mono_ns": read_ns - MS},
            "metrics": {"scraped": 3, "last_scraped_mono_ns": read_ns - 500 * MS},
        },
        "oracle/positions": {s: {"quantity": quantity[s], "cash": cash[s]} for s in MARKS},
        "oracle/orders": [dict(order)],
        **outside(),
    }


def outside() -> dict[str, Any]:
    """Say what the exchange tells of prices and sessions, before and after the target is read."""
    return {
        "oracle/market_data": {
            s: {"bid": MARKS[s] - 100, "ask": MARKS[s] + 100, "last": MARKS[s] - 100} for s in MARKS
        },
        "oracle/connectivity": {"FIRM": True},
    }


def ledger_rows() -> dict[str, list[dict[str, Any]]]:
    """Both sides of the stream of executions."""
    rows = [
        {
            "key": key,
            "seq": number,
            "content": json.dumps([symbol, side, str(quantity), str(price)]),
            "mono_ns": T0 - (6 - number) * MS,
            "notional": quantity * price,
        }
        for number, (key, symbol, side, quantity, price) in enumerate(FILLS, start=1)
    ]
    return {"acknowledged": rows, "recovered": [{k: r[k] for k in ("key", "seq", "content")} for r in rows]}


class World:
    """Everything that goes into a history, open to be spoiled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = manifest()
        self.plan = plan()
        self.receipt = Receipt(
            fault="kill", mechanism="pidfd", t0_mono_ns=T0, t0_source="kill", uncertainty_ns=2000,
            undo=(Undo(id="u1", action="kill", arguments={}),),
        )  # fmt: skip
        self.witness = Witness(bit=True, evidence={"status": -9})
        self.signals = [
            signal("peer_lost", 1),
            signal("promotion_started", 3),
            signal("engine_ready", 20),
            signal("state_validated", 25),
        ]
        self.service = [
            *events(T0 - 5000 * MS, T0),
            (T0 + MS, "1-C9999999", 1000),
            *events(T0 + 30 * MS, T0 + 1400 * MS, epoch=2),
        ]
        self.documents = documents(T0 + 2000 * MS)
        self.before = {k: v for k, v in documents(T0 - 1000 * MS).items() if k.startswith("target/")}
        self.earlier = outside()
        self.ledgers = ledger_rows()
        self.extra: list[Record] = []
        self.samples = [self.sample(number) for number in range(12)]

    def sample(self, number: int, **changes: Any) -> ResourceSample:
        """One measurement of a healthy host."""
        one = {"pid": 42, "cpu_s": number / 10, "rss": 50_000_000, "threads": 4, "state": "sleeping"}
        one["thread_states"] = {"S": 3, "D": 1}
        values: dict[str, Any] = {"cpu_percent": 40.0, "memory_percent": 30.0, "disk_percent": 20.0}
        values["components"] = {"engine": one}
        return ResourceSample(mono_ns=T0 + number * 100 * MS, **{**values, **changes})

    def records(self) -> list[Record]:
        """Return the history in order."""
        watched = ServiceWatched(service="orders", since_mono_ns=T0 - 6000 * MS, until_mono_ns=T0 + 1500 * MS)
        return [
            Header(plan=self.plan, manifest=self.manifest, version="0", host={}),
            stage("open", -6000),
            *self._batches(before=True),
            stage("steady", -3000),
            *self._states(self.before, "before", T0 - 1000 * MS),
            stage("armed", -10),
            Injected(receipt=self.receipt),
            stage("injected", 1),
            *self.signals,
            ProbeChange(probe="ready", ok=False, mono_ns=T0 + 4 * MS, uncertainty_ns=5 * MS, samples=9),
            ProbeChange(probe="ready", ok=True, mono_ns=T0 + 28 * MS, uncertainty_ns=5 * MS, samples=5),
            ProcessSeen(component="engine", what="exited", pid=41, mono_ns=T0 + MS // 5),
            *self._batches(before=False),
            Witnessed(witness=self.witness),
            stage("witnessed", 40),
            *self.samples,
            stage("observed", 1400),
            Reverted(undo_id="u1", verified=True, evidence={}),
            stage("reverted", 1450),
            watched,
            stage("quiesced", 1800),
            *self._states(self.earlier, "after", T0 + 1990 * MS),
            *self._states(self.documents, "after", T0 + 2000 * MS),
            *self._files(),
            stage("read", 2100),
            *self.extra,
            stage("closed", 2200),
            Ended(mono_ns=T0 + 2300 * MS, how="complete"),
        ]

    def history(self, without: Callable[[Record], bool] = lambda _record: False) -> History:
        """Return the history, less the records that `without` names."""
        return History.of([r for r in self.records() if not without(r)], self.folder)

    def change(self, name: str, **changes: Any) -> None:
        """Alter top-level fields of a document."""
        self.documents[name] = {**self.documents[name], **changes}

    def objectives(self, **changes: Any) -> None:
        """Alter the objectives."""
        scenario = self.plan.scenario
        changed = msgspec.structs.replace(scenario.objectives, **changes)
        self.plan = msgspec.structs.replace(
            self.plan, scenario=msgspec.structs.replace(scenario, objectives=changed)
        )

    def _batches(self, *, before: bool) -> Iterable[Record]:
        found = [e for e in self.service if (e[0] <= T0) is before]
        return [ServiceBatch(service="orders", events=found[i : i + 20]) for i in range(0, len(found), 20)]

    def _states(self, found: dict[str, Any], moment: Any, mono_ns: int) -> Iterable[Record]:
        for key, document in found.items():
            side, name = key.split("/")
            late_ns = 5 * MS if side == "oracle" else 0  # asked after the target
            yield StateRead(
                side=side,  # type: ignore[arg-type]
                moment=moment,
                name=name,
                mono_ns=mono_ns + late_ns,
                document=document,
            )

    def _files(self) -> Iterable[Record]:
        (self.folder / "ledger").mkdir(exist_ok=True)
        for side, rows in self.ledgers.items():
            path = self.folder / "ledger" / f"executions.{side}.jsonl"
            data = "".join(json.dumps(row) + "\n" for row in rows).encode()
            path.write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            yield LedgerFile(
                stream="executions",
                side=side,
                path=f"ledger/{path.name}",
                sha256=digest,
                rows=len(rows),  # type: ignore[arg-type]
            )


def stage(name: Any, after_ms: float) -> StageReached:
    """Make a stage of the life cycle, so long after t0."""
    return StageReached(stage=name, mono_ns=T0 + round(after_ms * MS))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Make a correct recovery."""
    return World(tmp_path)
