"""What a process that lives for hours gives back."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, os
from blackstart.host import heap

def pages():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

heap.settle()
gc.disable()
before = pages()
held = [bytearray(60_000) for _ in range(1000)]
apart = [bytes(60_000) for _ in range(100)]  # behind it: the heap cannot just be made shorter
circle = {"held": held}
circle["itself"] = circle
del held, circle
full = pages()
heap.give_back()
print(full - before, pages() - before)
"""


def test_what_goes_round_in_circles_goes_back_to_the_kernel() -> None:
    """Sixty megabytes that hold themselves are gone from the process, also from amid its heap."""
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    full, left = map(int, told.split())
    assert full > 60e6
    assert left < 10e6
