"""References to processes that cannot be mistaken: a pid and its start time."""

from __future__ import annotations

from blackstart.host import procs
from blackstart.model.fault import ProcessRef


def reference(pid: int) -> ProcessRef | None:
    """Return a reference to the live process with this pid.

    None when there is none (a zombie counts as none).
    """
    found = procs.stat(pid)
    return None if found is None or found.dead else ProcessRef(found.pid, found.start_ticks)


def alive(ref: ProcessRef) -> bool:
    """Say whether exactly this process still runs."""
    return procs.is_alive(ref.pid, ref.start_ticks)
