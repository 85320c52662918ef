"""When a peer that is connected has been silent for too long: paused, hung, or cut off without a word."""

from __future__ import annotations


class Silence:
    """Looks at when a peer was last heard of. Times in seconds of one clock.

    Only the second late look in a row counts: after a pause of our own what the peer has sent meanwhile is
    waiting to be read.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._late = False

    def lasts(self, heard_s: float, now_s: float) -> bool:
        """Look once; called at intervals that are short against the limit."""
        late = now_s - heard_s > self.limit_s
        before, self._late = self._late, late
        return late and before


def told(heard_s: float, now_s: float) -> str:
    """Say it in the words of the event log."""
    return f"silent for {round((now_s - heard_s) * 1000)} ms"
