"""An outage, or a hiccup of a busy host? Where nobody can tell, the answer is a bound and no figure.

`check.service` calls a silence an interruption when it is longer than three times the usual 99th percentile.
That is long enough to be no accident of the rhythm, but the rhythm before t0 is that of a second or so: on a
host whose processors are all taken, the scheduler can hold everybody up for longer than it did then. So a
series of interruptions is doubtful when all of these hold:

* none is longer than ten times the usual 99th percentile: beyond that no hiccup before t0 would have raised
  the bar either (`Usual.interruption_ns`);
* during each of them the host was busy: a sample of its processors at or above 90 % (R54);
* both hold for a silence that goes on at the end of observation, too, which `check.relapse` judges;
* nobody knows of an end or a recovery: no process was seen to end, no response and no recovery was reported
  by the target or its operator, or seen from outside (a new process, readiness back), and no later epoch.

A real outage that is hidden by this is shorter than ten usual gaps, left no trace but the silence, and is
told with the bound all the same; where the bound exceeds the objective the trial is UNKNOWN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.check.service import HICCUP_FACTOR
from blackstart.check.stamps import candidates
from blackstart.model.record import ProcessSeen, ResourceSample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackstart.check.facts import Facts
    from blackstart.check.service import ResumeWatch, Usual
    from blackstart.model.instant import Stamp

BUSY_PERCENT = 90.0
SAMPLE_NS = 250_000_000
"""A sample tells about so long before it (`engine.resources`)."""


def doubtful(watch: ResumeWatch, facts: Facts, t0: Stamp, t5: Stamp, until_ns: int) -> bool:
    """Say whether what ended with t5 cannot be told from hiccups of a busy host, up to `until_ns`."""
    if watch.usual is None or watch.taken_over or watch.by_epoch or recovers(facts, t0):
        return False
    ended = [
        (length, event[0])
        for event, length in zip(watch.returns, watch.silences, strict=True)
        if event[0] <= t5.mono_ns
    ]
    if not ended or ended[-1][1] != t5.mono_ns:
        return False  # it is known otherwise: by the target's own recovery, or from before a later fault
    if not watch.running(until_ns):
        ended.append((watch.silence_ns(until_ns), until_ns))
    return all(brief(watch.usual, facts, length, end) for length, end in ended)


def brief(usual: Usual, facts: Facts, silence_ns: int, end_ns: int) -> bool:
    """Say whether a silence is short enough for a hiccup, and came while the host was busy."""
    samples = facts.all(ResourceSample)
    return silence_ns <= HICCUP_FACTOR * usual.p99_ns and _busy(samples, end_ns - silence_ns, end_ns)


def recovers(facts: Facts, t0: Stamp, until_ns: int | None = None) -> bool:
    """Say whether anybody told of, or saw, an end, a response or a recovery since the failure.

    With `until_ns` (monotonic): until then.
    """
    since = t0.mono_ns - t0.uncertainty_ns
    seen = [one.mono_ns for one in facts.all(ProcessSeen) if one.what == "exited" and one.mono_ns >= since]
    for phase in ("responded", "recovered"):
        seen += [stamp.mono_ns for stamp in candidates(facts, phase, not_before_ns=since)]
    return any(until_ns is None or moment <= until_ns for moment in seen)


def _busy(samples: Sequence[ResourceSample], begin_ns: int, end_ns: int) -> bool:
    """Say whether the host had nothing to spare during a silence."""
    return any(
        one.cpu_percent >= BUSY_PERCENT and begin_ns < one.mono_ns <= end_ns + SAMPLE_NS for one in samples
    )
