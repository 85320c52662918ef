"""A history sorted by kind, with the few questions that several checkers ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from blackstart.errors import HistoryError
from blackstart.model.record import Header, Injected, LedgerFile, ServiceBatch, StageReached, StateRead

if TYPE_CHECKING:
    from blackstart.contracts import HistoryView
    from blackstart.model.fault import Receipt
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import Objectives, Plan

T = TypeVar("T")


class Facts:
    """What a finished history says. Raises HistoryError when not even its header was written."""

    def __init__(self, history: HistoryView) -> None:
        self.folder = history.folder
        self.records = tuple(history.records())
        self._by_kind: dict[type, list[Any]] = {}
        for record in self.records:
            self._by_kind.setdefault(type(record), []).append(record)
        header = self.first(Header)
        if header is None:
            raise HistoryError(
                "holds no header: it was cut short before its first record", where=str(self.folder)
            )
        self.header: Header = header
        states = self.all(StateRead)
        self._states: dict[tuple[str, str, str], StateRead] = {(s.side, s.moment, s.name): s for s in states}

    def all(self, kind: type[T]) -> list[T]:
        """All records of one kind, in the order in which they were seen."""
        return cast("list[T]", self._by_kind.get(kind, []))

    def first(self, kind: type[T]) -> T | None:
        """Find the first record of a kind, or None."""
        found = self.all(kind)
        return found[0] if found else None

    @property
    def plan(self) -> Plan:
        """What was to be done."""
        return self.header.plan

    @property
    def manifest(self) -> Manifest:
        """To what."""
        return self.header.manifest

    @property
    def receipt(self) -> Receipt | None:
        """The fault as injected; None when it never was."""
        injected = self.first(Injected)
        return injected.receipt if injected else None

    @property
    def receipts(self) -> list[Receipt]:
        """All faults as injected, in order: the trial's own first."""
        return [injected.receipt for injected in self.all(Injected)]

    @property
    def t0_ns(self) -> int | None:
        """When the fault took effect, monotonic."""
        return self.receipt.t0_mono_ns if self.receipt else None

    @property
    def last_t0_ns(self) -> int | None:
        """When the last of the faults took effect."""
        return max((receipt.t0_mono_ns for receipt in self.receipts), default=None)

    @property
    def objectives(self) -> Objectives:
        """The scenario's objectives, with what the manifest says about them laid over."""
        return objectives(self.plan, self.manifest)

    def stage(self, name: str) -> StageReached | None:
        """When a stage of the life cycle was reached (the first time)."""
        return next((s for s in self.all(StageReached) if s.stage == name), None)

    def state(self, side: str, name: str, *, moment: str = "after") -> StateRead | None:
        """Return the last document of that name read at that moment; None when nobody read it."""
        return self._states.get((side, moment, name))

    def states(self, side: str, name: str, *, moment: str = "after") -> list[StateRead]:
        """Return every reading of that document at that moment, oldest first."""
        return [s for s in self.all(StateRead) if (s.side, s.moment, s.name) == (side, moment, name)]

    def ledger(self, stream: str, side: str) -> LedgerFile | None:
        """Return one side of a stream, the last one written."""
        found = [f for f in self.all(LedgerFile) if f.stream == stream and f.side == side]
        return found[-1] if found else None

    def service_events(self) -> list[tuple[int, str, int]]:
        """Events of the planned service stream in order of arrival: (mono_ns, key, uncertainty_ns)."""
        return [e for b in self.all(ServiceBatch) if b.service == self.plan.service for e in b.events]


def objectives(plan: Plan, manifest: Manifest) -> Objectives:
    """Lay the manifest's figures for the scenario, then for the trial, over the scenario's own.

    A trial's figures are those of its repetitions (`R25:router#2`), too.
    """
    over: dict[str, float] = {
        **manifest.objectives.get(plan.scenario.id, {}),
        **manifest.objectives.get(plan.trial_id.partition("#")[0], {}),
    }
    known = {k: int(v) if k == "rpo_events" else v for k, v in over.items() if k in _OBJECTIVES}
    return msgspec.structs.replace(plan.scenario.objectives, **known)


_OBJECTIVES = ("rto_ms", "rpo_events", "pnl_tolerance")
