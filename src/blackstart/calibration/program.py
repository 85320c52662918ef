"""The calibration target: a service with programmed outages that writes down when everything happened.

`python -m blackstart.calibration.program PORT FOLDER`. Lines over TCP: `W ID` is a write, answered by
`A EPOCH ID` or, when it comes in during an outage, by `N ID`; both at once, because hundreds of refusals
held back until the end would stand before the first acceptance in the client's queue, and what was then
measured would be that queue. `D NS F1 F2 F3 F4` asks for an outage
of NS nanoseconds whose phases end at those fractions, answered by `T` at once and by `R` when the first new
write was accepted. `events.jsonl` is what a target reports (detected, responded, recovered, validated),
`truth.jsonl` what only the calibration reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path

import msgspec

EVENTS = ("detected", "responded", "recovered", "validated")


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """One outage as it really was: the six stamps, by the target's own monotonic clock."""

    outage_ns: int
    stamps_ns: tuple[int, ...]


class Program:
    """The service. Writes that come while it is `down` are refused."""

    def __init__(self, folder: Path) -> None:
        self.epoch = 1
        self.down = False
        self.first: asyncio.Future[int] | None = None
        self._events = (folder / "events.jsonl").open("wb", buffering=0)
        self._truth = (folder / "truth.jsonl").open("wb", buffering=0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it ends."""
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                word, _, rest = line.strip().partition(b" ")
                if word == b"W":
                    self._write(writer, rest)
                elif word == b"D":
                    await self._outage(writer, [float(part) for part in rest.split()])
        writer.close()

    def _write(self, writer: asyncio.StreamWriter, name: bytes) -> None:
        if self.down:
            writer.write(b"N %b\n" % name)
            return
        if self.first is not None and not self.first.done():
            self.first.set_result(time.monotonic_ns())
        writer.write(b"A %d %b\n" % (self.epoch, name))

    async def _outage(self, writer: asyncio.StreamWriter, request: list[float]) -> None:
        length_ns, *fractions = request
        stamps = [time.monotonic_ns()]
        self.down = True
        writer.write(b"T\n")
        for name, fraction in zip(EVENTS, fractions, strict=True):
            await _until(stamps[0] + round(length_ns * fraction))
            stamps.append(self._report(name))
        await _until(stamps[0] + round(length_ns))
        stamps.append(await self._resume())
        self._truth.write(
            msgspec.json.encode(Truth(outage_ns=round(length_ns), stamps_ns=tuple(stamps))) + b"\n"
        )
        writer.write(b"R\n")

    async def _resume(self) -> int:
        """Come back as a new epoch; return when the first new write was accepted."""
        self.epoch += 1
        self.first = asyncio.get_running_loop().create_future()
        self.down = False
        try:
            return await self.first
        finally:
            self.first = None

    def _report(self, event: str) -> int:
        now = time.monotonic_ns()
        self._events.write(msgspec.json.encode({"event": event, "mono_ns": now, "epoch": self.epoch}) + b"\n")
        return now


async def _until(mono_ns: int) -> None:
    await asyncio.sleep((mono_ns - time.monotonic_ns()) / 1e9)


async def run(port: int, folder: Path) -> None:
    """Serve until killed."""
    program = Program(folder)
    server = await asyncio.start_server(program.serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), Path(sys.argv[2])))
