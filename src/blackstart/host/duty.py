"""A duty cycle: processes run and stand still by turns, which makes them slow. Standard library only.

    python -I -S duty.py PARENT_PID RUN_MS STOP_MS PID:START_TICKS…

Begins when a line comes on its standard input. Ends with its parent, and lets everybody run on then.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Take turns until told to end, or until nobody is left."""
    parent, run_ms, stop_ms, *names = arguments
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if os.getppid() != int(parent):
        sys.exit(0)
    if not sys.stdin.readline():
        sys.exit(0)
    handles = [handle for name in names if (handle := opened(name)) is not None]
    try:
        while handles:
            handles = [handle for handle in handles if send(handle, signal.SIGSTOP)]
            time.sleep(float(stop_ms) / 1000)
            handles = [handle for handle in handles if send(handle, signal.SIGCONT)]
            time.sleep(float(run_ms) / 1000)
    finally:
        for handle in handles:
            send(handle, signal.SIGCONT)


def opened(name: str) -> int | None:
    """Open a handle on exactly this process; None when it is gone."""
    pid, ticks = name.split(":")
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(int(pid))
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - start time
            text = file.read()
        if text[text.rindex(b")") + 2 :].split()[19] == ticks.encode():
            return handle
    return None


def send(handle: int, number: signal.Signals) -> bool:
    """Signal it; False when it has ended."""
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
