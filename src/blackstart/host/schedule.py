"""How a process fares with the scheduler: time run, and time waited for a processor."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Fare(NamedTuple):
    """Nanoseconds that all threads of a process have run, and that they stood ready and waited."""

    run_ns: int = 0
    waited_ns: int = 0

    @property
    def got(self) -> float:
        """The share of the time it wanted that it got; 1 for a process that wanted none."""
        wanted = self.run_ns + self.waited_ns
        return self.run_ns / wanted if wanted else 1.0

    def since(self, before: Fare) -> Fare:
        """Return what came on top; threads that have ended meanwhile took their share away."""
        return Fare(max(0, self.run_ns - before.run_ns), max(0, self.waited_ns - before.waited_ns))


def fare(pid: int) -> Fare:
    """Add up `/proc/PID/task/*/schedstat`; nothing for a process that is gone."""
    run = waited = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            words = file.read_text(encoding="utf-8").split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        run, waited = run + int(words[0]), waited + int(words[1])
    return Fare(run, waited)
