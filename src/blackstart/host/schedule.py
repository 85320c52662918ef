"""How a process fares with the scheduler: time run, and time waited for a processor."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from blackstart.host import procs

_TICKS_NS = 100_000_000
"""The kernel adds up the time of a running thread with its ticks, at least ten of them in so long."""


class Fare(NamedTuple):
    """Nanoseconds that all threads of a process have run, and that they stood ready and waited.

    The kernel counts a wait when it is over. So also when this was read (`mono_ns`), and whether a thread
    stood `ready` then.
    """

    run_ns: int = 0
    waited_ns: int = 0
    mono_ns: int = 0
    ready: bool = False

    @property
    def got(self) -> float:
        """The share of the time it wanted that it got; 1 for a process that wanted none."""
        wanted = self.run_ns + self.waited_ns
        return self.run_ns / wanted if wanted else 1.0

    def since(self, before: Fare) -> Fare:
        """Return what came on top; threads that have ended meanwhile took their share away.

        Who was ready and has not run since has waited all the time: without running it cannot fall asleep.
        """
        run, waited = max(0, self.run_ns - before.run_ns), max(0, self.waited_ns - before.waited_ns)
        passed = self.mono_ns - before.mono_ns
        if before.ready and run == 0 and passed >= _TICKS_NS:
            waited = max(waited, passed)
        return self._replace(run_ns=run, waited_ns=waited)


def fare(pid: int) -> Fare:
    """Add up `/proc/PID/task/*/schedstat`; nothing for a process that is gone."""
    run = waited = 0
    now_ns, ready = time.monotonic_ns(), "R" in procs.thread_states(pid)
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            words = file.read_text(encoding="utf-8").split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        run, waited = run + int(words[0]), waited + int(words[1])
    return Fare(run, waited, now_ns, ready)
