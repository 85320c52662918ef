"""The first half of a trial: start, prove the steady state, prepare, wait for the trigger."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from blackstart.check import settlement
from blackstart.check import steady as steady_check
from blackstart.check.service import FEWEST_INSTANTS
from blackstart.contracts import Misbehaving, Operates, PlansPhases, ScriptsFills
from blackstart.engine import settle
from blackstart.engine.trial import RunningTrial, Stop
from blackstart.engine.triggers import Trip
from blackstart.errors import BlackstartError
from blackstart.faults import misbehave
from blackstart.model.manifest import Match
from blackstart.model.scenario import Trigger
from blackstart.scenario.plan import offered, service_of, triggers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackstart.model.scenario import Prepare

_SESSION_EVENTS = ("session_connected", "session_disconnected", "logon", "logout", "misbehaviour")
_START_LIMIT_S = 120.0


def services(trial: RunningTrial) -> list[str]:
    """Name the streams to watch: the one that ends the outage, and the one that carries the load."""
    return list(dict.fromkeys([trial.plan.service, _load_service(trial) or trial.plan.service]))


def interest(trial: RunningTrial) -> Sequence[Match]:
    """Name the oracle's events that belong in the history besides the service stream."""
    scenario = trial.plan.scenario
    wanted = [Match(event=event) for event in _SESSION_EVENTS]
    for trigger in triggers(trial.manifest, scenario):
        if trigger.at != "oracle":
            continue
        wanted.append(Match(event=trigger.event, where=trigger.where))
        if trigger.keep:
            wanted.append(Match(event=trigger.event, where=trigger.keep))
    if scenario.settles:
        wanted.append(Match(event="phase", where=settlement.PHASE))
    wanted += [Match(event=one.oracle, where=one.where) for one in scenario.expect if one.oracle is not None]
    return wanted


async def open_target(trial: RunningTrial) -> None:
    """Start or attach. Raises Stop with the target's own words when it does not come up."""
    try:
        await trial.target.open()
    except BlackstartError as error:
        raise Stop("target-did-not-start", error.render()) from error
    await trial.stage("open")


async def start_load(trial: RunningTrial) -> None:
    """Begin the workload, if there is one. Raises Stop when it does not start, or the target dies."""
    assert trial.rig is not None
    if trial.rig.workload is None:
        return
    starting = asyncio.ensure_future(trial.rig.workload.start())

    def over() -> bool:
        trial.refuse_death()
        return starting.done()

    try:
        await trial.until(over, _START_LIMIT_S)
        await starting
    except BlackstartError as error:
        raise Stop("no-load", f"the workload did not start: {error.render()}") from error
    finally:
        starting.cancel()


async def steady_state(trial: RunningTrial) -> None:
    """Wait until the target has been ready without a break for `hold_s`, and was loaded in that time.

    And until the service has shown its rhythm: silence after the fault is judged by it.

    Raises Stop: `no-load` or `not-steady`.
    """
    load = _load_service(trial)
    if load is None:
        raise Stop("no-load", steady_check.no_carrier(trial.plan.service))
    steady = trial.plan.scenario.steady
    hold_ns = round(steady.hold_s * 1e9)
    since: int | None = None

    def held() -> bool:
        nonlocal since
        trial.refuse_death()
        now = trial.now_ns()
        if not _ready(trial) or (since is None and not _flowing(trial)):
            since = None
            return False
        since = now if since is None else since
        rhythm = trial.live.instants(trial.plan.service, since) >= FEWEST_INSTANTS
        return now - since >= hold_ns and rhythm and _loaded(trial, steady.hold_s)

    if not await trial.until(held, steady.limit_s):
        raise _not_steady(trial)
    rate, least = _rates(trial)[load]
    await trial.stage(
        "steady",
        rate_per_s=rate,
        required_per_s=least,
        service=load,
        ready=trial.manifest.ready,
        since_mono_ns=since,
    )


