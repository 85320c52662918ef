"""One disturbance as a trial: the plan that the engine understands, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from blackstart.chaos.model import Figures, Injection
from blackstart.check.analyse import disturbance
from blackstart.check.fault import LEFT_IN_PLACE
from blackstart.check.verdict import judge as merged
from blackstart.engine.trial import Stop
from blackstart.errors import TargetError
from blackstart.model.record import Injected, Problem, ProcessSeen, StageReached
from blackstart.model.scenario import FaultStep, Load, Objectives, Observe, Plan, Scenario, Steady
from blackstart.model.verdict import Verdict, conclude
from blackstart.scenario.plan import service_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackstart.chaos.model import Episode, Orders, Profile
    from blackstart.history.view import History
    from blackstart.model.manifest import Manifest
    from blackstart.model.outcome import Trial

SERVICE = "orders"
NS = 1_000_000_000
_AFTER_S = 0.5
WINDOW_CLOSED, COMPONENT_DOWN = "window-closed", "component-down"
FAULT_FAILED = "fault-failed"
NOT_PLACED = (FAULT_FAILED, "trigger-never-came", WINDOW_CLOSED)
_NOT_THERE = (*NOT_PLACED, "fault-not-injected")
RADIUS_LEFT = "radius-left"
_CALM = FaultStep(kind="none")


def name(episode: Episode) -> str:
    """Return a name for people: `kill router + pause feed`."""
    return " + ".join(_step_name(step) for step in episode.steps)


def folder_name(episode: Episode) -> str:
    """Name the folder of its history: number, kind and place of the first fault."""
    first = episode.steps[0]
    place = "-".join([*first.components, *first.links])
    return "-".join(part for part in (f"{episode.number:05}", first.kind, place) if part)


def _step_name(step: FaultStep) -> str:
    return " ".join([step.kind, ",".join([*step.components, *step.links])]).strip()


def plan_of(episode: Episode, manifest: Manifest, profile: Profile, orders: Orders) -> Plan:
    """Return the trial of one disturbance, with what allows it."""
    names = (f"chaos:{episode.number}", name(episode))
    plan = _plan(names, episode.steps, manifest, profile, orders.seed)
    return msgspec.structs.replace(plan, approval=orders.approval)


def calm_plan(what: str, manifest: Manifest, profile: Profile, seed: int) -> Plan:
    """Return the trial of a stretch in which nothing is broken: the start, the end."""
    return _plan((f"chaos:{what}", what), (_CALM,), manifest, profile, seed)


def _plan(
    names: tuple[str, str], steps: Sequence[FaultStep], manifest: Manifest, profile: Profile, seed: int
) -> Plan:
    trial_id, title = names
    lasting_s = lasts_s(steps)
    limit_s = profile.recovery_limit_s + lasting_s
    scenario = Scenario(
        id="chaos",
        title=title,
        requirement="R19",
        fault=steps[0],
        then=tuple(steps[1:]),
        objectives=Objectives(rto_ms=limit_s * 1e3),
        goes_on=True,
        load=Load(minimum_per_s=1.0),
        steady=Steady(hold_s=1.0, limit_s=profile.recovery_limit_s),
        observe=Observe(limit_s=limit_s, after_s=_AFTER_S, quiesce_s=profile.settle_s),
    )
    return Plan(
        trial_id=trial_id,
        scenario=scenario,
        components=steps[0].components,
        service=_service(steps, manifest),
        seed=seed,
        replay="blackstart chaos replay",
        steps=tuple(steps),
    )


def lasts_s(steps: Sequence[FaultStep]) -> float:
    """Return how long it takes, from the first fault, until all is over that has an end of its own."""
    start_s = end_s = 0.0
    for step in steps:
        start_s += step.trigger.delay_s
        end_s = max(end_s, start_s + (step.duration_s or 0.0))
    return end_s


def _service(steps: Sequence[FaultStep], manifest: Manifest) -> str:
    """Choose the stream whose return ends the outage: a single component may have one of its own."""
    own = None
    if len(steps) == 1 and len(steps[0].components) == 1:
        spec = manifest.components.get(steps[0].components[0])
        own = spec.service if spec else None
    return service_of(manifest, own or SERVICE)


def judge(episode: Episode, history: History, start_ns: int) -> Injection:
    """Return what a disturbance came to, from its history."""
    trial = disturbance(history)
    first, observed = history.first(Injected), _stage(history, "observed")
    faults = () if trial.fault is None else (trial.fault, *trial.then)
    verdict, reasons = _said(trial, placed=first is not None)
    return Injection(
        number=episode.number,
        planned_s=episode.at_s,
        at_s=None if first is None else round((first.receipt.t0_mono_ns - start_ns) / NS, 3),
        name=name(episode),
        steps=_as_done(episode, history),
        verdict=verdict,
        reasons=reasons,
        faults=faults,
        judged=_says_something(history, trial),
        recovered=observed is not None and observed.detail.get("why") != "limit",
        rto=trial.rto,
        after=Figures(),
        wall_ns=trial.started_wall_ns,
        folder=str(history.folder),
    )


def left_in_place(injection: Injection) -> list[str]:
    """Return what is said of the undos of a disturbance that failed."""
    said = (reason.partition(": ") for reason in injection.reasons)
    return [text for code, _, text in said if code == LEFT_IN_PLACE]


def _said(trial: Trial, *, placed: bool) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict and the reasons. What could not be placed beside a fault that was is a remark."""
    if not placed:
        return trial.verdict, trial.reasons
    remarks = [f for one in trial.checks for f in one.findings if f.code in _NOT_THERE]
    checks = [
        conclude(one.check, [finding for finding in one.findings if finding.code not in _NOT_THERE])
        for one in trial.checks
    ]
    verdict, reasons = merged(checks)
    return verdict, (*reasons, *(f"{one.code}: {one.text}" for one in remarks))


