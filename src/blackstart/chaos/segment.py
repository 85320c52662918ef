"""A stretch of a session with a history of its own: the start, each disturbance, the end.

Everything outside is seen and forgotten, so that hours of chaos need no more memory than one disturbance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from blackstart.engine import conductor
from blackstart.engine.recorder import Recorder
from blackstart.engine.trial import Guarding, RunningTrial
from blackstart.history.writer import HistoryWriter
from blackstart.model.record import Ended, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from blackstart.contracts import Rig
    from blackstart.engine.conductor import How, Kit
    from blackstart.engine.trial import Stop
    from blackstart.model.fault import Undo
    from blackstart.model.manifest import Manifest
    from blackstart.model.record import Reverted
    from blackstart.model.scenario import Plan


class Scoped:
    """The session's guardian as one segment sees it.

    The undo journal knows an id once: a fault that comes again to the same process would count as taken back
    already. So each segment's ids begin with its name, on the way there, and not on the way back.
    """

    def __init__(self, guard: Guarding, scope: str) -> None:
        self._guard, self._scope = guard, f"{scope}/"

    async def protect(self, undos: Iterable[Undo]) -> None:
        """See `contracts.FaultContext.protect`."""
        await self._guard.protect([msgspec.structs.replace(one, id=self._scope + one.id) for one in undos])

    async def undo(self, ids: Sequence[str] | None = None) -> list[Reverted]:
        """Carry out those of this segment."""
        wanted = None if ids is None else [self._scope + one for one in ids]
        return [
            msgspec.structs.replace(one, undo_id=one.undo_id.removeprefix(self._scope))
            for one in await self._guard.undo(wanted)
        ]

    async def close(self) -> None:
        """Leave the guardian to the session."""


class Segment:
    """A running trial's context with a history in `folder`, on a rig and a guardian that outlive it.

    `scratch` is the folder that faults see: that of the session. What answers for a process' system calls
    can be put into it only once, and is found again there. What is put in place without `expires` stays until
    the session is over.
    """

    def __init__(
        self,
        plan: Plan,
        manifest: Manifest,
        folder: Path,
        kit: Kit,
        *,
        scratch: Path,
        guard: Guarding,
        rig: Rig,
        expires: bool = True,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder, self._clock = folder, kit.clock
        self._writer = HistoryWriter(folder)
        self.recorder = Recorder(self._writer, kit.clock, keep_events=False)
        self.recorder(conductor.header(plan, manifest, kit))
        self.recorder.flush()
        self.trial = RunningTrial(
            plan,
            manifest,
            clock=kit.clock,
            folder=scratch,
            isolation=kit.isolation,
            recorder=self.recorder,
            guard=Scoped(guard, folder.name),
            progress=kit.progress,
            expires=expires,
        )
        self.trial.rig = rig

    def problem(self, stop: Stop) -> None:
        """Record what kept it from being what it should be."""
        now = self._clock.now().mono_ns
        self.recorder(Problem(code=stop.code, text=stop.text, mono_ns=now, verdict=stop.verdict))

    def close(self, how: How) -> Path:
        """End the history and return where it lies: judged is what was kept there."""
        self.recorder.flush()  # nothing stands behind the end
        self.recorder(Ended(mono_ns=self._clock.now().mono_ns, how=how))
        self.recorder.sync()
        self._writer.close()
        return self.folder
