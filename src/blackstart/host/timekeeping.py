"""Whether the kernel takes its wall clock for synchronised."""

from __future__ import annotations

import ctypes

_TIME_ERROR = 5
_TIMEX_BYTES = 512  # more than `struct timex` has on any machine; all zero: nothing is to be changed


def synchronised() -> bool:
    """Whether NTP or PTP keeps the clock, as adjtimex(2) tells; False also where nobody can tell."""
    state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return 0 <= state < _TIME_ERROR
