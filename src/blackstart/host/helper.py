"""Our end of a small process that breaks links (`host.netholder`, `host.proxy`), spoken to in JSON lines."""

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
_QUICK = {"netholder": ("-S", "-s")}  # it needs no packages


class Helper:
    """A running one. Raises FaultError when it ended, or the kernel said no."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, ref: ProcessRef) -> None:
        self.name, self._process, self.ref = name, process, ref
        self._turn = asyncio.Lock()

    @property
    def undo(self) -> Undo:
        """How the guardian ends it: what it holds goes with it."""
        arguments = msgspec.to_builtins(self.ref)
        return Undo(id=f"{self.name}:{self.ref.pid}", action="kill", arguments=arguments)

    async def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Have one thing done. Raises FaultError, also when it was ended (the kill switch ends them all)."""
        async with self._turn:
            assert self._process.stdin is not None
            if not self._process.stdin.is_closing():  # uvloop takes it for an error to write then
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
            raise FaultError("ended or hangs", where=f"{self.name} ({do})")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise FaultError(f"the kernel says: {answer['error']}", where=f"{self.name}: {do}")
        return answer

    def let_go(self) -> None:
        """Have it let everything go and end by itself, without waiting for that; idempotent."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def close(self) -> None:
        """Let everything go and see it end; idempotent."""
        self.let_go()
        try:
            async with asyncio.timeout(_ANSWER_LIMIT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def start(name: str, protect: Callable[[Iterable[Undo]], Awaitable[None]]) -> Helper:
    """Start `blackstart.host.NAME`, under protection before it does anything. Raises FaultError."""
    environment = {k: v for k, v in os.environ.items() if k != procs.MARKER}
    environment["PYTHONPATH"] = str(Path(blackstart.__file__).parents[1])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *_QUICK.get(name, ()), "-m", f"blackstart.host.{name}", str(os.getpid())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    ref = refs.reference(process.pid)
    if ref is None:
        raise FaultError("did not start", where=name)
    helper = Helper(name, process, ref)
    try:
        await protect([helper.undo])
        await helper._hear("start")  # noqa: SLF001 - it says by itself that it is ready
    except BaseException:
        await helper.close()
        raise
    return helper
