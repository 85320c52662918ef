"""Sample results of every shape a reporter must cope with: pass, losses, unknown, censored, no outage.

Figures are invented; they obey the rules of real ones (phases sum to the total, counts match the lists).
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from blackstart.history.writer import HistoryWriter
from blackstart.model.instant import Stamp, StampName
from blackstart.model.manifest import Manifest
from blackstart.model.outcome import PHASES, ChecklistItem, FaultRecord, Rpo, Rto, Run, StreamLoss, Trial
from blackstart.model.record import Ended, Header, Record, ServiceBatch
from blackstart.model.scenario import FaultStep, Objectives, Plan, Scenario
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

T0_NS = 5_000_000_000_000
_MS = 1_000_000
_VALIDATORS = (
    "positions",
    "orders",
    "risk",
    "pnl",
    "connectivity",
    "market_data",
    "strategy",
    "infrastructure",
)
_CHECKLIST = (
    "Positions match exchange",
    "Open orders restored correctly",
    "Risk limits accurate",
    "P&L calculations correct",
    "Market data feed active",
    "Exchange connections established",
    "Strategy state restored",
    "Configuration loaded",
    "Monitoring active",
    "Logging functional",
    "Database accessible",
    "Message queues working",
    "Timers/schedulers running",
    "No memory leaks",
    "No stuck threads",
)
_SOURCES = (
    "kill call",
    "pidfd",
    "signal component_starting",
    "signal engine_ready",
    "signal state_validated",
    "oracle order_accepted",
)


def sample_rto(*phases_ms: float | None) -> Rto:
    """Return an RTO of five phases in milliseconds; None leaves out the stamp at the phase's end."""
    lengths = [None if phase is None else round(phase * _MS) for phase in phases_ms]
    at, stamps, pending = T0_NS, {}, 0
    for number, (name, source) in enumerate(zip(StampName, _SOURCES, strict=True)):
        step = 0 if number == 0 else lengths[number - 1]
        if step is None:
            pending += 2 * _MS
            continue
        at, pending = at + step + pending, 0
        stamps[name.value] = Stamp(
            name=name, mono_ns=at, source=source, uncertainty_ns=40_000 * number, inferred=number == 1
        )
    known = dict(zip((f"{phase}_ns" for phase in PHASES), _phases(stamps), strict=True))
    return Rto(**known, total_ns=at - T0_NS, uncertainty_ns=212_000, interrupted=True, stamps=stamps)


def _phases(stamps: dict[str, Stamp]) -> list[int | None]:
    found = [stamps.get(name) for name in StampName]
    return [
        None if right is None or left is None else right.mono_ns - left.mono_ns
        for left, right in pairwise(found)
    ]


def sample_loss(acknowledged: int, **lists: tuple[str, ...]) -> StreamLoss:
    """Return what became of a stream, with counts that match `lists`."""
    kinds = ("lost", "duplicated", "phantom", "corrupted", "reordered", "indeterminate", "late")
    counts = {kind: len(lists.get(kind, ())) for kind in kinds}
    loss = StreamLoss(
        acknowledged=acknowledged,
        recovered=acknowledged - counts["lost"] + counts["duplicated"] + counts["phantom"],
        counts=counts,
        gap_events=counts["lost"],
    )
    return msgspec.structs.replace(loss, **lists)


def _rpo(orders: StreamLoss, executions: StreamLoss, *, ms: float | None = None) -> Rpo:
    lost = orders.counts["lost"] + executions.counts["lost"]
    return Rpo(
        events=lost,
        ms=ms,
        notional=float(1234 * lost),
        acknowledged=orders.acknowledged + executions.acknowledged,
        streams={"orders": orders, "executions": executions},
    )


def _validation(bad: dict[str, Finding]) -> dict[str, CheckResult]:
    return {name: conclude(name, [bad[name]] if name in bad else []) for name in _VALIDATORS}


def _checklist(verdict: Verdict) -> tuple[ChecklistItem, ...]:
    return tuple(
        ChecklistItem(
            number=number,
            text=text,
            verdict=verdict if number == 1 else Verdict.PASS,
            evidence="eight symbols compared with the exchange" if number == 1 else "",
        )
        for number, text in enumerate(_CHECKLIST, 1)
    )


def sample_trial(
    trial_id: str,
    title: str,
    *,
    verdict: Verdict = Verdict.PASS,
    reasons: tuple[str, ...] = (),
    rto: Rto | None = None,
    rpo: Rpo | None = None,
    bad: dict[str, Finding] | None = None,
    note: str = "",
) -> Trial:
    """Return a trial with everything else filled in."""
    scenario = trial_id.partition(":")[0]
    objective = Finding(verdict=Verdict.PASS, code="within-objective", text="RTO within 30,000 ms")
    return Trial(
        id=trial_id,
        scenario=scenario,
        title=title,
        requirement=scenario,
        target="paperfirm",
        verdict=verdict,
        reasons=reasons,
        seed=7,
        replay=f"blackstart run {trial_id} --seed 7",
        fault=FaultRecord(
            name="kill", mechanism="pidfd_send_signal(SIGKILL)", witness={"signal": 9}, reverted=True
        ),
        rto=rto or Rto(),
        rpo=rpo or _rpo(sample_loss(12_000), sample_loss(6_204)),
        validation=_validation(bad or {}),
        checklist=_checklist(Verdict.FAIL if bad else Verdict.PASS),
        checks=(conclude("rto", [objective]), conclude("fault", [])),
        objectives={"rto_ms": 30_000.0, "rpo_events": 0.0},
        note=note,
        load_per_s=412.3,
        started_wall_ns=1_780_000_000_000_000_000,
        duration_ns=5_400 * _MS,
        folder=trial_id.replace(":", "-"),
    )


