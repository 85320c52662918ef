"""The system's clocks, both read at one moment."""

import time
from typing import Final

from fixsession.clock import Now

_AT_ONCE_NS: Final = 20_000
_TRIES: Final = 5


def now() -> Now:
    """Read both clocks; who loses the processor between the readings reads again, the closest pair counts.

    Their distance moves stamps from one clock to the other: what was lost, tens of milliseconds on a busy
    host, must not be in it.
    """
    pairs = []
    for _ in range(_TRIES):
        before, wall_ns, mono_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if mono_ns - before <= _AT_ONCE_NS:
            return Now(mono_ns, wall_ns)
        pairs.append((mono_ns - before, mono_ns, wall_ns))
    _, mono_ns, wall_ns = min(pairs)
    return Now(mono_ns, wall_ns)
