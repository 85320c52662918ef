"""When to try again: at once, then ever later, and at once again after a stable while. Pure."""

from __future__ import annotations


class Backoff:
    """Delays for repeated failures of one thing.

    The first delay after a stable run is 0, then `first_s`, doubling up to `longest_s`. A run counts as
    stable when it lasted `stable_s`; `failures` counts those since.
    """

    def __init__(self, *, first_s: float, longest_s: float, stable_s: float, factor: float = 2.0) -> None:
        self.first_s, self.longest_s, self.stable_s, self.factor = first_s, longest_s, stable_s, factor
        self.failures = 0

    def failed(self, ran_s: float) -> float:
        """Record that a run of `ran_s` seconds has ended; returns how long to wait before the next."""
        if ran_s >= self.stable_s:
            self.failures = 0
        self.failures += 1
        if self.failures == 1:
            return 0.0
        # The exponent is capped: a component may fail for days.
        return min(self.first_s * self.factor ** min(self.failures - 2, 60), self.longest_s)

    def reset(self) -> None:
        """Forget past failures: it works."""
        self.failures = 0