def _not_steady(trial: RunningTrial) -> Stop:
    short = {name: pair for name, pair in _rates(trial).items() if pair[0] < pair[1]}
    if not _ready(trial):
        _, _, detail = trial.live.probes.get(trial.manifest.ready or "", (False, 0, "no answer yet"))
        return Stop("not-steady", f"not ready after {trial.plan.scenario.steady.limit_s:g} s: {detail}")
    if short:
        text = ", ".join(
            f"{name} {rate:.0f}/s, {least:g}/s required" for name, (rate, least) in short.items()
        )
        return Stop("no-load", f"no load: {text}")
    return Stop(
        "not-steady", f"ready and loaded, but never for {trial.plan.scenario.steady.hold_s:g} s on end"
    )


def _flowing(trial: RunningTrial) -> bool:
    return all(trial.live.total(name) > 0 for name in services(trial))


def _loaded(trial: RunningTrial, window_s: float) -> bool:
    return all(rate >= least for rate, least in _rates(trial, window_s).values())


def _ready(trial: RunningTrial) -> bool:
    probe = trial.manifest.ready
    return probe is None or trial.live.ok_since(probe) is not None


def _load_service(trial: RunningTrial) -> str | None:
    return steady_check.carrier(trial.manifest, service_of(trial.manifest, trial.plan.scenario.service))


def _rates(trial: RunningTrial, window_s: float = 1.0) -> dict[str, tuple[float, float]]:
    """Measure each watched service, and say what it must reach.

    Of the one that is no load, anything at all.
    """
    load, now = _load_service(trial), trial.now_ns()
    least = {
        name: max(
            trial.manifest.services[name].minimum_per_s or 0,
            trial.plan.scenario.load.minimum_per_s if name == load else 1,
        )
        for name in services(trial)
    }
    return {
        name: (trial.live.rate_per_s(name, now, window_s=window_s), minimum)
        for name, minimum in least.items()
    }


async def snapshot(trial: RunningTrial) -> None:
    """Read the state documents, to compare with after the recovery."""
    assert trial.rig is not None
    await settle.read_state(trial.rig, trial.clock, trial.record, "before")
    trial.refuse_death()


async def await_trigger(trial: RunningTrial) -> None:
    """Prepare, and return at the moment at which the fault is due.

    Raises Stop when that moment never comes.
    """
    trigger = trial.plan.faults[0].trigger
    with contextlib.closing(Trip(trial, trigger)) as trip:
        since_ns = 0
        if trial.plan.scenario.prepare:
            await trial.stage("preparing")
        for step in trial.plan.scenario.prepare:
            since_ns = trial.now_ns()  # what earlier steps brought about does not fire it
            if offered(trial.manifest, step):
                await _prepare(trial, step, since_ns)
        await trial.stage("armed", trigger=trigger.at)
        await trip.wait(since_ns)
    trial.refuse_death()


async def _prepare(trial: RunningTrial, step: Prepare, since_ns: int) -> None:
    """Do a step and wait until it is done."""
    with contextlib.closing(Trip(trial, step.until or Trigger())) as done:
        await _do(trial, step)
        await done.wait(since_ns)
    await trial.sleep(step.pause_s)


async def _do(trial: RunningTrial, step: Prepare) -> None:
    assert trial.rig is not None
    try:
        if step.action == "submit":
            if trial.rig.workload is None:
                raise Stop("not-prepared", "there is no workload to submit an order")
            await trial.rig.workload.submit(step.parameters)
        elif step.action == "fills" and isinstance(trial.oracle, ScriptsFills):
            await trial.oracle.script_fills(step.parameters)
        elif step.action == "operation" and isinstance(trial.target, Operates):
            await trial.target.operation(str(step.parameters.get("name", "")))
        elif step.action == "phases" and isinstance(trial.oracle, PlansPhases):
            await trial.oracle.plan_phases(step.parameters)
        elif step.action == "misbehave" and isinstance(trial.oracle, Misbehaving):
            await misbehave.arm(trial, step.parameters)
        else:
            raise Stop("not-prepared", f"oracle or target cannot do this: {step.action}")
    except BlackstartError as error:
        raise Stop("not-prepared", f"{step.action}: {error.render()}") from error
