"""The steady state, seen all the time: figures, and the conditions under which to alert or to stop it all.

Every condition is looked at on what was just seen, at least once in each period of the readiness probe.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from blackstart.chaos.model import Figures, LeftOut, Memory
from blackstart.check import presence
from blackstart.model.manifest import Service
from blackstart.model.record import ProbeChange, ProcessSeen, ResourceSample, ServiceBatch
from blackstart.target import services

if TYPE_CHECKING:
    from blackstart.chaos.model import Profile
    from blackstart.contracts import Clock
    from blackstart.model.manifest import Manifest
    from blackstart.model.record import Record
    from blackstart.target.workload import WorkloadProcess

NS = 1_000_000_000
SILENT_NS = 5 * NS
DEFAULT_PERIOD_NS = 50_000_000
_LAG_KEPT = 1000
_SETTLED_NS = 300 * NS  # by then every kind of fault has been imported


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A condition that holds now; `calm`: it arose while nothing was broken."""

    code: str
    text: str
    stops: bool
    calm: bool = False


class Rate:
    """Counts events in a window that slides; needs no more memory than the window's events."""

    def __init__(self, window_s: float) -> None:
        self._window_ns = round(window_s * NS)
        self._moments: deque[int] = deque()

    def add(self, mono_ns: int) -> None:
        """Take in an event."""
        self._moments.append(mono_ns)
        if len(self._moments) > 1 and self._moments[0] < self._moments[-1] - 2 * self._window_ns:
            self._drop(self._moments[-1])

    def per_s(self, now_ns: int) -> float:
        """Return the events per second in the window that ends now."""
        self._drop(now_ns)
        return len(self._moments) * NS / self._window_ns

    def _drop(self, now_ns: int) -> None:
        while self._moments and self._moments[0] <= now_ns - self._window_ns:
            self._moments.popleft()


