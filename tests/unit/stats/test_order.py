"""Order statistics against published figures and against counting."""

from __future__ import annotations

import math
import random

import pytest

from blackstart.stats.order import bounded_quantile, ordinal, success_bound, summary, trials_needed


@pytest.mark.parametrize(("quantile", "needed"), [(0.9, 29), (0.95, 59), (0.99, 299)])
def test_trials_needed_are_the_published_figures(quantile: float, needed: int) -> None:
    """Trials without a failure for 95 % confidence: p90 29, p95 59, p99 299."""
    assert trials_needed(quantile) == needed
    assert bounded_quantile(needed) >= quantile > bounded_quantile(needed - 1)


def test_ten_trials_say_what_the_source_says() -> None:
    """Ten drills: the slowest bounds the 74th percentile; for the 95th run 49 more."""
    found = summary([float(n) for n in range(10)])
    assert found is not None
    assert found.claim.text() == (
        "10 trials: the slowest bounds the 74th percentile with 95%; for the 95th percentile run 49 more"
    )
    assert (found.median, found.maximum) == (4.5, 9.0)


def test_enough_trials_ask_for_no_more() -> None:
    """From 59 trials on nothing more is asked for."""
    found = summary([1.0] * 59)
    assert found is not None
    assert found.claim.text() == "59 trials: the slowest bounds the 95th percentile with 95%"


def test_nothing_has_no_summary() -> None:
    """Without a trial there is no claim."""
    assert summary([]) is None
    assert bounded_quantile(0) == 0


def test_the_bound_covers_as_often_as_it_says() -> None:
    """In seeded skewed samples the slowest of ten lies above the claimed quantile in 95 % of cases."""
    rng, quantile, rounds = random.Random(7), bounded_quantile(10), 4000
    true = -math.log(1 - quantile)
    covered = sum(max(rng.expovariate(1) for _ in range(10)) >= true for _ in range(rounds))
    assert covered / rounds == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(
    ("successes", "n", "bound"), [(59, 59, 0.9505), (30, 30, 0.9050), (0, 5, 0.0), (9, 10, 0.6058)]
)
def test_success_bounds_are_clopper_pearson(successes: int, n: int, bound: float) -> None:
    """The exact one-sided bound, as in the tables."""
    assert success_bound(successes, n) == pytest.approx(bound, abs=1e-4)


def test_impossible_counts_are_refused() -> None:
    """More successes than trials, or a quantile of one, are nonsense."""
    with pytest.raises(ValueError, match="cannot be"):
        success_bound(3, 2)
    with pytest.raises(ValueError, match="between 0 and 1"):
        trials_needed(1.0)


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th"), (93, "93rd"), (74, "74th")]
)
def test_ordinals(number: int, text: str) -> None:
    """English ordinals."""
    assert ordinal(number) == text
