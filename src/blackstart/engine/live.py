"""What the conductor must know while the trial runs: rates, probes, the last events.

It decides only when to go on.

What the records *mean* is found later, by the checkers, from the finished history. The one rule that both
need are the same here and there: whether the service has resumed is `check.service.ResumeWatch`, whether what
the fault ended lives again is `check.presence.absent`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from blackstart.check import presence
from blackstart.check.expectations import ExpectationWatch
from blackstart.check.service import ResumeWatch
from blackstart.model.match import Test, matches
from blackstart.model.record import (
    Injected,
    ProbeChange,
    ProcessSeen,
    Record,
    ResourceSample,
    ServiceBatch,
    SignalSeen,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import Plan

_RATE_NS = 1_000_000_000


class Live:
    """Listens to the recorder."""

    def __init__(self, plan: Plan, manifest: Manifest) -> None:
        self.resume = ResumeWatch.of(plan, manifest)
        self._expected = ExpectationWatch.of(plan, manifest)
        self.probes: dict[str, tuple[bool, int, str]] = {}
        self.exited: list[ProcessSeen] = []
        self.t0_ns: int | None = None
        self.phases: dict[str, int] = {}
        self._measured: ResourceSample | None = None
        self._measured_before: ResourceSample | None = None
        self._recent: dict[str, deque[int]] = {}
        self._total: dict[str, int] = {}
        self._phases: dict[str, list[tuple[str, Test]]] = {
            phase: [(one.event, matches(one.where)) for one in wanted]
            for phase, wanted in manifest.phases.items()
        }
        self._handlers: dict[type, Callable[[Any], None]] = {
            ServiceBatch: self._service,
            ProbeChange: self._probe,
            ProcessSeen: self._process,
            SignalSeen: self._signal,
            Injected: self._injected,
            ResourceSample: self._resources,
        }

    def __call__(self, record: Record) -> None:
        """Take one record in."""
        self.resume.feed(record)
        for expected in self._expected:
            expected.feed(record)
        handler = self._handlers.get(type(record))
        if handler is not None:
            handler(record)

    def rate_per_s(self, service: str, now_ns: int, *, window_s: float = 1.0) -> float:
        """Count the service's events of the last `window_s`, per second."""
        recent = self._recent.get(service, ())
        since = now_ns - round(window_s * _RATE_NS)
        return sum(1 for moment in recent if moment > since) / window_s

    def instants(self, service: str, since_ns: int) -> int:
        """Count the instants, since then, at which the service had events."""
        return len({moment for moment in self._recent.get(service, ()) if moment >= since_ns})

    def total(self, service: str) -> int:
        """Count all events of a service so far."""
        return self._total.get(service, 0)

    def ok_since(self, probe: str) -> int | None:
        """Since when a probe has said yes without a break; None when it says no or has not answered yet."""
        ok, since, _ = self.probes.get(probe, (False, 0, ""))
        return since if ok else None

    def awaits(self, now_ns: int) -> bool:
        """Whether something that the scenario expects may still come."""
        return any(expected.pending(now_ns) for expected in self._expected)

    def expects(self, phase: str) -> bool:
        """Whether the manifest says how the target reports this phase."""
        return bool(self._phases.get(phase))

    def lives_again(self, hit: Iterable[str]) -> bool:
        """Whether every component that the fault hit has a living process again, and none is fewer.

        What nobody measured before the fault is not waited for: the checker will say so.
        """
        before, hit = self._measured_before, set(hit)
        if before is None or not hit <= before.components.keys():
            return True
        if self._measured is None:
            return False
        missing, fewer = presence.absent(
            hit, before, self._measured, {presence.identity(one) for one in self.exited}
        )
        return not missing and fewer <= 0

    def _resources(self, record: ResourceSample) -> None:
        if self.t0_ns is not None and record.mono_ns > self.t0_ns:
            self._measured = record
        elif record.components:
            self._measured_before = record

    def _service(self, record: ServiceBatch) -> None:
        recent = self._recent.setdefault(record.service, deque(maxlen=20_000))
        recent.extend(moment for moment, _, _ in record.events)
        self._total[record.service] = self._total.get(record.service, 0) + len(record.events)

    def _probe(self, record: ProbeChange) -> None:
        self.probes[record.probe] = (record.ok, record.mono_ns, record.detail)

    def _process(self, record: ProcessSeen) -> None:
        if record.what == "exited":
            self.exited.append(record)

    def _injected(self, record: Injected) -> None:
        self.t0_ns = record.receipt.t0_mono_ns if self.t0_ns is None else self.t0_ns

    def _signal(self, record: SignalSeen) -> None:
        """Keep the last time after the fault that each phase was reported."""
        if self.t0_ns is None or record.mono_ns < self.t0_ns:
            return
        for phase, wanted in self._phases.items():
            if any(event == record.event and test(record.fields) for event, test in wanted):
                self.phases[phase] = record.mono_ns