class Monitor:
    """Listens to every record of the session, and keeps only what the figures need."""

    def __init__(self, manifest: Manifest, profile: Profile, service: str) -> None:
        self._manifest, self._profile, self._service = manifest, profile, service
        self._rate, self._window = Rate(1.0), Rate(profile.stop.rate_window_s)
        self._lags: deque[tuple[int, int]] = deque(maxlen=_LAG_KEPT)
        self._newest_ns: int | None = None
        self._begun_ns: int | None = None
        self._ready_since: int | None = None
        self._ready_ns = 0
        self._not_ready_since: int | None = None
        self._calm_since: int | None = None
        self._over_ns: int | None = None
        self._said: set[str] = set()
        self._dead: list[tuple[int, Finding]] = []
        self._reconciled: tuple[float | None, int | None] = (None, None)
        self._everybody: ResourceSample | None = None
        self._measured: ResourceSample | None = None
        self._ended: set[presence.Identity] = set()
        self._away_since: dict[str, int] = {}
        self._away_told: set[str] = set()
        self._rate_seen = False

    @property
    def period_ns(self) -> int:
        """How often conditions are looked at: the period of the readiness probe."""
        probe = self._manifest.probes.get(self._manifest.ready or "")
        return DEFAULT_PERIOD_NS if probe is None else round(probe.period_ms * 1e6)

    def begin(self, now_ns: int) -> None:
        """Count from now on: the load is on, and nothing is broken."""
        self._begun_ns = self._calm_since = now_ns
        self._everybody = self._measured
        self._ready_ns = 0
        if self._ready_since is not None:
            self._ready_since = now_ns
        self._said.clear()
        self._dead.clear()

    def disturbed(self, over_ns: int) -> None:
        """Hear that something is being broken, and until when at least it lasts."""
        if self._over_ns is None:
            self._said.clear()
        self._calm_since = None
        self._everybody = self._everybody or self._measured
        self._over_ns = max(over_ns, self._over_ns or 0)

    def calm(self, now_ns: int) -> None:
        """Hear that nothing is broken any more: what happens from now on is no consequence of a fault.

        Where nothing had been broken, for a fault found no place, it goes on being calm.
        """
        if self._calm_since is None:
            self._over_ns, self._calm_since = None, now_ns
            self._said.clear()

    def reconciled(self, right: float | None, behind: int | None) -> None:
        """Hear how positions and counts compared."""
        self._reconciled = (right, behind)

    def answered(self, mono_ns: int, lag_ns: int) -> None:
        """Hear that an order was answered, and how long that took."""
        self._lags.append((mono_ns, lag_ns))

    def __call__(self, record: Record) -> None:
        """Take one record in."""
        if isinstance(record, ServiceBatch):
            if record.service == self._service:
                self._events(record)
        elif isinstance(record, ProbeChange):
            if record.probe == self._manifest.ready:
                self._probed(record)
        elif isinstance(record, ProcessSeen):
            self._process(record)
        elif isinstance(record, ResourceSample):
            self._sampled(record)

    def figures(self, now_ns: int) -> Figures:
        """Return what is seen right now."""
        rate = self._rate.per_s(now_ns)
        return Figures(
            uptime=self._uptime(now_ns),
            ready=None if self._manifest.ready is None else self._ready(),
            trading=rate > 0 and self._ready(),
            rate_per_s=round(rate, 1),
            lag_ms=self._lag_ms(now_ns),
            positions_right=self._reconciled[0],
            behind=self._reconciled[1],
        )

    def look(self, now_ns: int) -> list[Finding]:
        """Return the conditions that have come to hold since the last look."""
        if self._begun_ns is None:
            return []
        found = [] if self._calm_since is None else self._unprovoked(now_ns, self._calm_since)
        if self._over_ns is not None:
            found = self._not_back(now_ns, self._over_ns)
        found += self._deaths(now_ns)
        fresh = [one for one in found if one.code not in self._said]
        self._said.update(one.code for one in fresh)
        return [*fresh, *self._stays_away(now_ns)]

    def first(self, code: str) -> bool:
        """Say whether a condition was not told before; from now on it was."""
        told = code in self._said
        self._said.add(code)
        return not told

    def unevaluated(self) -> list[LeftOut]:
        """Name the stop conditions that never could be evaluated: nothing was calm for long enough."""
        stop = self._profile.stop
        if stop.minimum_rate_per_s is None or self._rate_seen:
            return []
        reason = f"there were never {stop.rate_window_s:g} s (`rate_window_s`) without a fault"
        return [LeftOut(kind="stop minimum_rate_per_s", where=self._service, reason=reason)]

    def away(self) -> list[str]:
        """Name the components that lived before anything was broken and do not now; not those alerted."""
        return [one for one in self._away() if one not in self._away_told]

    def _away(self) -> list[str]:
        if self._everybody is None or self._measured is None:
            return []
        return presence.away(self._everybody, self._measured, self._ended)

    def _stays_away(self, now_ns: int) -> list[Finding]:
        """Name those that nobody brought back in time since they went, or since the fault was over.

        Whether the fault ended them or they ended later, each is named once for each time that it goes.
        """
        names, limit_s = self._away(), self._profile.recovery_limit_s
        self._away_since = {one: self._away_since.get(one, now_ns) for one in names}
        self._away_told &= set(names)
        fresh = [
            one
            for one in names
            if one not in self._away_told
            and now_ns - max(self._away_since[one], self._over_ns or 0) > limit_s * NS
        ]
        if not fresh:
            return []
        self._away_told.update(fresh)
        text = f"not back after {limit_s:g} s: {' or '.join(fresh)}"
        calm = self._calm_since is not None
        return [Finding(code="component-gone", text=text, stops=False, calm=calm)]

    def _not_back(self, now_ns: int, over_ns: int) -> list[Finding]:
        """Judge how long the service has not been back since the fault was over."""
        gone_s = (now_ns - over_ns) / NS
        if self.serving(now_ns):
            return []
        limit, last = self._profile.recovery_limit_s, self._profile.stop.not_recovered_s
        found = []
        if gone_s > limit:
            found.append(finding("not-recovered", f"not back {limit:g} s after the fault was over"))
        if last is not None and gone_s > last:
            text = f"not back {last:g} s after the fault was over"
            found.append(finding("never-recovered", text, stops=True))
        return found

    def _unprovoked(self, now_ns: int, since_ns: int) -> list[Finding]:
        """Judge whether all is as it should be while nothing is broken."""
        stop = self._profile.stop
        found = []
        window_ns = round(stop.rate_window_s * NS)
        if stop.minimum_rate_per_s is not None and now_ns - since_ns >= window_ns:
            self._rate_seen = True
            rate = self._window.per_s(now_ns)
            if rate < stop.minimum_rate_per_s:
                least = f"{stop.minimum_rate_per_s:g}/s required"
                text = f"{rate:.1f} orders/s over {stop.rate_window_s:g} s, {least}"
                found.append(finding("rate-low", text, stops=True))
        down_ns = now_ns - max(since_ns, self._down_since(now_ns))
        if down_ns > SILENT_NS:
            found.append(
                finding(
                    "down-without-fault", f"does not serve for {SILENT_NS / NS:g} s, and nothing is broken"
                )
            )
        if stop.not_recovered_s is not None and down_ns > stop.not_recovered_s * NS:
            text = f"does not serve for {stop.not_recovered_s:g} s, and nothing is broken"
            found.append(finding("down-for-good", text, stops=True))
        return found

    def serving(self, now_ns: int) -> bool:
        """Say whether it is ready and there were events in the last second."""
        return self._ready() and self._rate.per_s(now_ns) > 0

    def _down_since(self, now_ns: int) -> int:
        """Since when it has not been ready, or silent; now, when it serves."""
        silent = self._newest_ns if self._newest_ns is not None else self._begun_ns or now_ns
        unready = self._not_ready_since if self._not_ready_since is not None else now_ns
        return min(silent, unready)

    def _ready(self) -> bool:
        return self._manifest.ready is None or self._ready_since is not None

    def _uptime(self, now_ns: int) -> float | None:
        if self._begun_ns is None or now_ns <= self._begun_ns or self._manifest.ready is None:
            return None
        ready = self._ready_ns + (0 if self._ready_since is None else now_ns - self._ready_since)
        return min(1.0, ready / (now_ns - self._begun_ns))

    def _lag_ms(self, now_ns: int) -> float | None:
        recent = sorted(lag for moment, lag in self._lags if moment > now_ns - NS)
        if recent:
            return round(recent[len(recent) // 2] / 1e6, 3)
        return None if self._newest_ns is None else round(max(0, now_ns - self._newest_ns) / 1e6, 3)

    def _events(self, record: ServiceBatch) -> None:
        for moment, _, _ in record.events:
            self._rate.add(moment)
            self._window.add(moment)
            self._newest_ns = max(self._newest_ns or 0, moment)

    def _probed(self, record: ProbeChange) -> None:
        if record.ok:
            self._ready_since = self._ready_since or record.mono_ns
            self._not_ready_since = None
            return
        if self._ready_since is not None:
            self._ready_ns += max(0, record.mono_ns - self._ready_since)
        self._ready_since = None
        self._not_ready_since = self._not_ready_since or record.mono_ns

    def _sampled(self, record: ResourceSample) -> None:
        """Keep the newest measurement, and of the ends that were seen those that it does not know of."""
        self._measured = record
        self._ended &= {(one.get("host"), one["pid"]) for one in record.components.values()}

    def _process(self, record: ProcessSeen) -> None:
        if record.what == "exited":
            self._ended.add(presence.identity(record))
        if record.what == "exited" and self._calm_since is not None and record.mono_ns > self._calm_since:
            text = f"{record.component} (pid {record.pid}) ended, and nothing was broken"
            found = Finding(code=f"died:{record.pid}", text=text, stops=False, calm=True)
            self._dead.append((record.mono_ns, found))

    def _deaths(self, now_ns: int) -> list[Finding]:
        """Return the deaths of a second ago: one by the kill switch is heard of before the switch itself."""
        ripe = [one for moment, one in self._dead if now_ns - moment > NS]
        self._dead = [(moment, one) for moment, one in self._dead if now_ns - moment <= NS]
        return ripe


def finding(code: str, text: str, *, stops: bool = False) -> Finding:
    """Return a condition that holds now, and whether it ends the session."""
    return Finding(code=code, text=text, stops=stops)


async def answers(workload: WorkloadProcess, clock: Clock, monitor: Monitor) -> None:
    """Tell the monitor how long answers take, from the ledger of the load, until cancelled."""

    def heard(record: Record) -> None:
        if isinstance(record, ServiceBatch):
            for moment, _, lag in record.events:
                monitor.answered(moment, lag)

    await services.from_workload("answers", Service(source="workload"), workload, clock=clock, sink=heard)


def grown(memory: Memory, rss: int, since_ns: int) -> Memory:
    """Take in a measurement: what stands after five minutes is the beginning."""
    begin = rss if since_ns <= _SETTLED_NS else memory.begin
    return Memory(begin=begin, end=rss, most=max(memory.most, rss))
