"""What units and containers say: the journal and the engine's log, line by line with their stamps."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from blackstart.errors import TargetError
from blackstart.host import containers, systemd
from blackstart.target.signals import JsonLines, LogLines
from blackstart.target.spawn import Launch, tail
from blackstart.target.tail import follow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from blackstart.contracts import Clock, Observation, Signal
    from blackstart.model.manifest import EventSource
    from blackstart.target.spawn import Child

RECEIVED_NS = 3_000_000
"""How much later than written a line gets its stamp from the journal or the engine (median 0.2 ms)."""

_AGAIN_S = 0.1
_NS_PER_US = 1_000
_NS_PER_S = 1_000_000_000
_STDOUT = 1  # as the engine counts outputs
_HEAD = 8  # of a frame: which output, three zeros, the length in four bytes
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")


def source(
    name: str, spec: EventSource, *, logs: Path, spawn: Callable[[Launch], Awaitable[Child]], clock: Clock
) -> Signal:
    """Return the signal for an event source that is a unit or a container."""
    if spec.unit is not None:
        return JournalLines(name, spec, logs / f"journal-{name}.log", spawn, clock)
    return ContainerLines(name, spec, clock)


class _Lines:
    """Turns stamped lines into events: JSON, whose own stamp is better, or whatever `lines` finds."""

    def __init__(self, name: str, spec: EventSource, clock: Clock) -> None:
        self._json = JsonLines(name, spec, "")
        self._log = None if spec.lines is None else LogLines(name, spec.lines, "", clock)

    def event(self, line: bytes, mono_ns: int) -> Observation | None:
        if self._log is None:
            return self._json.observation(line, mono_ns, RECEIVED_NS)
        found = self._log.observation(line, mono_ns)
        return None if found is None else msgspec.structs.replace(found, uncertainty_ns=RECEIVED_NS)


class JournalLines:
    """Implements Signal for what a unit says: stamped by the journal, on the monotonic clock of this boot.

    `journalctl` writes into the run folder, where its lines are followed, and where they stay as evidence.
    """

    def __init__(
        self,
        name: str,
        spec: EventSource,
        log: Path,
        spawn: Callable[[Launch], Awaitable[Child]],
        clock: Clock,
    ) -> None:
        self.name = name
        self._spec, self._log, self._spawn, self._clock = spec, log, spawn, clock
        self._lines = _Lines(name, spec, clock)
        self._boot = _boot_id()

    async def events(self) -> AsyncIterator[Observation]:
        """Yield an event for each line that is one. Raises TargetError when it cannot be followed."""
        assert self._spec.unit is not None, "made for units"
        unit = systemd.Unit(self._spec.unit, systemd.manager(self._spec.manager))
        child = await self._spawn(self._launch(unit))
        gone = asyncio.ensure_future(child.exited.wait())
        batches = follow(str(self._log), from_start=True)
        child.release()
        try:
            while True:
                batch = asyncio.ensure_future(anext(batches))
                await asyncio.wait([batch, gone], return_when=asyncio.FIRST_COMPLETED)
                if not batch.done():
                    batch.cancel()
                    said = tail(self._log, 2)
                    raise TargetError(f"the journal cannot be followed: {said}", where=f"events.{self.name}")
                for _, line in batch.result():
                    if (found := self.observation(line)) is not None:
                        yield found
        finally:
            gone.cancel()
            await child.end(1.0)

    def observation(self, line: bytes) -> Observation | None:
        """Read one entry of the journal; None when it is no event."""
        try:
            entry = msgspec.json.decode(line)
        except msgspec.DecodeError:
            return None
        said = entry.get("MESSAGE") if isinstance(entry, dict) else None
        if said is None:
            return None
        text = said.encode() if isinstance(said, str) else bytes(said)  # what is no UTF-8 comes as numbers
        return self._lines.event(text, self._moment(entry))

    def _moment(self, entry: dict[str, Any]) -> int:
        """Return when the journal got it; what another boot wrote has a stamp of another clock."""
        if entry.get("_BOOT_ID") != self._boot:
            return self._clock.now().mono_ns
        return int(entry["__MONOTONIC_TIMESTAMP"]) * _NS_PER_US

    def _launch(self, unit: systemd.Unit) -> Launch:
        own = {} if unit.manager == systemd.SYSTEM else {"XDG_RUNTIME_DIR": unit.manager}
        return Launch(
            name=f"journal-{self.name}",
            argv=tuple(systemd.journal(unit)),
            log=self._log,
            marker=f"{self._log}:journal",
            environment=own,
        )


class ContainerLines:
    """Implements Signal for what a container says: stamped by the engine, on the wall clock.

    The engine ends the stream with the container's process; the one after that is followed from there. Its
    stamps ascend in each of the two outputs, not over both: who stamped first may be written second.
    """

    def __init__(self, name: str, spec: EventSource, clock: Clock) -> None:
        self.name = name
        self._name, self._clock = spec.container or "", clock
        self._lines = _Lines(name, spec, clock)
        self._begin_wall_ns = clock.now().wall_ns
        self._last_wall_ns: dict[int, int] = {}

    async def events(self) -> AsyncIterator[Observation]:
        """Yield an event for each line that is one. Raises TargetError when the engine cannot be reached."""
        container = containers.Container(self._name, containers.engine())
        while True:
            known = await asyncio.to_thread(containers.inspect, container)
            async for output, line in self._stream(container, known):
                if (found := self.observation(line, output)) is not None:
                    yield found
            await asyncio.sleep(_AGAIN_S)

    def observation(self, line: bytes, output: int = _STDOUT) -> Observation | None:
        """Read one stamped line of an output; None when it is no event, or was read before."""
        found = _STAMP.match(line)
        if found is None:
            return None
        wall_ns = _wall_ns(found)
        if wall_ns <= self._last_wall_ns.get(output, self._begin_wall_ns):
            return None
        self._last_wall_ns[output] = wall_ns
        now = self._clock.now()
        return self._lines.event(line[found.end() :].rstrip(b"\r"), wall_ns - (now.wall_ns - now.mono_ns))

    async def _stream(
        self, container: containers.Container, known: dict[str, Any]
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Yield the lines of both outputs, with the output, until the engine ends the stream."""
        try:
            reader, writer = await asyncio.open_unix_connection(container.socket, limit=1 << 24)
        except OSError as error:
            raise TargetError(f"cannot be reached: {error.strerror}", where=container.socket) from None
        newest = max(self._last_wall_ns.values(), default=self._begin_wall_ns)
        # A little early, for the other output; what was read already is known by its stamp.
        since = max(self._begin_wall_ns, newest - _NS_PER_S) // _NS_PER_S
        asked = urlencode({"follow": 1, "stdout": 1, "stderr": 1, "timestamps": 1, "since": since})
        # HTTP/1.0: then the answer is not cut into chunks.
        writer.write(f"GET /containers/{known['Id']}/logs?{asked} HTTP/1.0\r\n\r\n".encode())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise TargetError(f"no log: {head.splitlines()[0].decode()}", where=container.name)
            tty = bool((known.get("Config") or {}).get("Tty"))
            async for line in _plain(reader) if tty else _framed(reader):
                yield line
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


async def _plain(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    """Yield lines of a container with a terminal: its output is not framed."""
    while line := await reader.readline():
        yield _STDOUT, line.rstrip(b"\n")


async def _framed(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    """Take the frames apart, each of one of two outputs, and put the lines of each together."""
    rests: dict[int, bytes] = {}
    while True:
        head = await reader.readexactly(_HEAD)
        data = await reader.readexactly(int.from_bytes(head[4:], "big"))
        *lines, rests[head[0]] = (rests.get(head[0], b"") + data).split(b"\n")
        for line in lines:
            yield head[0], line


def _wall_ns(found: re.Match[bytes]) -> int:
    whole, fraction, zone = (part.decode() if part else "" for part in found.groups())
    seconds = round(datetime.fromisoformat(f"{whole}{'+00:00' if zone == 'Z' else zone}").timestamp())
    return seconds * _NS_PER_S + int(fraction.ljust(9, "0") or 0)


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - one line
        return file.read().strip().replace("-", "")
