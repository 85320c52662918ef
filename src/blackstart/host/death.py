"""The kernel's notice of a death: a pidfd becomes readable the moment its process has ended.

The only way in which deaths are noticed here: by faults, by the watchers of a target, by `calibrate`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from blackstart.host import refs

if TYPE_CHECKING:
    from collections.abc import Callable

    from blackstart.contracts import Clock
    from blackstart.model.fault import ProcessRef


class DeathNotice:
    """A handle on one process that cannot be mistaken for a later owner of its pid.

    `told` is called once with the moment (monotonic ns) of the notice, in the running loop. Raises
    ProcessLookupError when the process has ended already and `unwaited` is not set: a child of ours that
    nobody has waited for keeps its pid, so its end is told even then.
    """

    def __init__(
        self, ref: ProcessRef, clock: Clock, told: Callable[[int], None], *, unwaited: bool = False
    ) -> None:
        self.ref = ref
        self._clock, self._told = clock, told
        self._handle: int | None = os.pidfd_open(ref.pid)
        if not unwaited and not refs.alive(ref):  # ended, or the pid changed hands meanwhile
            os.close(self._handle)
            raise ProcessLookupError(ref.pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._handle, self._readable)

    def signal(self, number: signal.Signals) -> bool:
        """Signal exactly this process; False when it has ended meanwhile."""
        if self._handle is None:
            return False
        try:
            signal.pidfd_send_signal(self._handle, number)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """Look no longer; idempotent."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._loop.remove_reader(handle)
            os.close(handle)

    def _readable(self) -> None:
        now = self._clock.now().mono_ns  # before anything else: this is the stamp
        self.close()
        self._told(now)