def _says_something(history: History, trial: Trial) -> bool:
    """Tell whether it says something of the target: a fault came, and it was not broken off.

    One that was broken off says enough when it left the blast radius, or had failed by then: once it was
    watched to the end, or by what went wrong on the way. What was cut off earlier nobody waited for. One that
    found no place says nothing, unless something was struck or left in place, or went wrong besides.
    """
    problems = history.all(Problem)
    if any(one.code == RADIUS_LEFT for one in problems) or _codes(trial) & {LEFT_IN_PLACE}:
        return True
    if history.ended is not None and history.ended.how == "interrupted":
        told = any(one.verdict == Verdict.FAIL.value for one in problems)
        return trial.verdict is Verdict.FAIL and (told or _stage(history, "observed") is not None)
    codes = {one.code for one in problems}
    if history.first(Injected) is not None or not codes or codes - {*NOT_PLACED}:
        return True
    ends = (one for one in history.all(ProcessSeen) if one.what == "exited")
    return FAULT_FAILED in codes and any(ends)


def _codes(trial: Trial) -> set[str]:
    return {finding.code for one in trial.checks for finding in one.findings}


def _as_done(episode: Episode, history: History) -> tuple[FaultStep, ...]:
    """Return the faults that came, each with the delay that it really had."""
    moments = [one.receipt.t0_mono_ns for one in history.all(Injected)]
    done = list(episode.steps[: len(moments)])
    for number in range(1, len(done)):
        delay_s = max(0.0, round((moments[number] - moments[number - 1]) / NS, 3))
        trigger = msgspec.structs.replace(done[number].trigger, at="delay", delay_s=delay_s)
        done[number] = msgspec.structs.replace(done[number], trigger=trigger)
    return tuple(done)


def _stage(history: History, stage: str) -> StageReached | None:
    return next((one for one in history.all(StageReached) if one.stage == stage), None)


def named(stop: Stop) -> Stop:
    """Tell a component that is not there, though nothing was broken yet, from damage that finds no place."""
    if stop.code == FAULT_FAILED and isinstance(stop.__cause__, TargetError):
        return Stop(COMPONENT_DOWN, stop.text, verdict=stop.verdict)
    return stop
