"""The target's own events: JSON lines with a stamp of the monotonic clock, or lines of any log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.contracts import Observation
from blackstart.model.match import reach
from blackstart.model.record import SignalSeen
from blackstart.target.tail import follow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blackstart.contracts import Clock, Signal, Sink
    from blackstart.model.manifest import EventSource
    from blackstart.target.hosts import Hosts
    from blackstart.target.remote import Link

LATE_NS = 5_000_000
"""How much later than written a log line may reach us: notice, gathering, and a busy machine."""


class JsonLines:
    """Implements Signal: the events of the files that match `files`, from now on."""

    def __init__(self, name: str, spec: EventSource, files: str) -> None:
        self.name = name
        self._spec, self._files = spec, files

    async def events(self) -> AsyncIterator[Observation]:
        """Yield each line that is an event; other lines (a log may hold anything) are passed over."""
        async for batch in follow(self._files):
            for _, line in batch:
                found = self.observation(line)
                if found is not None:
                    yield found

    def observation(self, line: bytes, moment: int | None = None, late_ns: int = 0) -> Observation | None:
        """Return what a line says; None when it is no event.

        One without a stamp of its own happened at `moment`, if that is known, or up to `late_ns` before.
        """
        try:
            fields = msgspec.json.decode(line)
        except msgspec.DecodeError:
            return None
        if not isinstance(fields, dict):
            return None
        event, own = reach(fields, self._spec.event), reach(fields, self._spec.mono_ns)
        if isinstance(own, int):
            moment, late_ns = own, 0
        if not isinstance(event, str) or moment is None:
            return None
        rest = self._rest(fields)
        return Observation(source=self.name, event=event, mono_ns=moment, uncertainty_ns=late_ns, fields=rest)

    def _rest(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            key: value for key, value in fields.items() if key not in {self._spec.event, self._spec.mono_ns}
        }


class LogLines:
    """Implements Signal for a log that is not JSON: its lines have no stamp that ours could be compared with.

    An event's stamp is when its line reached us: later than it happened by what writing, the kernel's notice
    and gathering took.
    """

    def __init__(self, name: str, pattern: str, files: str, clock: Clock) -> None:
        self.name = name
        self._pattern, self._files, self._clock = re.compile(pattern), files, clock

    async def events(self) -> AsyncIterator[Observation]:
        """Yield an event for each line that the pattern is found in."""
        async for batch in follow(self._files):
            moment = self._clock.now().mono_ns
            for _, line in batch:
                found = self.observation(line, moment)
                if found is not None:
                    yield found

    def observation(self, line: bytes, moment: int) -> Observation | None:
        """Return what a line says that was noticed at `moment`; None when the pattern is not in it."""
        found = self._pattern.search(line.decode("utf-8", "replace"))
        if found is None:
            return None
        fields = {key: text for key, text in found.groupdict().items() if text is not None}
        event = fields.pop("event", self.name)
        return Observation(
            source=self.name, event=event, mono_ns=moment, uncertainty_ns=LATE_NS, fields=fields
        )


class RemoteLines:
    """Implements Signal for files on another host: its stamps are turned into ours.

    Their uncertainty is that of the difference between the clocks; for a log that is not JSON, besides what
    the helper's notice takes there.
    """

    def __init__(self, name: str, spec: EventSource, files: str, hosts: Hosts, clock: Clock) -> None:
        self.name = name
        self._spec, self._files, self._hosts = spec, files, hosts
        self._json = JsonLines(name, spec, files)
        self._log = None if spec.lines is None else LogLines(name, spec.lines, files, clock)

    async def events(self) -> AsyncIterator[Observation]:
        """Yield an event for each line there that is one. Raises TargetError when the host cannot be used."""
        async for link, word, seen in self._hosts.follow(self._spec.host or "", self._files):
            for text in word["lines"]:
                line = text.encode("utf-8", "surrogateescape")
                found = self._log.observation(line, word["at"]) if self._log else self._json.observation(line)
                if found is not None:
                    yield _here(found, link, seen)


def _here(found: Observation, link: Link, seen_ns: int) -> Observation:
    moment = link.here(found.mono_ns, seen_ns)
    uncertainty = found.uncertainty_ns + moment.uncertainty_ns
    return msgspec.structs.replace(found, mono_ns=moment.mono_ns, uncertainty_ns=uncertainty)


def follow_events(name: str, spec: EventSource, files: str, clock: Clock) -> JsonLines | LogLines:
    """Return the signal for an event source of the manifest, its `files` expanded."""
    return JsonLines(name, spec, files) if spec.lines is None else LogLines(name, spec.lines, files, clock)


async def run(signal: Signal, *, clock: Clock, sink: Sink) -> None:
    """Record every event until cancelled."""
    async for seen in signal.events():
        sink(
            SignalSeen(
                source=seen.source,
                event=seen.event,
                mono_ns=seen.mono_ns,
                seen_mono_ns=clock.now().mono_ns,
                uncertainty_ns=seen.uncertainty_ns,
                fields=seen.fields,
            )
        )
