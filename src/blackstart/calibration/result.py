"""What a calibration found, against what it must reach."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

MEDIAN_MS, P99_MS, DEATH_MEDIAN_MS = 1.0, 5.0, 0.3
NS_PER_MS = 1_000_000


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """One programmed outage: what it was, what was measured. None: it could not be measured."""

    programmed_ns: int
    true_ns: int
    measured_ns: int | None
    uncertainty_ns: int | None
    phases_sum: bool
    phase_error_ns: int | None

    @property
    def error_ns(self) -> int | None:
        """Measured minus true."""
        return None if self.measured_ns is None else self.measured_ns - self.true_ns

    @property
    def inside(self) -> bool:
        """Say whether the truth lies within the stated uncertainty."""
        error = self.error_ns
        return error is not None and self.uncertainty_ns is not None and abs(error) <= self.uncertainty_ns


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Absolute values in milliseconds."""

    count: int
    median_ms: float
    p99_ms: float
    max_ms: float


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The whole result. `unmeasured` and `outside` must be 0."""

    seed: int
    outages: int
    unmeasured: int
    outside: int
    phases_not_summing: int
    error: Spread | None
    phase_error: Spread | None
    uncertainty: Spread | None
    death_notice: Spread | None
    misses: tuple[str, ...]


def spread(values_ns: Sequence[int]) -> Spread | None:
    """Summarise absolute values; the p99 is the nearest rank, so of 200 values the 198th."""
    if not values_ns:
        return None
    ordered = sorted(abs(value) for value in values_ns)
    rank = -(-99 * len(ordered) // 100)
    return Spread(
        count=len(ordered),
        median_ms=median(ordered) / NS_PER_MS,
        p99_ms=ordered[rank - 1] / NS_PER_MS,
        max_ms=ordered[-1] / NS_PER_MS,
    )


def summarise(seed: int, outages: Sequence[Outage], deaths_ns: Sequence[int]) -> Calibration:
    """Put the result together and name every target that was missed."""
    errors = [one.error_ns for one in outages if one.error_ns is not None]
    found = Calibration(
        seed=seed,
        outages=len(outages),
        unmeasured=len(outages) - len(errors),
        outside=sum(one.error_ns is not None and not one.inside for one in outages),
        phases_not_summing=sum(not one.phases_sum for one in outages),
        error=spread(errors),
        phase_error=spread([one.phase_error_ns for one in outages if one.phase_error_ns is not None]),
        uncertainty=spread([one.uncertainty_ns for one in outages if one.uncertainty_ns is not None]),
        death_notice=spread(deaths_ns),
        misses=(),
    )
    return msgspec.structs.replace(found, misses=_misses(found))


def _misses(found: Calibration) -> tuple[str, ...]:
    checks = [
        (found.unmeasured > 0, f"{found.unmeasured} outages could not be measured"),
        (found.outside > 0, f"{found.outside} errors lie outside the stated uncertainty"),
        (found.phases_not_summing > 0, f"{found.phases_not_summing} outages whose phases do not sum"),
    ]
    if found.error is not None:
        checks.append((found.error.median_ms > MEDIAN_MS, f"median error above {MEDIAN_MS} ms"))
        checks.append((found.error.p99_ms > P99_MS, f"p99 error above {P99_MS} ms"))
    if found.death_notice is not None:
        late = found.death_notice.median_ms > DEATH_MEDIAN_MS
        checks.append((late, f"median death notice above {DEATH_MEDIAN_MS} ms"))
    return tuple(text for missed, text in checks if missed)
