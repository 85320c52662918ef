from __future__ import annotations

from paperfirm.supervisor.backoff import Backoff


def test_first_retry_is_at_once_then_doubles_to_the_longest() -> None:
    """A crash loop is slowed down step by step and never beyond the longest delay."""
    backoff = Backoff(first_s=0.1, longest_s=1.0, stable_s=10)
    assert [backoff.failed(0.01) for _ in range(7)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.failures == 7


def test_a_stable_run_forgives_everything() -> None:
    """A component that ran long enough is started at once again."""
    backoff = Backoff(first_s=0.1, longest_s=1.0, stable_s=10)
    for _ in range(5):
        backoff.failed(0.5)
    assert backoff.failed(10.0) == 0.0
    assert backoff.failures == 1
    assert backoff.failed(9.99) == 0.1


def test_days_of_failures_do_not_overflow() -> None:
    """The delay stays finite however often something fails."""
    backoff = Backoff(first_s=0.1, longest_s=3.0, stable_s=10)
    assert {backoff.failed(0.0) for _ in range(5000)} == {0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0}
