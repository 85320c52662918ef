"""The second half of a trial.

Inject, witness, observe the recovery, take back, let the books settle, read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blackstart.contracts import Quiets
from blackstart.engine import settle
from blackstart.errors import BlackstartError
from blackstart.model.record import WORKLOAD_FAILED

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from blackstart.engine.breakage import Breakages
    from blackstart.engine.trial import RunningTrial

_SIGHT_S = 0.25
_VALIDATION_NS = 3_000_000_000
_UNTOUCHED_NS = 3_000_000_000
_UNREPORTED_NS = 6_000_000_000


async def observe(trial: RunningTrial, breakages: Breakages) -> None:
    """Watch until the service is back (or never went), then for `after_s` more; at most `limit_s`.

    If it is silent again then, or not ready, it is watched until it is neither, for at most as long again.
    """
    limits = trial.plan.scenario.observe
    why = "limit"

    def seen() -> bool:
        nonlocal why
        found = _over(trial, breakages)
        why = found or why
        return found is not None

    await trial.until(seen, limits.limit_s)
    await trial.until(lambda: breakages.witnessed, limits.limit_s)
    if why != "limit":
        await trial.sleep(limits.after_s)
        await trial.until(lambda: not _silent_again(trial) and _ready_again(trial), limits.limit_s)
    await trial.stage("observed", why=why)
    # Watchers vouch for silence at each heartbeat of their source: let the next one come.
    await trial.sleep(_SIGHT_S)


def _over(trial: RunningTrial, breakages: Breakages) -> str | None:
    """Say why there is nothing more to wait for, or None."""
    now, t0 = trial.now_ns(), trial.live.t0_ns
    assert t0 is not None
    if not breakages.done or not _ready_again(trial) or trial.live.awaits(now):
        return None
    if not all(trial.live.lives_again(receipt.hit) for receipt in breakages.receipts):
        return None
    resumed = trial.live.resume.final(now)
    if resumed is not None:
        done = _reported(trial, "validated", resumed[0]) or now - resumed[0] > _VALIDATION_NS
        return "resumed" if done else None
    if trial.live.resume.interrupted(now) is not False:
        return None
    calm = _reported(trial, "recovered", t0) and now - t0 > _UNTOUCHED_NS
    return "no interruption" if calm or now - t0 > _UNREPORTED_NS else None


def _silent_again(trial: RunningTrial) -> bool:
    resume = trial.live.resume
    return resume.usual is not None and not resume.running(trial.now_ns())


def _ready_again(trial: RunningTrial) -> bool:
    probe = trial.manifest.ready
    if probe is None:
        return True
    since = trial.live.ok_since(probe)
    spec = trial.manifest.probes[probe]
    return since is not None and trial.now_ns() - since >= spec.stable_ms * 1e6


def _reported(trial: RunningTrial, phase: str, _since_ns: int) -> bool:
    """Whether the target reported a phase since the fault.

    A target that never reports it is not waited for.
    """
    return not trial.live.expects(phase) or phase in trial.live.phases


async def stop_load(trial: RunningTrial) -> None:
    """End the workload, and then the market: books can only be compared when they are at rest."""
    assert trial.rig is not None
    if trial.rig.workload is not None:
        await _or_problem(trial, WORKLOAD_FAILED, trial.rig.workload.stop())
    if isinstance(trial.oracle, Quiets):
        await _or_problem(trial, "no-quiet", trial.oracle.quiet())


async def read(trial: RunningTrial, folder: Path) -> None:
    """Let the books settle, then read everything that the checkers compare."""
    assert trial.rig is not None
    detail = await settle.quiesce(trial.rig, trial.clock, trial.plan.scenario.observe.quiesce_s)
    await trial.stage("quiesced", **detail)
    await settle.read_state(trial.rig, trial.clock, trial.record, "after")
    await settle.export(trial.rig, trial.clock, trial.record, folder / "ledger")
    await trial.stage("read")


async def _or_problem(trial: RunningTrial, code: str, doing: Coroutine[Any, Any, object]) -> None:
    try:
        await doing
    except BlackstartError as error:
        trial.problem(code, error.render())
