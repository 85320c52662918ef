from __future__ import annotations

import pytest

from blackstart.calibration.bench import compare
from blackstart.calibration.program import Truth
from blackstart.calibration.result import Outage, spread, summarise
from blackstart.testing.samples import T0_NS, sample_rto

MS = 1_000_000


def outage(error_ns: int, *, uncertainty_ns: int = MS, measured: bool = True) -> Outage:
    """Return an outage of 100 ms that was measured with some error."""
    return Outage(
        programmed_ns=100 * MS,
        true_ns=100 * MS,
        measured_ns=100 * MS + error_ns if measured else None,
        uncertainty_ns=uncertainty_ns,
        phases_sum=True,
        phase_error_ns=abs(error_ns),
    )


def test_good_outages_miss_nothing() -> None:
    """Small errors inside their uncertainty are a passed calibration."""
    found = summarise(7, [outage(error) for error in (-200_000, 100_000, 300_000)], [100_000] * 3)
    assert found.misses == ()
    assert found.error is not None
    assert found.error.median_ms == 0.2


@pytest.mark.parametrize(
    ("outages", "deaths", "miss"),
    [
        ([outage(2 * MS, uncertainty_ns=9 * MS)] * 3, [], "median error"),
        ([outage(0)] * 10 + [outage(6 * MS, uncertainty_ns=9 * MS)], [], "p99 error"),
        ([outage(200_000, uncertainty_ns=100_000)], [], "outside the stated uncertainty"),
        ([outage(0, measured=False)], [], "could not be measured"),
        ([outage(0)], [400_000], "death notice"),
    ],
)
def test_each_promise_can_be_missed(outages: list[Outage], deaths: list[int], miss: str) -> None:
    """Every bound of the calibration is really compared, and the one that was missed is named."""
    (found,) = summarise(7, outages, deaths).misses
    assert miss in found


def test_the_p99_of_two_hundred_is_the_198th() -> None:
    """Nearest rank: no interpolation makes the tail look better."""
    found = spread([value * MS for value in range(1, 201)])
    assert found is not None
    assert (found.p99_ms, found.max_ms) == (198.0, 200.0)


def test_measured_and_true_are_compared_stamp_by_stamp() -> None:
    """The worst stamp error is that of the stamp that is furthest from the truth."""
    rto = sample_rto(1, 2, 3, 4, 5)
    stamps = [T0_NS + at * MS for at in (0, 1, 3, 6, 10, 15)]
    stamps[2] -= 7_000
    found = compare(Truth(outage_ns=15 * MS, stamps_ns=tuple(stamps)), rto)
    assert (found.error_ns, found.phase_error_ns, found.phases_sum) == (0, 7_000, True)
