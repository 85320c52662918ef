"""The service stream seen as silence and service: whether there was an outage, and which event ended it.

The rule, for live watching and for the final analysis alike (it is the same code):

* The *usual gaps* are those between successive events of the last seconds before t0 (events at one
  instant count once). A silence is an *interruption* when it is longer than three times their 99th
  percentile; one long hiccup before t0 raises that bar, but never beyond ten times: what also happened
  without a fault is no proof of an outage.
* A silence at the end of watching counts from 200 ms on: how long it would have been, nobody saw.
* A *run* is a series of events without an interruption. The run that was going on at t0 includes the
  orders that were in flight. The service has **resumed** with the first event of the first later run that
  holds, that is, goes on for longer than three times the usual 99th percentile. Shorter runs are
  *stragglers*: leftovers of the old path.
* Where the service names where the epoch stands in the key, an epoch later than every epoch before t0 is
  direct proof: somebody else took over, so there was an interruption, however short the silence was, and
  the first event of the later epoch ended it. Where the scenario says `new_epoch` nothing else counts.
* On a noisy machine a real outage can be shorter than what counts as an interruption. Where the target
  itself bounds its recovery (responded … recovered), `check.rto` asks a second question: was there not one
  event in between, and would that stretch, laid anywhere before t0, have been empty less than once in a
  hundred times (`Usual.empty_share`)? Then it was an interruption too.
* Once it has resumed, a silence longer than ten times the usual 99th percentile and than 200 ms is a
  *relapse*: `check.relapse` judges it.
* On a busy host a silence may be an interruption by length and still be no outage: the scheduler let
  somebody else run. Up to ten times the usual 99th percentile, while the host had nothing to spare, and
  without a word or deed of a recovery from anybody, `check.hiccup` gives a bound instead of a figure.
"""

from __future__ import annotations

import re
from itertools import pairwise
from statistics import quantiles
from typing import TYPE_CHECKING

import msgspec

from blackstart.model.record import Injected, ServiceBatch, StageReached

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blackstart.model.manifest import Manifest
    from blackstart.model.record import Record
    from blackstart.model.scenario import Plan

NS_PER_S = 1_000_000_000
BASELINE_NS = 5 * NS_PER_S
FEWEST_GAPS = 10
FEWEST_INSTANTS = FEWEST_GAPS + 2
FACTOR = 3
HICCUP_FACTOR = 10
FEWEST_FOR_P99 = 100
OPEN_NS = 200_000_000
"""Watching goes on for longer than this after the last look (`engine.after`): an outage leaves as much."""

Event = tuple[int, str, int]


class Usual(msgspec.Struct, frozen=True):
    """The rhythm before the fault: the 99th percentile, the longest and all gaps, in nanoseconds."""

    p99_ns: int
    longest_ns: int
    gaps_ns: tuple[int, ...] = ()

    @property
    def interruption_ns(self) -> int:
        """A silence longer than this is an interruption."""
        return max(FACTOR * self.p99_ns, min(self.longest_ns, HICCUP_FACTOR * self.p99_ns))

    @property
    def hold_ns(self) -> int:
        """A run longer than this holds."""
        return FACTOR * self.p99_ns

    @property
    def relapse_ns(self) -> int:
        """A silence longer than this, once the service has resumed, is no hiccup: it is out again."""
        return max(HICCUP_FACTOR * self.p99_ns, OPEN_NS)

    def empty_share(self, stretch_ns: int) -> float:
        """Of all places before t0 where a stretch of that length could begin, the share without an event."""
        whole = sum(self.gaps_ns)
        return sum(max(0, gap - stretch_ns) for gap in self.gaps_ns) / whole if whole else 1.0


def usual(instants: Sequence[int]) -> Usual | None:
    """Measure the rhythm of ascending `instants`; None when there are too few to speak of one."""
    gaps = [later - earlier for earlier, later in pairwise(instants)]
    if len(gaps) < FEWEST_GAPS:
        return None
    longest = max(gaps)
    p99 = quantiles(gaps, n=100, method="inclusive")[98] if len(gaps) >= FEWEST_FOR_P99 else longest
    return Usual(max(1, round(p99)), longest, tuple(gaps))


