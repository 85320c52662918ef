"""The kill switch itself: the guardians of this user's runs are called, before anything else is looked at.

Imports next to nothing: every module that it waited for would be time during which a fault stays in place.
Whom it does not reach so (a dead guardian, a stopped one, a run that nobody noted) `leftovers.halt` sees to.
"""

from __future__ import annotations

import os
import signal

from blackstart.engine import locks, openruns

HALT = "HALT"
"""The file in a run folder that has everything taken back. Guardians and suites look for it now and then."""


def sound() -> list[str]:
    """Call the guardian of every noted run; returns the runs that were called."""
    return [run for run in openruns.noted() if call(run)]


def call(run: str) -> bool:
    """Leave the file HALT, and tell a living guardian; says whether there was one."""
    try:  # noqa: SIM105 - imports next to nothing
        os.close(os.open(os.path.join(run, HALT), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))  # noqa: PTH118 - see above
    except OSError:  # no room, or not ours: called all the same
        pass
    try:
        pid = locks.holder(run, locks.GUARDIAN_LOCK)
        if pid is None:
            return False  # a suite's own folder: who runs it looks for the file
        lock = locks.hold(run, locks.GUARDIAN_LOCK)
        if lock is not None:
            locks.release(lock)  # nobody watches over this folder: the pid may be anybody's by now
        else:
            os.kill(pid, signal.SIGUSR1)
            return True
    except OSError:  # another user's
        pass
    return False
