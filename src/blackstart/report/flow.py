"""The order flow of a trial as a series: events a second in even bins around the outage. Pure."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from blackstart.model.record import Header, ServiceBatch
from blackstart.report.wording import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blackstart.model.record import Record

_STEPS = (1, 2, 5)
_MOST_BINS = 140
_SHORTEST_MARGIN_NS = 300 * NS_PER_MS
_LONGEST_MARGIN_NS = 10 * NS_PER_S


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """Counts per bin; the first bin begins at `start_ns`, relative to t0, and every bin is `bin_ns` wide."""

    service: str
    start_ns: int
    bin_ns: int
    counts: tuple[int, ...]
    usual_per_s: float | None

    def per_s(self) -> tuple[float, ...]:
        """Return the series as a rate."""
        return tuple(count * NS_PER_S / self.bin_ns for count in self.counts)


def service_times(records: Iterable[Record]) -> tuple[str, list[int]]:
    """Name of the trial's service stream and the times of its events, in order."""
    service, times = "", list[int]()
    for record in records:
        if isinstance(record, Header):
            service = record.plan.service
        elif isinstance(record, ServiceBatch) and record.service == service:
            times.extend(event[0] for event in record.events)
    times.sort()
    return service, times


def even_step(span_ns: int, most: int) -> int:
    """Return the smallest step of 1, 2, 5, 10 … ms that cuts `span_ns` into at most `most` pieces."""
    power = NS_PER_MS
    while True:
        for factor in _STEPS:
            if span_ns <= factor * power * most:
                return factor * power
        power *= 10


def flow(service: str, times: Sequence[int], *, t0_ns: int, end_ns: int | None) -> Flow | None:
    """Bin `times` (sorted) from a margin before t0 to one after the end of the outage; None without events.

    The margin follows the outage, so that a failover of 40 ms is as visible as a cold start of 10 s.
    Without an end (censored, not measured) the window reaches to the last event. A bin begins exactly at t0.
    """
    if not times:
        return None
    outage = max((end_ns if end_ns is not None else times[-1]) - t0_ns, 0)
    margin = min(max(2 * outage, _SHORTEST_MARGIN_NS), _LONGEST_MARGIN_NS)
    first = max(times[0], t0_ns - margin)
    last = min(times[-1], t0_ns + outage + margin) if end_ns is not None else times[-1]
    width = even_step(max(last - first, 1), _MOST_BINS)
    before = max(0, t0_ns - first) // width
    after = max(0, last - t0_ns) // width
    start = t0_ns - before * width
    edges = [bisect_left(times, start + index * width) for index in range(before + after + 1)]
    counts = tuple(right - left for left, right in pairwise(edges))
    if not counts:
        return None
    usual = sum(counts[:before]) * NS_PER_S / (before * width) if before else None
    return Flow(service=service, start_ns=start - t0_ns, bin_ns=width, counts=counts, usual_per_s=usual)
