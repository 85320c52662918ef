"""The second half of a trial.

Inject, witness, observe the recovery, take back, let the books settle, read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from blackstart.contracts import Aimed, Fault, Operated, Quiets
from blackstart.engine import settle
from blackstart.engine.trial import RunningTrial, Stop
from blackstart.errors import BlackstartError, FaultError
from blackstart.model.fault import Receipt, Witness
from blackstart.model.record import Injected, Witnessed

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

T = TypeVar("T")

_HUSH_S = 0.002
_SIGHT_S = 0.25
_VALIDATION_NS = 3_000_000_000
_UNTOUCHED_NS = 3_000_000_000
_UNREPORTED_NS = 6_000_000_000


class Breakage:
    """The fault of one trial, from aiming to taking back."""

    def __init__(self, trial: RunningTrial, fault: Fault) -> None:
        self._trial = trial
        self._fault = fault
        self.receipt: Receipt | None = None
        self._limit: asyncio.Task[None] | None = None
        self._taking_back: asyncio.Task[None] | None = None
        self._witness: asyncio.Task[None] | None = None
        self._operator: asyncio.Task[None] | None = None

    async def aim(self) -> None:
        """Look the victims up while there is time."""
        if isinstance(self._fault, Aimed):
            await _or_stop("fault-failed", self._fault.aim(self._trial, self._trial.plan.scenario.fault))

    async def inject(self) -> None:
        """Break it; the witness and the operator set to work at once, side by side."""
        trial = self._trial
        step = trial.plan.scenario.fault
        receipt = await _or_stop("fault-failed", self._fault.inject(trial, step))
        self.receipt = receipt
        trial.record(Injected(receipt=receipt))
        if receipt.undo:
            self._limit = asyncio.ensure_future(self._at_limit(receipt))
        if isinstance(self._fault, Operated):
            self._operator = asyncio.ensure_future(self._operate(self._fault, receipt))
        detail = {"mechanism": receipt.mechanism}
        now = trial.mark("injected", detail)
        # Back to the loop at once: it is waiting to hear of the deaths, and telling people can wait.
        await trial.sleep(_HUSH_S)
        self._witness = asyncio.ensure_future(self._testify(receipt))
        await trial.tell(
            "stage", {"trial_id": trial.plan.trial_id, "stage": "injected", "detail": detail, "mono_ns": now}
        )

    @property
    def operated(self) -> bool:
        """Whether the operator has done what there was to do."""
        return self._operator is None or self._operator.done()

    @property
    def witnessed(self) -> bool:
        """Whether the witness has spoken."""
        return self._witness is None or self._witness.done()

    async def revert(self) -> None:
        """Take everything back, and have the guardian prove it; idempotent."""
        for task in (self._limit, self._operator, self._witness):
            if task is not None:
                task.cancel()
        if self.receipt is None:
            return
        if self._taking_back is None:
            self._taking_back = asyncio.ensure_future(self._take_back(self.receipt, {}))
        await asyncio.shield(self._taking_back)

    async def _at_limit(self, receipt: Receipt) -> None:
        """No fault lasts longer than the manifest allows, whatever its scenario says."""
        limit_s = self._trial.manifest.limits.fault_limit_s
        await self._trial.clock.sleep_until(receipt.t0_mono_ns + round(limit_s * 1e9))
        if self._operator is not None:
            self._operator.cancel()
        self._taking_back = asyncio.ensure_future(self._take_back(receipt, {"fault_limit_s": limit_s}))

    async def _take_back(self, receipt: Receipt, why: dict[str, Any]) -> None:
        try:
            await self._fault.revert(self._trial, receipt)
        except BlackstartError as error:
            self._trial.problem("revert-failed", error.render(), verdict="FAIL")
        try:
            outcomes = (
                await self._trial.guard.undo([undo.id for undo in receipt.undo]) if receipt.undo else []
            )
        except FaultError:
            return  # the guardian has gone (`halt`): the conductor tells what it did, and does the rest
        for outcome in outcomes:
            self._trial.record(msgspec.structs.replace(outcome, evidence={**outcome.evidence, **why}))

    async def _testify(self, receipt: Receipt) -> None:
        trial = self._trial
        try:
            witness = await self._fault.witness(trial, receipt)
        except Exception as error:  # noqa: BLE001 - a witness that fails has seen nothing: UNKNOWN, and the trial goes on
            witness = Witness(bit=None, evidence={"error": f"{type(error).__name__}: {error}"})
        trial.record(Witnessed(witness=witness))
        await trial.stage("witnessed", bit=witness.bit)

    async def _operate(self, fault: Operated, receipt: Receipt) -> None:
        try:
            await fault.operate(self._trial, receipt)
        except BlackstartError as error:
            self._trial.problem("operator-failed", error.render(), verdict="FAIL")


async def _or_stop(code: str, doing: Coroutine[Any, Any, T]) -> T:
    try:
        return await doing
    except BlackstartError as error:
        raise Stop(code, error.render()) from error


async def observe(trial: RunningTrial, breakage: Breakage) -> None:
    """Watch until the service is back (or never went), then for `after_s` more; at most `limit_s`."""
    limits = trial.plan.scenario.observe
    why = "limit"

    def seen() -> bool:
        nonlocal why
        found = _over(trial, breakage)
        why = found or why
        return found is not None

    await trial.until(seen, limits.limit_s)
    await trial.until(lambda: breakage.witnessed, limits.limit_s)
    if why != "limit":
        await trial.sleep(limits.after_s)
    await trial.stage("observed", why=why)
    # Watchers vouch for silence at each heartbeat of their source: let the next one come.
    await trial.sleep(_SIGHT_S)


def _over(trial: RunningTrial, breakage: Breakage) -> str | None:
    """Say why there is nothing more to wait for, or None."""
    now, t0 = trial.now_ns(), trial.live.t0_ns
    assert t0 is not None
    if not breakage.operated or not breakage.witnessed or not _ready_again(trial):
        return None
    if breakage.receipt is not None and not trial.live.lives_again(breakage.receipt.processes):
        return None
    resumed = trial.live.resume.final(now)
    if resumed is not None:
        done = _reported(trial, "validated", resumed[0]) or now - resumed[0] > _VALIDATION_NS
        return "resumed" if done else None
    if trial.live.resume.interrupted(now) is not False:
        return None
    calm = _reported(trial, "recovered", t0) and now - t0 > _UNTOUCHED_NS
    return "no interruption" if calm or now - t0 > _UNREPORTED_NS else None


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
        await _or_problem(trial, "workload-failed", trial.rig.workload.stop())
    if isinstance(trial.oracle, Quiets):
        await _or_problem(trial, "no-quiet", trial.oracle.quiet())


async def read(trial: RunningTrial, folder: Path) -> None:
    """Let the books settle, then read everything that the checkers compare."""
    assert trial.rig is not None
    detail = await settle.quiesce(trial.rig, trial.clock, trial.plan.scenario.observe.quiesce_s)
    await trial.stage("quiesced", **detail)
    await settle.read_state(trial.rig, trial.clock, trial.record, "after")
    await settle.export(trial.rig, trial.record, folder / "ledger")
    await trial.stage("read")


async def _or_problem(trial: RunningTrial, code: str, doing: Coroutine[Any, Any, object]) -> None:
    try:
        await doing
    except BlackstartError as error:
        trial.problem(code, error.render())
