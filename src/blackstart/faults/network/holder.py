"""Our end of the process that holds a network fault (`host.netholder`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import blackstart
from blackstart.errors import FaultError
from blackstart.host import procs, refs
from blackstart.model.fault import ProcessRef, Undo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

_ANSWER_LIMIT_S = 10.0


class Holder:
    """A running one. Raises FaultError when it ended, or the kernel said no."""

    def __init__(self, process: asyncio.subprocess.Process, ref: ProcessRef) -> None:
        self._process, self.ref = process, ref
        self._turn = asyncio.Lock()

    @property
    def undo(self) -> Undo:
        """How the guardian ends it: its rules go with it."""
        arguments = msgspec.to_builtins(self.ref)
        return Undo(id=f"netholder:{self.ref.pid}", action="kill", arguments=arguments)

    async def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Have one thing done."""
        async with self._turn:
            assert self._process.stdin is not None
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(json.dumps({"do": do, **values}).encode() + b"\n")
            return await self._hear(do)

    async def _hear(self, do: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_ANSWER_LIMIT_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            raise FaultError("the process that holds the fault ended or hangs", where=f"{do}, {self.ref}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise FaultError(f"the kernel refused: {answer['error']}", where=f"packet filter: {do}")
        return answer

    async def close(self) -> None:
        """Let everything go and end it; idempotent."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_ANSWER_LIMIT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def start(protect: Callable[[Iterable[Undo]], Awaitable[None]]) -> Holder:
    """Start one, under protection before it does anything. Raises FaultError."""
    environment = {k: v for k, v in os.environ.items() if k != procs.MARKER}
    environment["PYTHONPATH"] = str(Path(blackstart.__file__).parents[1])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-s", "-m", "blackstart.host.netholder", str(os.getpid())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    ref = refs.reference(process.pid)
    if ref is None:
        raise FaultError("the process that holds network faults did not start", where="netholder")
    holder = Holder(process, ref)
    try:
        await protect([holder.undo])
        await holder._hear("start")  # noqa: SLF001 - it says by itself that it is ready
    except BaseException:
        await holder.close()
        raise
    return holder