def epoch_of(pattern: str | re.Pattern[str], key: str) -> int | None:
    """Return the epoch that a key names in the pattern's first group; None where it names none."""
    found = re.search(pattern, key)
    text = found.group(1) if found else None  # a group may also have taken no part
    return int(text) if text and text.isdecimal() else None


class ResumeWatch:
    """Watches a service stream record by record and says when it has resumed.

    Feed it every record of a trial, in order; others than those it needs cost one dictionary look-up.
    `resumed` is the event that ended the outage, or None. It may be asked at any time, and asked at
    the end it gives the final answer.
    """

    def __init__(
        self, service: str, *, epoch: str | None = None, new_epoch: bool = False, hold_s: float = 1.0
    ) -> None:
        self.service = service
        self._epoch = re.compile(epoch) if epoch else None
        self._new_epoch = new_epoch
        self._hold_ns = round(hold_s * NS_PER_S)
        self._steady_ns: int | None = None
        self._early: list[Event] = []
        self._last_ns: int | None = None
        self._old_epoch: int | None = None
        self._latest_epoch: int | None = None
        self._resumed_before: Event | None = None
        self.t0_ns: int | None = None
        self.usual: Usual | None = None
        self.by_epoch = False
        self.taken_over = False
        self.resumed: Event | None = None
        self.returns: list[Event] = []
        self.breaks: list[tuple[int, Event]] = []
        """All interruptions, whatever fault came later: the silence (ns; 0 for a takeover), what ended it."""
        self.silences: list[int] = []
        """How long each of the silences was that `returns` ended (ns)."""
        self.relapses: list[tuple[int, Event]] = []
        """Long silences after it had resumed, by an epoch or by holding: how long (ns), what ended it."""
        self.events_after = 0
        self.longest_gap_ns = 0
        self._handlers = {ServiceBatch: self._batch, Injected: self._injected, StageReached: self._stage}

    @classmethod
    def of(cls, plan: Plan, manifest: Manifest) -> ResumeWatch:
        """Watch the service that the plan names, by the rules of its scenario."""
        spec = manifest.services.get(plan.service)
        scenario = plan.scenario
        return cls(
            plan.service,
            epoch=spec.epoch if spec else None,
            new_epoch=scenario.new_epoch,
            hold_s=scenario.steady.hold_s,
        )

    def feed(self, record: Record) -> None:
        """Take in one record."""
        handler = self._handlers.get(type(record))
        if handler is not None:
            handler(record)  # type: ignore[operator]

    def silence_ns(self, now_ns: int) -> int:
        """How long the service has been silent at `now_ns`, since its last event (without any: since t0)."""
        since = self._last_ns if self._last_ns is not None else self.t0_ns
        return 0 if since is None else max(0, now_ns - since)

    def interrupted(self, now_ns: int) -> bool | None:
        """Say whether there was an outage up to `now_ns`; None without a rhythm to judge silence by."""
        if self.resumed or self.returns or self._resumed_before:
            return True
        if self.usual is None:
            return None
        return self._silent(now_ns, self.usual)

    def running(self, now_ns: int) -> bool:
        """Say whether events come at the usual rhythm at `now_ns`."""
        return self.usual is not None and not self._silent(now_ns, self.usual)

    def _silent(self, now_ns: int, rhythm: Usual) -> bool:
        """Say whether a silence that still goes on is an interruption: nobody saw its end; it needs more."""
        return self.silence_ns(now_ns) > max(rhythm.interruption_ns, OPEN_NS)

    def _stage(self, record: StageReached) -> None:
        if record.stage == "steady":
            self._steady_ns = record.detail.get("since_mono_ns") or record.mono_ns - self._hold_ns

    def _injected(self, record: Injected) -> None:
        if self.t0_ns is not None:
            self._struck_again(record.receipt.t0_mono_ns)
            return
        self.t0_ns = t0 = record.receipt.t0_mono_ns
        early, self._early = self._early, []
        before = [event for event in early if event[0] <= t0]
        self._settle_baseline(before, t0)
        self._take(event for event in early if event[0] > t0)

    def _struck_again(self, t0_ns: int) -> None:
        """Begin anew at a later fault: what resumed before it counts only if nothing is interrupted after it.

        Whether the later fault brings another epoch is not known, so silence alone is proof again. A relapse
        that was over before it was not its doing, and stays one.
        """
        self._resumed_before = self.resumed or (self.returns[-1] if self.returns else self._resumed_before)
        self.resumed, self.returns, self.silences = None, [], []
        self.relapses = [one for one in self.relapses if one[1][0] <= t0_ns]
        self.by_epoch = self.taken_over = False
        self._old_epoch = self._latest_epoch

    def _settle_baseline(self, before: Sequence[Event], t0: int) -> None:
        start = t0 - BASELINE_NS
        if self._steady_ns is not None:
            start = max(start, self._steady_ns)
        self.usual = usual(sorted({mono for mono, _, _ in before if mono >= start}))
        self._last_ns = max((mono for mono, _, _ in before), default=None)
        epochs = [found for _, key, _ in before if (found := self._epoch_of(key)) is not None]
        self._old_epoch = self._latest_epoch = max(epochs, default=None)
        self.by_epoch = self._new_epoch and self._old_epoch is not None

    def _epoch_of(self, key: str) -> int | None:
        return epoch_of(self._epoch, key) if self._epoch else None

    def _batch(self, record: ServiceBatch) -> None:
        if record.service != self.service:
            return
        if self.t0_ns is None:
            self._early.extend(record.events)
        else:
            self._take(record.events)

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            if self._last_ns is None:
                self._last_ns = self.t0_ns
            assert self.t0_ns is not None
            assert self._last_ns is not None
            if event[0] > self.t0_ns:
                self._one(event, event[0] - self._last_ns)

    def _one(self, event: Event, gap_ns: int) -> None:
        self.events_after += 1
        if self.resumed is not None and self.usual is not None and gap_ns > self.usual.relapse_ns:
            self._out_again(self.resumed, event, gap_ns, self.usual)
        if self._old_epoch is not None:
            self._judge_epoch(event, self._old_epoch)
        if gap_ns <= 0:
            return
        self._last_ns = event[0]
        self.longest_gap_ns = max(self.longest_gap_ns, gap_ns)
        if not self.by_epoch and self.usual is not None:
            self._judge_gap(event, gap_ns, self.usual)

    def _out_again(self, resumed: Event, event: Event, gap_ns: int, rhythm: Usual) -> None:
        """Note a relapse; was it only back from a hiccup, as the fault struck, then this is the outage."""
        if not self.taken_over and self.silences[self.returns.index(resumed)] <= rhythm.relapse_ns:
            self.resumed = None
        else:
            self.relapses.append((gap_ns, event))

    def _judge_epoch(self, event: Event, old: int) -> None:
        epoch = self._epoch_of(event[1])
        if epoch is None:
            return
        self._latest_epoch = max(epoch, self._latest_epoch or epoch)
        if epoch > old and not self.taken_over:
            self.resumed = event
            self.taken_over = True
            self.breaks.append((0, event))

    def _judge_gap(self, event: Event, gap_ns: int, rhythm: Usual) -> None:
        if gap_ns > rhythm.interruption_ns:
            self.returns.append(event)
            self.breaks.append((gap_ns, event))
            self.silences.append(gap_ns)
        elif self.resumed is None and self.returns and event[0] - self.returns[-1][0] > rhythm.hold_ns:
            self.resumed = self.returns[-1]

    def final(self, until_ns: int) -> Event | None:
        """Give the answer at the end of watching: a young run that goes on at `until_ns` counts."""
        if self.resumed is None and self.returns and not self.by_epoch and self.running(until_ns):
            return self.returns[-1]
        if self.resumed is None and not self.returns and self.running(until_ns):
            return self._resumed_before
        return self.resumed
