"""The faults of one trial, from preparing to taking back: the first, and those that follow it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from blackstart.contracts import Aimed, AimsEarly, Exclusive, Fault, Operated, Prepared, Prepares
from blackstart.engine import alarm
from blackstart.engine.trial import DISK_FULL, Stop, handing
from blackstart.engine.triggers import Trip
from blackstart.errors import BlackstartError, FaultError, said
from blackstart.faults import registry
from blackstart.model.fault import Witness
from blackstart.model.record import Injected, Witnessed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from blackstart.engine.trial import RunningTrial
    from blackstart.model.fault import Receipt
    from blackstart.model.scenario import FaultStep

T = TypeVar("T")

_HUSH_S = 0.002


class Breakage:
    """One fault of a trial."""

    def __init__(self, trial: RunningTrial, fault: Fault, step: FaultStep, number: int) -> None:
        self._trial = trial
        self._fault = fault
        self.step = step
        self._number = number
        self.receipt: Receipt | None = None
        self._handed: list[str] = []
        self._taking_back: asyncio.Task[None] | None = None
        self._limit: asyncio.Task[None] | None = None
        self._witness: asyncio.Task[None] | None = None
        self._operator: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """See that it can be done here, and put in place what must be there before the target starts."""
        why_not = registry.unavailable(self._fault, self._trial.manifest, self.step)
        if why_not is not None:
            raise Stop("fault-unavailable", f"{self.step.kind}: {why_not}")
        if not isinstance(self._fault, Prepares):
            return
        with handing(lasts=True):  # the target stands on it until it has ended
            change = await _or_stop("fault-failed", self._fault.prepare(self._trial, self.step))
        if isinstance(self._trial.target, Prepared):
            self._trial.target.change_launch(change)

    async def aim(self) -> None:
        """Look the victims up while there is time."""
        if isinstance(self._fault, Aimed):
            with handing(lasts=True) as handed:  # the trigger may let it wait for long
                self._handed = handed.ids
                await _or_stop("fault-failed", self._fault.aim(self._trial, self.step))

    @property
    def aims_early(self) -> bool:
        """Whether it can be aimed before earlier faults of the trial came."""
        return isinstance(self._fault, AimsEarly)

    async def inject(self) -> None:
        """Break it; the witness and the operator set to work at once, side by side."""
        trial = self._trial
        receipt = await self._broken()
        self.receipt = receipt
        trial.record(Injected(receipt=receipt, step=self._number))
        if receipt.undo:
            self._limit = asyncio.ensure_future(self._at_limit(receipt))
        if isinstance(self._fault, Operated):
            self._operator = asyncio.ensure_future(self._operate(self._fault, receipt))
        detail = {"mechanism": receipt.mechanism, "step": self._number}
        now = trial.mark("injected", detail)
        # Back to the loop at once: it is waiting to hear of the deaths, and telling people can wait.
        await trial.sleep(_HUSH_S)
        self._witness = asyncio.ensure_future(self._testify(receipt))
        await trial.tell(
            "stage", {"trial_id": trial.plan.trial_id, "stage": "injected", "detail": detail, "mono_ns": now}
        )

    async def _broken(self) -> Receipt:
        """Have it broken. What fails, or is cancelled, half-way is taken back at once."""
        with handing(lasts=False) as handed:
            try:
                return await _or_stop("fault-failed", self._fault.inject(self._trial, self.step))
            except BaseException:
                self._handed = [*self._handed, *handed.ids]
                await self._let_go()
                raise

    async def _let_go(self) -> None:
        """Have the guardian take back what was handed to it for a fault that did not come; idempotent."""
        if self._taking_back is None and self._handed:
            self._taking_back = asyncio.ensure_future(self._pay(self._handed, {"why": "it was not injected"}))
        if self._taking_back is not None:
            await asyncio.shield(self._taking_back)

    @property
    def done(self) -> bool:
        """Whether operator and witness are done, and a fault with an end of its own was taken back."""
        lasts = self.step.duration_s is not None and self._limit is not None
        over = not lasts or (self._taking_back is not None and self._taking_back.done())
        return over and _done(self._operator) and _done(self._witness)

    @property
    def witnessed(self) -> bool:
        """Whether the witness has spoken."""
        return _done(self._witness)

    def refuse_overlap(self, others: Iterable[Breakage]) -> None:
        """Raise Stop when one of `others` is in place where this is to come, and would end with it."""
        if not isinstance(self._fault, Exclusive):
            return
        kind = self.step.kind
        for other in others:
            shared = {*self.step.components} & {*other.step.components}
            if other.in_place and other.step.kind == kind and shared:
                what = f"{kind} of {', '.join(sorted(shared))} is still in place"
                hint = "let it end before (`duration_s`, or a later trigger)"
                raise Stop("fault-overlaps", f"{what}: the end of one would be the end of both; {hint}")

    @property
    def in_place(self) -> bool:
        """Whether it was injected, stays until it is taken back, and was not yet."""
        lasts = self.receipt is not None and bool(self.receipt.undo)
        return lasts and (self._taking_back is None or not self._taking_back.done())

    async def revert(self) -> None:
        """Take everything back, and have the guardian prove it; idempotent."""
        for task in (self._limit, self._operator, self._witness):
            if task is not None:
                task.cancel()
        if self.receipt is None:
            await self._let_go()
            return
        if self._taking_back is None:
            self._taking_back = asyncio.ensure_future(self._take_back(self.receipt, {}))
        await asyncio.shield(self._taking_back)

    async def _at_limit(self, receipt: Receipt) -> None:
        """Take it back when its time is over; none lasts longer than the manifest allows."""
        limit_s = self._trial.manifest.limits.fault_limit_s
        lasts_s = limit_s if self.step.duration_s is None else min(limit_s, self.step.duration_s)
        await self._trial.clock.sleep_until(receipt.t0_mono_ns + round(lasts_s * 1e9))
        if self._operator is not None:
            self._operator.cancel()
        why = {"duration_s": lasts_s} if lasts_s < limit_s else {"fault_limit_s": limit_s}
        self._taking_back = asyncio.ensure_future(self._take_back(receipt, why))

    async def _take_back(self, receipt: Receipt, why: dict[str, Any]) -> None:
        began_ns = self._trial.now_ns()  # the target may act on it before it is verified
        try:
            await self._fault.revert(self._trial, receipt)
        except Exception as error:  # noqa: BLE001 - whatever it is, the guardian still takes it back
            halted = (self._trial.folder / alarm.HALT).exists()  # then whom we ask has been ended
            self._trial.problem("revert-failed", said(error), verdict="UNKNOWN" if halted else "FAIL")
        await self._pay([undo.id for undo in receipt.undo], why, began_ns)

    async def _pay(self, ids: Sequence[str], why: dict[str, Any], began_ns: int | None = None) -> None:
        """Have the guardian take back some undos, and put what came of each on record."""
        began_ns = self._trial.now_ns() if began_ns is None else began_ns
        try:
            outcomes = await self._trial.guard.undo(ids) if ids else []
        except FaultError:
            return  # the guardian has gone (`halt`): the conductor tells what it did, and does the rest
        for outcome in outcomes:
            evidence = {**outcome.evidence, **why}
            self._trial.record(msgspec.structs.replace(outcome, evidence=evidence, mono_ns=began_ns))

    async def _testify(self, receipt: Receipt) -> None:
        trial = self._trial
        try:
            witness = await self._fault.witness(trial, receipt)
        except Exception as error:  # noqa: BLE001 - a witness that fails has seen nothing: UNKNOWN, and the trial goes on
            witness = Witness(bit=None, evidence={"error": f"{type(error).__name__}: {error}"})
        trial.record(Witnessed(witness=witness, step=self._number))
        await trial.stage("witnessed", bit=witness.bit, step=self._number)

    async def _operate(self, fault: Operated, receipt: Receipt) -> None:
        try:
            await fault.operate(self._trial, receipt)
        except BlackstartError as error:
            self._trial.problem("operator-failed", error.render(), verdict="FAIL")


class Breakages:
    """All faults of one trial: the first is awaited by the conductor, the others follow by themselves."""

    def __init__(self, trial: RunningTrial, make: Callable[[str], Fault]) -> None:
        self._trial = trial
        self.steps = trial.plan.faults
        self._all = [Breakage(trial, make(step.kind), step, k) for k, step in enumerate(self.steps)]
        self._following: asyncio.Task[None] | None = None

    @property
    def receipts(self) -> Sequence[Receipt]:
        """What was injected so far."""
        return [one.receipt for one in self._all if one.receipt is not None]

    @property
    def done(self) -> bool:
        """Whether all faults came, and nothing is left to be done about them."""
        return _done(self._following) and all(one.done for one in self._injected())

    @property
    def witnessed(self) -> bool:
        """Whether all witnesses have spoken."""
        return _done(self._following) and all(one.witnessed for one in self._injected())

    async def prepare(self) -> None:
        """See `Breakage.prepare`, in order."""
        for one in self._all:
            await one.prepare()

    async def aim(self) -> None:
        """See `Breakage.aim`. Later faults may hit what only the earlier ones bring about: not aimed now.

        Except what looks nobody up: made ready now, it takes effect as soon as its trigger comes.
        """
        for one in self._all:
            if one is self._all[0] or one.aims_early:
                await one.aim()

    async def inject(self) -> None:
        """Inject the first fault, and begin to wait for the triggers of the others."""
        trip = self._trip(1)
        await self._all[0].inject()
        if trip is not None:
            self._following = asyncio.ensure_future(self._follow(trip))

    async def revert(self) -> None:
        """Take everything back, the newest fault first; one that raises does not keep the others from it."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        failed: list[Exception] = []
        for one in reversed(self._all):
            try:
                await one.revert()
            except Exception as error:  # noqa: BLE001 - raised below, when all was tried
                failed.append(error)
        if failed:
            raise failed[0]

    async def _follow(self, trip: Trip) -> None:
        """Inject each further fault when its trigger comes; the next trigger is watched from before it."""
        try:
            for number in range(1, len(self._all)):
                with contextlib.closing(trip):
                    await trip.wait(self._since_ns(number - 1))
                following = self._trip(number + 1)
                self._all[number].refuse_overlap(self._all[:number])
                await self._all[number].inject()
                trip = following or trip
        except Stop as stop:
            self._trial.problem(stop.code, stop.text, verdict=stop.verdict)
        except Exception as error:  # noqa: BLE001 - a bug of ours: nobody would hear of it otherwise
            self._trial.problem("engine-error", f"{type(error).__name__}: {error} (a bug in Blackstart)")
        finally:
            trip.close()

    def _trip(self, number: int) -> Trip | None:
        """Listen for the trigger of that fault; None when there is no such fault."""
        return Trip(self._trial, self.steps[number].trigger) if number < len(self.steps) else None

    def _since_ns(self, number: int) -> int:
        receipt = self._all[number].receipt
        assert receipt is not None, "faults follow one another"
        return receipt.t0_mono_ns

    def _injected(self) -> Sequence[Breakage]:
        return [one for one in self._all if one.receipt is not None]


def _done(task: asyncio.Task[None] | None) -> bool:
    return task is None or task.done()


async def _or_stop(code: str, doing: Coroutine[Any, Any, T]) -> T:
    try:
        return await doing
    except BlackstartError as error:
        raise Stop(code, error.render()) from error
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise Stop("disk-full", str(error)) from error
