"""The workload process: drives the glue's `write` at a steady rate and keeps the ledger.

`python -m blackstart.target.workload_runner CONFIG`

Open loop: writes begin on schedule, whether or not earlier ones were answered; what an outage swallowed is
not made up for in a burst. Commands come on standard input as JSON lines; its end ends the process, as does
the death of its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from blackstart.target import glue
from blackstart.target.workload_ledger import Line

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_WAIT_S, LONGEST_WAIT_S = 0.005, 0.1
CATCH_UP_S = 0.01  # so much lateness of a timer is made up for, no more
LAST_ANSWERS_S = 2.0
ABANDON_S = 1.0

# The target's "no", so that the write must not be found later. A glue adds its library's own by `NO = (…)`.
# Every other error means
# that nobody knows: the write may or may not have happened.
REFUSED: tuple[type[BaseException], ...] = (ValueError,)


class Config(msgspec.Struct, kw_only=True):
    """What the process is told at its start."""

    glue: str
    ledger: str
    seed: int
    rate_per_s: float
    concurrency: int
    timeout_s: float
    settings: dict[str, Any]


class Command(msgspec.Struct, kw_only=True):
    """A line on standard input: one special write, new settings for the next connection, or the end."""

    submit: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None
    stop: bool = False


class Glue:
    """The glue's functions, with the defaults for those that may be missing."""

    def __init__(self, file: Path, rng: random.Random, seed: int) -> None:
        module = glue.load(file)
        self.connect = glue.function(module, "connect")
        self.write = glue.function(module, "write")
        self.refused = (*REFUSED, *getattr(module, "NO", ()))
        make: Callable[[int, random.Random], dict[str, Any]] | None = getattr(module, "make", None)
        self._make, self._rng, self._seed = make, rng, seed

    def make(self, n: int) -> dict[str, Any]:
        """Return the n-th record: the glue's, or an id and a random value."""
        if self._make is not None:
            return self._make(n, self._rng)
        return {"id": f"{self._seed}-{n}", "value": self._rng.getrandbits(48)}


