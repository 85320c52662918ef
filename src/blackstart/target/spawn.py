"""Processes that Blackstart starts: each in a session of its own, bound to our life.

Protected before it exists.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Literal

import msgspec

from blackstart.errors import TargetError
from blackstart.host import procs
from blackstart.host.death import DeathNotice
from blackstart.model.fault import ProcessRef, Undo
from blackstart.target import launcher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from blackstart.contracts import Clock

KILL_LIMIT_S = 5.0
"""How long the kernel may take to end processes after SIGKILL: it frees their memory first."""


_starts = itertools.count(1)


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What to start.

    `log` gets both outputs, `marker`, numbered, is found again in the environment of all descendants.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    marker: str
    environment: dict[str, str] = {}
    folder: Path | None = None
    user: Literal["same", "unprivileged"] = "same"
    stdin: bool = False
    stop_signal: Literal["TERM", "INT", "QUIT"] = "TERM"


class Child:
    """One started process.

    It waits at its gate until `release`; `exited` is set by the kernel's notice (pidfd).
    """

    def __init__(self, launch: Launch, clock: Clock) -> None:
        self.launch = launch
        self.exited_mono_ns: int | None = None
        # One for each start: what an earlier one left behind is cleared without touching the spare that
        # waits.
        self.marker = f"{launch.marker}#{next(_starts)}"
        self.popen, self._gate = _launch(launch, self.marker)
        found = procs.stat(self.popen.pid)
        assert found is not None, "a child that was not waited for keeps its entry"
        self.ref = ProcessRef(found.pid, found.start_ticks)
        self.exited = asyncio.Event()
        self.on_exit: Callable[[Child], None] | None = None
        DeathNotice(self.ref, clock, self._gone, unwaited=True)

    @property
    def undo(self) -> Undo:
        """How the guardian ends this process and all that belongs to it."""
        arguments = {**msgspec.to_builtins(self.ref), "group": True, "marker": self.marker}
        return Undo(id=f"process:{self.launch.name}:{self.ref.pid}", action="kill", arguments=arguments)

    @property
    def running(self) -> bool:
        """Released and not yet ended."""
        return self._gate is None and not self.exited.is_set()

    def release(self) -> None:
        """Let the launcher become the real program."""
        assert self._gate is not None, "released once"
        os.write(self._gate, b"g")
        os.close(self._gate)
        self._gate = None

    async def end(self, limit_s: float) -> None:
        """End it.

        Its stop signal, after `limit_s` SIGKILL, then whatever it left behind. Raises TargetError when
        something survives.
        """
        if self._gate is not None:
            os.close(self._gate)
            self._gate = None
        elif not self.exited.is_set():
            with contextlib.suppress(PermissionError):  # it became another user: who survives is told below
                self.popen.send_signal(signal.Signals[f"SIG{self.launch.stop_signal}"])
        await _wait(self.exited, limit_s)
        await self.clear()
        await _wait(self.exited, KILL_LIMIT_S)
        if self.popen.stdin:
            self.popen.stdin.close()

    async def clear(self, *, quickly: bool = False) -> None:
        """Kill everything that still belongs to this process, and see it gone.

        `quickly` looks at the processes born after it only: the time counts in a recovery. Raises TargetError
        naming survivors.
        """
        loop = asyncio.get_running_loop()
        limit = loop.time() + KILL_LIMIT_S
        while members := procs.family(self.ref.pid, self.ref.start_ticks, self.marker, young=quickly):
            if loop.time() > limit:
                pids = ", ".join(str(member.pid) for member in members)
                raise TargetError(f"processes survive SIGKILL: {pids}", where=self.launch.name)
            for member in members:
                procs.send(member, signal.SIGKILL)
            await asyncio.sleep(0.002)

    def _gone(self, mono_ns: int) -> None:
        self.exited_mono_ns = mono_ns
        self.popen.wait()  # it has ended: this only collects its status
        self.exited.set()
        if self.on_exit is not None:
            self.on_exit(self)


def environment(launch: Launch, marker: str, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a started process.

    It sees which run it belongs to, and prints without delay.
    """
    return {**base, "PYTHONUNBUFFERED": "1", **launch.environment, procs.MARKER: marker}


def _launch(launch: Launch, marker: str) -> tuple[subprocess.Popen[bytes], int | None]:
    launch.log.parent.mkdir(parents=True, exist_ok=True)
    inside, outside = os.pipe()
    prefix = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), str(inside), launch.user]
    try:
        with launch.log.open("ab") as log:
            popen = subprocess.Popen(
                [*prefix, *launch.argv],
                stdin=subprocess.PIPE if launch.stdin else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(launch, marker, os.environ),
                cwd=launch.folder,
                pass_fds=(inside,),
                start_new_session=True,
            )
    except BaseException:
        os.close(outside)
        raise
    finally:
        os.close(inside)
    return popen, outside


async def _wait(event: asyncio.Event, limit_s: float) -> bool:
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


def tail(log: Path, lines: int = 8, *, since: int = 0) -> str:
    """Return the last lines of a log after byte `since`, for an error message."""
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(since, size - 8192))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
