"""Order statistics: what n trials prove about those to come, by the exact binomial (R75).

The slowest of n independent trials lies above the p-quantile with probability 1 - p^n. So with
confidence c it bounds the quantile p = (1 - c)^(1/n), and a claim about a given quantile needs n =
ln(1 - c) / ln(p) trials. Never a bootstrap: for tails of small samples it covers far less than it
says.
"""

from __future__ import annotations

from math import ceil, comb, isclose, log
from statistics import median
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95
ITERATIONS = 200


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The strongest statement that `n` trials carry: `bound` is at least the `quantile` with `confidence`."""

    n: int
    bound: float
    quantile: float
    confidence: float
    more_for_p95: int

    def text(self) -> str:
        """`10 trials: the slowest bounds the 74th percentile with 95%; for the 95th … run 49 more`."""
        noun = "trial" if self.n == 1 else "trials"
        percentile = int(self.quantile * 100 + 1e-9)
        bound = f"the slowest bounds the {ordinal(percentile)} percentile with {self.confidence:.0%}"
        more = f"; for the 95th percentile run {self.more_for_p95} more" if self.more_for_p95 else ""
        return f"{self.n} {noun}: {bound}{more}"


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Median and slowest of the trials, and what they prove."""

    n: int
    median: float
    maximum: float
    claim: Claim


def ordinal(number: int) -> str:
    """`1st`, `22nd`, `93rd`, `11th`."""
    suffix = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def bounded_quantile(n: int, *, confidence: float = CONFIDENCE) -> float:
    """Return the highest quantile that the slowest of n trials bounds from above."""
    if n < 1:
        return 0.0
    return float((1 - confidence) ** (1 / n))


def trials_needed(quantile: float, *, confidence: float = CONFIDENCE) -> int:
    """Return how many trials it takes for the slowest to bound a quantile (p95: 59, p99: 299 at 95 %)."""
    if not 0 < quantile < 1:
        raise ValueError(f"a quantile lies between 0 and 1, not at {quantile}")
    exact = log(1 - confidence) / log(quantile)
    return round(exact) if isclose(exact, round(exact), rel_tol=1e-12) else ceil(exact)


def summary(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Summary | None:
    """Sum up trials; None when there is none."""
    if not values:
        return None
    n, slowest = len(values), max(values)
    claim = Claim(
        n=n,
        bound=slowest,
        quantile=bounded_quantile(n, confidence=confidence),
        confidence=confidence,
        more_for_p95=max(0, trials_needed(0.95, confidence=confidence) - n),
    )
    return Summary(n=n, median=median(values), maximum=slowest, claim=claim)


def success_bound(successes: int, n: int, *, confidence: float = CONFIDENCE) -> float:
    """Return the lower bound on the probability of success (one-sided Clopper-Pearson): never 1."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials cannot be")
    if successes == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(ITERATIONS):
        middle = (low + high) / 2
        if at_least(successes, n, middle) > 1 - confidence:
            high = middle
        else:
            low = middle
    return low


def at_least(successes: int, n: int, probability: float) -> float:
    """Return the chance of at least that many successes in n trials, summed exactly."""
    return sum(comb(n, k) * probability**k * (1 - probability) ** (n - k) for k in range(successes, n + 1))