class Runner:
    """Paces the writes, keeps the connection, writes the ledger.

    Each ledger line is one system call: a kill loses none.
    """

    def __init__(self, config: Config, functions: Glue, ledger: int) -> None:
        self.config, self.glue, self._ledger = config, functions, ledger
        self.settings = config.settings
        self._encode = msgspec.json.Encoder().encode
        self._connection: Any = None
        self._broken = asyncio.Event()
        self._under_way: dict[int, tuple[float, asyncio.Task[None]]] = {}
        self._count = 0
        self._complaint = ""
        self._unwritten: Exception | None = None
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until told to stop; then wait a moment for the last answers.

        Raises whatever kept an outcome from being written: an acknowledged write would stand there without
        one, as if nobody had answered.
        """
        tasks = [asyncio.create_task(job()) for job in (self._keep_connected, self._pace, self._give_up_late)]
        stopping = asyncio.create_task(self._stopped())
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        tasks[1].cancel()
        await self._last_answers()
        for task in tasks:
            task.cancel()
        for task in done - {stopping}:
            task.result()  # a job only ends by an error of the glue: show it
        if self._unwritten is not None:
            raise self._unwritten

    async def _stopped(self) -> None:
        await self.stopping.wait()

    def submit(self, record: dict[str, Any]) -> None:
        """Write one record now."""
        self._count += 1
        number = self._count
        self._note(Line(n=number, mono_ns=time.monotonic_ns(), record=record))
        task = asyncio.create_task(self._write(number, self._connection, record))
        self._under_way[number] = (time.monotonic(), task)
        # One that is cancelled before its first step runs none of its own code.
        task.add_done_callback(lambda _: self._outcome(number, "info", error="given up before it was sent"))

    async def _pace(self) -> None:
        interval = 1.0 / self.config.rate_per_s
        due = time.monotonic()
        while True:
            due = max(due + interval, time.monotonic() - CATCH_UP_S)
            if (delay := due - time.monotonic()) > 0:
                await asyncio.sleep(delay)
            if self._connection is not None and len(self._under_way) < self.config.concurrency:
                self.submit(self.glue.make(self._count + 1))

    async def _write(self, number: int, connection: Any, record: dict[str, Any]) -> None:
        try:
            if connection is None:
                raise ConnectionError("not connected")  # noqa: TRY301 - one place decides what an error means
            data = await self.glue.write(connection, record)
        except self.glue.refused as error:
            self._outcome(number, "fail", error=f"{type(error).__name__}: {error}")
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it was: no answer
            self._outcome(number, "info", error=f"{type(error).__name__}: {error}")
            if connection is self._connection:
                self._broken.set()
        else:
            self._outcome(number, "ok", data=data)

    def _outcome(
        self,
        number: int,
        outcome: Literal["ok", "info", "fail"],
        *,
        data: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        if self._under_way.pop(number, None) is None:
            return  # it was abandoned, and that is written
        moment = time.monotonic_ns()
        try:
            self._note(Line(n=number, mono_ns=moment, outcome=outcome, data=data, error=error))
        except Exception as failed:  # noqa: BLE001 - a full disk, or data that are no JSON: no load without ledger
            self._unwritten = self._unwritten or failed
            self.stopping.set()

    def _note(self, line: Line) -> None:
        text = self._encode(line) + b"\n"
        if os.write(self._ledger, text) < len(text):
            raise OSError(errno.ENOSPC, "only a part of the line was written")

    async def _keep_connected(self) -> None:
        connections = 0
        while True:
            connection = await self._connect()
            connections += 1
            self._broken.clear()
            self._connection = connection
            self._note(Line(mono_ns=time.monotonic_ns(), connected=connections))
            await self._broken.wait()
            self._connection = None
            # A client library may connect anew by itself and send what still waited in it, beside the new
            # connection: the order of two connections promises nothing. Such writes have no answer.
            self._cancel_all()
            await _close(connection)
            await self._abandon()

    async def _connect(self) -> Any:
        wait = FIRST_WAIT_S
        while True:
            try:
                return await self.glue.connect(self.settings)
            except Exception as error:  # noqa: BLE001 - a target that is down may answer with anything
                self._complain(error)
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT_S)

    def _complain(self, error: Exception) -> None:
        """Say in the log why there is no connection; the same reason once."""
        reason = f"{type(error).__name__}: {error}"
        if reason != self._complaint:
            sys.stderr.write(f"cannot connect: {reason}\n")
        self._complaint = reason

    async def _give_up_late(self) -> None:
        """Give up on a connection where a write waits longer than `timeout_s`, whatever TCP believes."""
        while True:
            await asyncio.sleep(self.config.timeout_s / 20)
            oldest = next(iter(self._under_way.values()), None)
            if oldest is not None and time.monotonic() - oldest[0] > self.config.timeout_s:
                self._cancel_all()
                self._broken.set()

    async def _last_answers(self) -> None:
        tasks = [task for _, task in self._under_way.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_ANSWERS_S)
            self._cancel_all()
            await asyncio.wait(tasks, timeout=LAST_ANSWERS_S)

    async def _abandon(self) -> None:
        """Wait no longer for writes that a client library does not give up: they would hold up the load."""
        tasks = {task: number for number, (_, task) in self._under_way.items()}
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=ABANDON_S)
            for task in stuck:
                self._outcome(tasks[task], "info", error="abandoned: the client library does not give it up")

    def _cancel_all(self) -> None:
        for _, task in self._under_way.values():
            task.cancel()


async def _close(connection: Any) -> None:
    """Close a connection by whichever way it offers; it is broken anyway."""
    closing = getattr(connection, "aclose", None) or getattr(connection, "close", None)
    if closing is None:
        return
    with contextlib.suppress(Exception):
        result = closing()
        if inspect.isawaitable(result):
            async with asyncio.timeout(ABANDON_S):
                await result


async def obey(runner: Runner) -> None:
    """Carry out the commands on standard input; its end means that nobody wants the load any more."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    decoder = msgspec.json.Decoder(Command)
    while line := await reader.readline():
        command = decoder.decode(line)
        if command.settings is not None:
            runner.settings = command.settings
        if command.submit is not None:
            runner.submit(command.submit)
        if command.stop:
            break
    runner.stopping.set()


async def work(config: Config) -> None:
    """Run the workload that `config` describes."""
    functions = Glue(Path(config.glue), random.Random(config.seed), config.seed)
    ledger = os.open(config.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    runner = Runner(config, functions, ledger)
    commands = asyncio.create_task(obey(runner))
    try:
        await runner.run()
    finally:
        commands.cancel()
        os.close(ledger)


def main(arguments: list[str]) -> None:
    """Entry point of the process."""
    config = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Config)
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - faster where it is there, not needed

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(work(config))


if __name__ == "__main__":
    main(sys.argv[1:])
