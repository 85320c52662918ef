"""When a fault is due: at once, after a while, at a seeded moment, or on an event that somebody reports."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from blackstart.engine.trial import Stop
from blackstart.model.manifest import Match
from blackstart.model.match import matches
from blackstart.model.record import OracleSeen, Record, SignalSeen
from blackstart.scenario import seeds

if TYPE_CHECKING:
    from blackstart.engine.trial import RunningTrial
    from blackstart.model.scenario import Trigger


class Trip:
    """Waits for one trigger. It listens from its making on, before the event can happen, until closed.

    A signal is one of the target's own events, or one of the manifest's [signs].
    """

    def __init__(self, trial: RunningTrial, trigger: Trigger) -> None:
        self._trial, self._trigger = trial, trigger
        self._kind = {"oracle": OracleSeen, "signal": SignalSeen}.get(trigger.at)
        signs = trial.manifest.told(trigger.event) if trigger.at == "signal" else ()
        named = signs or (Match(event=trigger.event),)
        self._tests = [(one.event, matches(one.where)) for one in named]
        self._test = matches(trigger.where)
        self._hits: list[int] = []
        self._since_ns: int | None = None
        self._wake = asyncio.Event()
        self._unhook = trial.recorder.listen(self._look) if self._kind else None

    def close(self) -> None:
        """Stop listening; idempotent."""
        if self._unhook is not None:
            self._unhook()
            self._unhook = None

    async def wait(self, since_ns: int = 0) -> None:
        """Return when the fault is due; events before `since_ns` do not count.

        Raises Stop when that moment never comes.
        """
        if self._kind is None:
            await self._trial.sleep(self._delay_s())
            return
        self._since_ns = since_ns
        if not self._due():
            await self._woken()

    def _delay_s(self) -> float:
        if self._trigger.at == "random":
            plan = self._trial.plan
            return seeds.stream(plan.seed, plan.trial_id, "trigger").uniform(0.0, self._trigger.delay_s)
        return self._trigger.delay_s

    def _look(self, record: Record) -> None:
        """Look at one record; the waiter wakes in the turn of the loop in which the event came."""
        if type(record) is not self._kind:
            return
        assert isinstance(record, OracleSeen | SignalSeen)
        named = any(record.event == event and test(record.fields) for event, test in self._tests)
        if named and self._test(record.fields):
            self._hits.append(record.mono_ns)
            if self._since_ns is not None and self._due():
                self._wake.set()

    def _due(self) -> bool:
        since_ns = self._since_ns or 0
        return sum(mono_ns >= since_ns for mono_ns in self._hits) >= self._trigger.at_least

    async def _woken(self) -> None:
        trigger = self._trigger
        limit = asyncio.ensure_future(self._trial.sleep(trigger.limit_s))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait([limit, waking], return_when=asyncio.FIRST_COMPLETED)
        finally:
            limit.cancel()
            waking.cancel()
        if not self._wake.is_set():
            least = "no" if trigger.at_least == 1 else f"fewer than {trigger.at_least} times"
            text = f"{least} `{trigger.event}` like {trigger.where} within {trigger.limit_s:g} s"
            raise Stop("trigger-never-came", text)
