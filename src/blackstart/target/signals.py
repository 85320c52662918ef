"""The target's own events: JSON lines in files, each with a name and a stamp of the monotonic clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.contracts import Observation
from blackstart.model.match import reach
from blackstart.model.record import SignalSeen
from blackstart.target.tail import follow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blackstart.contracts import Clock, Sink
    from blackstart.model.manifest import EventSource


class JsonLines:
    """Implements Signal: the events of the files that match `files`, from now on."""

    def __init__(self, name: str, spec: EventSource, files: str) -> None:
        self.name = name
        self._spec, self._files = spec, files

    async def events(self) -> AsyncIterator[Observation]:
        """Yield each line that is an event; other lines (a log may hold anything) are passed over."""
        async for batch in follow(self._files):
            for _, line in batch:
                found = self._observation(line)
                if found is not None:
                    yield found

    def _observation(self, line: bytes) -> Observation | None:
        try:
            fields = msgspec.json.decode(line)
        except msgspec.DecodeError:
            return None
        if not isinstance(fields, dict):
            return None
        event, moment = reach(fields, self._spec.event), reach(fields, self._spec.mono_ns)
        if not isinstance(event, str) or not isinstance(moment, int):
            return None
        return Observation(source=self.name, event=event, mono_ns=moment, fields=self._rest(fields))

    def _rest(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            key: value for key, value in fields.items() if key not in {self._spec.event, self._spec.mono_ns}
        }


async def run(signal: JsonLines, *, clock: Clock, sink: Sink) -> None:
    """Record every event until cancelled."""
    async for seen in signal.events():
        sink(
            SignalSeen(
                source=seen.source,
                event=seen.event,
                mono_ns=seen.mono_ns,
                seen_mono_ns=clock.now().mono_ns,
                fields=seen.fields,
            )
        )
