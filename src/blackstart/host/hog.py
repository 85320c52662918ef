"""Eats memory or processor time, within bounds. Standard library only.

    python -I -S hog.py PARENT_PID OOM_SCORE_ADJ cpu
    python -I -S hog.py PARENT_PID OOM_SCORE_ADJ memory BYTES FLOOR_BYTES

Begins when a line comes on its standard input. Ends with its parent. With OOM_SCORE_ADJ 1000 it is the first
whom the kernel would kill for want of memory. Never eats below FLOOR_BYTES of what the host has available.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
STEP = 2**22


def main(arguments: list[str]) -> None:
    """Wait for the word, and eat."""
    parent, score, what, *numbers = arguments
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(0)
    with contextlib.suppress(PermissionError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write(score)
    if not sys.stdin.readline():
        sys.exit(0)
    if what == "cpu":
        burn()
    kept = eat(*map(int, numbers))
    while kept:
        signal.pause()


def burn() -> None:
    """Burn one processor, for good."""
    while True:
        pass


def eat(size: int, floor: int) -> list[mmap.mmap]:
    """Touch every page of `size` bytes, or of as many as the host can spare."""
    kept: list[mmap.mmap] = []
    while size > 0 and available() - STEP > floor:
        block = mmap.mmap(-1, min(STEP, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block.write(b"\1" * len(block))
        kept.append(block)
        size -= len(block)
    return kept


def available() -> int:
    """Return how many bytes the host could still give without harm (`MemAvailable`)."""
    with open("/proc/meminfo") as file:  # noqa: PTH123 - start time
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))


if __name__ == "__main__":
    main(sys.argv[1:])
