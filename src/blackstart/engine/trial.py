"""One running trial: what faults may use, and how a trial is stopped from within."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from blackstart.engine.live import Live
from blackstart.model.record import Problem, Record, Reverted, Stage, StageReached

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.contracts import Clock, Oracle, Progress, Rig, Target
    from blackstart.engine.recorder import Recorder
    from blackstart.model.fault import Undo
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import Plan

GRACE_NS = 1_000_000_000
"""How much longer than the trial the guardian waits before it takes a fault back at its limit."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
LOOK_NS = 5_000_000
"""How often conditions are looked at: none of the stamps depend on it, they are taken where things happen."""


class Stop(Exception):  # noqa: N818 - not an error of anybody: the trial has a reason to end early
    """The trial cannot be what it should be; `code` becomes a reason of the verdict."""

    def __init__(self, code: str, text: str, *, verdict: Literal["UNKNOWN", "FAIL"] = "UNKNOWN") -> None:
        super().__init__(text)
        self.code, self.text, self.verdict = code, text, verdict


class Handed(msgspec.Struct):
    """The ids of what one fault handed to the guardian; with `lasts` without a limit to its life."""

    lasts: bool
    ids: list[str]


_handed: ContextVar[Handed | None] = ContextVar("handed", default=None)


@contextlib.contextmanager
def handing(*, lasts: bool) -> Iterator[Handed]:
    """Note what this task hands to the guardian, and those that it starts meanwhile."""
    handed = Handed(lasts=lasts, ids=[])
    before = _handed.set(handed)
    try:
        yield handed
    finally:
        _handed.reset(before)


class Guarding(Protocol):
    """The guardian as the trial sees it (`guard.Guard`)."""

    async def protect(self, undos: Iterable[Undo]) -> None:
        """See `contracts.FaultContext.protect`."""
        ...

    async def undo(self, ids: Sequence[str] | None = None) -> list[Reverted]:
        """Carry out some or all undos."""
        ...

    async def close(self) -> None:
        """Let the guardian go."""
        ...


class RunningTrial:
    """Implements `contracts.FaultContext`, and holds what the steps of a trial share."""

    def __init__(
        self,
        plan: Plan,
        manifest: Manifest,
        *,
        clock: Clock,
        folder: Path,
        isolation: frozenset[str],
        recorder: Recorder,
        guard: Guarding,
        progress: Progress | None,
        expires: bool = True,
    ) -> None:
        self.plan = plan
        self.manifest = manifest
        self.clock = clock
        self.folder = folder
        self.isolation = isolation
        self.guard = guard
        self.recorder = recorder
        self.live = Live(plan, manifest)
        self.rig: Rig | None = None
        self._progress = progress
        self._expires = expires
        recorder.listen(self.live)

    @property
    def target(self) -> Target:
        """The target; there once the rig was built."""
        assert self.rig is not None
        return self.rig.target

    @property
    def oracle(self) -> Oracle | None:
        """The oracle, if the manifest names one."""
        return None if self.rig is None else self.rig.oracle

    async def protect(self, undos: Iterable[Undo]) -> None:
        """Hand a fault's undos to the guardian before the fault, which may last `limits.fault_limit_s`.

        The trial itself takes it back then; the guardian does a little later, should the trial hang. Without
        `expires`, and while something is only made ready (`handing`), it lasts as long as the guardian.
        """
        undos = list(undos)
        handed = _handed.get()
        if handed is not None:
            handed.ids += [one.id for one in undos]
        if not self._expires or (handed is not None and handed.lasts):
            await self.guard.protect(undos)
            return
        end_ns = self.now_ns() + round(self.manifest.limits.fault_limit_s * 1e9) + GRACE_NS
        await self.guard.protect(
            [
                one
                if one.at_the_end
                else msgspec.structs.replace(one, expires_mono_ns=one.expires_mono_ns or end_ns)
                for one in undos
            ]
        )

    def record(self, record: Record) -> None:
        """Put a record into the history."""
        self.recorder(record)

    def recorded(self) -> Sequence[Record]:
        """Everything recorded so far."""
        return self.recorder.records()

    def now_ns(self) -> int:
        """Read the monotonic clock."""
        return self.clock.now().mono_ns

    def problem(self, code: str, text: str, *, verdict: Literal["UNKNOWN", "FAIL"] = "UNKNOWN") -> None:
        """Record that something kept the trial from being what it should be."""
        self.record(Problem(code=code, text=text, mono_ns=self.now_ns(), verdict=verdict))

    def mark(self, stage: Stage, detail: dict[str, Any]) -> int:
        """Record a step of the life cycle; returns when that was."""
        now = self.now_ns()
        self.record(StageReached(stage=stage, mono_ns=now, detail=detail))
        return now

    async def stage(self, stage: Stage, **detail: Any) -> None:
        """Record a step of the life cycle, and show it to whoever watches."""
        now = self.mark(stage, detail)
        await self.tell(
            "stage", {"trial_id": self.plan.trial_id, "stage": stage, "detail": detail, "mono_ns": now}
        )

    async def tell(self, event: str, figures: Mapping[str, Any]) -> None:
        """Report progress."""
        await tell(self._progress, event, figures)

    async def sleep(self, seconds: float) -> None:
        """Wait by the trial's clock."""
        await self.clock.sleep_until(self.now_ns() + round(seconds * 1e9))

    async def until(self, test: Callable[[], bool], limit_s: float) -> bool:
        """Look until `test` holds; False when it still does not after `limit_s`."""
        end = self.now_ns() + round(limit_s * 1e9)
        while not test():
            if self.now_ns() >= end:
                return False
            await self.clock.sleep_until(self.now_ns() + LOOK_NS)
        return True

    def refuse_death(self) -> None:
        """Raise Stop when part of the target ended before the fault: then nothing was proven."""
        if self.live.exited:
            dead = self.live.exited[0]
            status = dead.detail.get("status")
            how = "" if status is None else f" with status {status}"
            raise Stop("target-died", f"{dead.component} (pid {dead.pid}) ended{how} before the fault")


async def tell(progress: Progress | None, event: str, figures: Mapping[str, Any]) -> None:
    """Call a progress callback, which may be a coroutine function or a plain one."""
    answer = None if progress is None else progress(event, figures)
    if isinstance(answer, Awaitable):
        await answer