def sample_trials() -> tuple[Trial, ...]:
    """Return one trial of every shape."""
    mismatch = Finding(
        verdict=Verdict.FAIL,
        code="position-mismatch",
        text="ALFA: the firm holds 300, the exchange says 500",
        data={"symbol": "ALFA", "held": 300, "exchange": 500},
    )
    lost = _rpo(sample_loss(12_010), sample_loss(6_120, lost=("E-10231", "E-10232"), late=("E-9",)), ms=41.5)
    no_load = "no-load: 211/s at the fault, 300/s required"
    censored = Rto(
        detection_ns=300_000,
        response_ns=2 * _MS,
        censored_ns=30_000 * _MS,
        interrupted=True,
        stamps=dict(list(sample_rto(0.3, 2.0, None, None, None).stamps.items())[:3]),
    )
    calm = Rto(interrupted=False, longest_gap_ns=12 * _MS, usual_gap_ns=9 * _MS, stamps=_only_t0())
    return (
        sample_trial("R1", "hot failover", rto=sample_rto(12.1, 3.0, 9.8, 4.2, 12.2)),
        sample_trial("R25:router", "abrupt kill: router", rto=sample_rto(0.3, 1.9, 180.4, 20.1, 9.3)),
        sample_trial("R25:risk", "abrupt kill: risk", rto=calm),
        sample_trial(
            "R33",
            "crash in a large order",
            verdict=Verdict.FAIL,
            reasons=("executions: 2 lost (E-10231, E-10232)", "positions: " + mismatch.text),
            rto=sample_rto(0.4, 2.2, None, 22.0, 8.8),
            rpo=lost,
            bad={"positions": mismatch},
            note="500 of 1000 filled",
        ),
        sample_trial(
            "R3", "cold restart", verdict=Verdict.FAIL, reasons=("rto: not back within 30 s",), rto=censored
        ),
        sample_trial("R2", "warm restart", verdict=Verdict.UNKNOWN, reasons=(no_load,), rpo=Rpo()),
    )


def _only_t0() -> dict[str, Stamp]:
    return {StampName.FAILURE: Stamp(name=StampName.FAILURE, mono_ns=T0_NS, source="kill call")}


def sample_run(folder: Path | str = "") -> Run:
    """Return a run of all sample trials."""
    return Run(
        id="20260701-120000-5eed",
        version="0.1.0",
        target="paperfirm",
        target_title="reference firm",
        seed=7,
        folder=str(folder),
        started_wall_ns=1_780_000_000_000_000_000,
        duration_ns=48_200 * _MS,
        trials=sample_trials(),
        environment={"python": "3.11", "cpu": {"count": 2, "model": "any"}, "kernel": "6.1"},
    )


def sample_history(trial: Trial, *, seed: int = 7, rate_per_s: int = 400) -> list[Record]:
    """Return a history whose order flow fits the trial: steady, silent during its outage, steady again."""
    rng = random.Random(seed)
    scenario = Scenario(
        id=trial.scenario,
        title=trial.title,
        requirement=trial.requirement,
        fault=FaultStep(kind="kill"),
        objectives=Objectives(rto_ms=30_000),
    )
    plan = Plan(
        trial_id=trial.id, scenario=scenario, components=(), service="orders", seed=7, replay=trial.replay
    )
    manifest = Manifest(schema=1, name="paperfirm", environment="sim")
    batch = ServiceBatch(service="orders", events=_arrivals(trial.rto, rng, rate_per_s))
    return [
        Header(plan=plan, manifest=manifest, version="0.1.0", host={}),
        batch,
        Ended(mono_ns=T0_NS, how="complete"),
    ]


def _arrivals(rto: Rto, rng: random.Random, rate_per_s: int) -> list[tuple[int, str, int]]:
    back = T0_NS + (rto.total_ns or rto.censored_ns or 0)
    events, at = list[tuple[int, str, int]](), T0_NS - 3_000 * _MS
    while at < back + 3_000 * _MS:
        if not T0_NS < at < back:
            events.append((at, f"1-C{len(events)}", 1000))
        at += round(rng.expovariate(rate_per_s) * 1e9)
    return events if rto.censored_ns is None else [event for event in events if event[0] <= T0_NS]


def write_histories(trials: Sequence[Trial], folder: Path) -> None:
    """Write a fitting history for each trial below `folder`."""
    for trial in trials:
        place = folder / trial.folder
        place.mkdir(parents=True)
        writer = HistoryWriter(place)
        for record in sample_history(trial):
            writer.append(record)
        writer.close()
