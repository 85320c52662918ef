"""The workload as Blackstart sees it: a process of its own, a ledger, and a pipe for commands."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.errors import TargetError
from blackstart.target import glue, ledger, spawn, workload_ledger
from blackstart.target.spawn import Child, Launch
from blackstart.target.workload_runner import Command, Config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from blackstart.model.manifest import Manifest
    from blackstart.model.record import LedgerFile
    from blackstart.target.ledger import Row

START_LIMIT_S = 30.0
STOP_LIMIT_S = 6.0
_POLL_S = 0.002


class WorkloadProcess:
    """Implements Workload and KeepsLedger of `blackstart.contracts`.

    `settings` is asked for when they may have changed.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        run_dir: Path,
        seed: int,
        settings: Callable[[], dict[str, Any]],
        spawn: Callable[[Launch], Awaitable[Child]],
    ) -> None:
        self._manifest, self._run_dir, self._seed = manifest, run_dir, seed
        self._settings, self._spawn = settings, spawn
        self._told: dict[str, Any] = {}
        self._child: Child | None = None
        self._started = asyncio.Event()
        self._stopping = self._end_told = False
        self.ledger = run_dir / "workload.jsonl"

    @property
    def running(self) -> bool:
        """The load is on."""
        return self._child is not None and self._child.running

    @property
    def stopping(self) -> bool:
        """It was told to end."""
        return self._stopping

    async def start(self) -> None:
        """Begin; return when the first connection stands.

        Raises TargetError with the end of the log when it does not come.
        """
        self._stopping = self._end_told = False
        self._child = await self._spawn(self._launch(self._config()))
        self._child.release()
        loop = asyncio.get_running_loop()
        limit = loop.time() + START_LIMIT_S
        while not (self.ledger.exists() and self.ledger.stat().st_size):
            log = self._child.launch.log
            if self._child.exited.is_set():
                child, self._child = self._child, None
                await child.end(0.5)
                raise _ended(child, "at once")
            if loop.time() > limit:
                hint = f"settings: {self._told}; {spawn.tail(log)}"
                raise TargetError(
                    f"the workload did not connect within {START_LIMIT_S:g} s", where=str(log), hint=hint
                )
            await asyncio.sleep(_POLL_S)
        self._started.set()

    async def ended(self) -> tuple[int, str]:
        """Wait until the load ends though nobody told it to; return when that was (monotonic), and how."""
        await self._started.wait()
        child = self._child
        if child is not None:
            await child.exited.wait()
        if child is None or self._stopping or child.exited_mono_ns is None:
            await asyncio.Event().wait()  # it was told to: nobody needs to hear of that
        assert child is not None
        assert child.exited_mono_ns is not None
        self._end_told = True
        error = _ended(child, "by itself", lines=1)
        return child.exited_mono_ns, f"{error.what}: {error.hint}" if error.hint else error.what

    async def submit(self, record: Mapping[str, Any]) -> None:
        """Send one special write through the same client.

        Raises TargetError when the workload does not run.
        """
        self._tell(Command(submit=dict(record)))

    def refresh(self) -> None:
        """Tell the workload its settings when they have changed (a target that came back on other ports)."""
        settings = self._settings()
        if self.running and settings != self._told:
            self._told = settings
            self._tell(Command(settings=settings))

    async def stop(self) -> None:
        """Stop sending, wait for answers that are under way, keep the ledger; idempotent.

        Raises TargetError when the load had ended before, and nobody was told (`ended`), or ends with an
        error: its ledger may lack what was acknowledged last.
        """
        child = self._child
        if child is None:
            return
        self._stopping = True
        before = child.exited.is_set()
        if child.running:
            with contextlib.suppress(TargetError):
                self._tell(Command(stop=True))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_LIMIT_S):
                    await child.exited.wait()
        status = child.popen.returncode
        self._child = None
        await child.end(0.5)
        if (before and not self._end_told) or (status and not before):
            raise _ended(child, "by itself" if before else "with an error", lines=1)

    async def export(self, stream: str, folder: Path) -> LedgerFile:
        """Write everything that was sent, with its outcome, as the acknowledged side of a stream."""
        return await ledger.write(stream, "acknowledged", folder, self._rows(stream))

    async def total(self) -> int:
        """Return how many writes were acknowledged so far."""
        return sum(1 for write in workload_ledger.read(self.ledger) if write.outcome == "ok")

    async def _rows(self, stream: str) -> AsyncIterator[Row]:
        spec = self._manifest.streams[stream]
        for write in workload_ledger.read(self.ledger):
            yield workload_ledger.row(write, spec, stream)

    def _config(self) -> Path:
        spec = self._manifest.workload
        assert spec is not None
        self._told = self._settings()
        config = Config(
            glue=str(glue.path(self._manifest)),
            ledger=str(self.ledger),
            seed=self._seed,
            rate_per_s=spec.rate_per_s,
            concurrency=spec.concurrency,
            timeout_s=spec.timeout_s,
            settings=self._told,
        )
        path = self._run_dir / "workload.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(config)))
        return path

    def _launch(self, config: Path) -> Launch:
        return Launch(
            name="workload",
            argv=(sys.executable, "-m", "blackstart.target.workload_runner", str(config)),
            log=self._run_dir / "logs" / "workload.log",
            marker=f"{self._run_dir}:workload",
            folder=self._run_dir,
            stdin=True,
        )

    def _tell(self, command: Command) -> None:
        if not self.running or self._child is None or self._child.popen.stdin is None:
            raise TargetError("the workload does not run", where=str(self.ledger))
        try:
            self._child.popen.stdin.write(msgspec.json.encode(command) + b"\n")
            self._child.popen.stdin.flush()
        except OSError as error:
            raise TargetError(f"the workload does not listen: {error}", where=str(self.ledger)) from error


def _ended(child: Child, how: str, *, lines: int = 8) -> TargetError:
    """Say how the load ended, with the last lines of its log: one says why, more also where."""
    log = child.launch.log
    what = f"the workload ended {how} (status {child.popen.returncode})"
    return TargetError(what, where=str(log), hint=spawn.tail(log, lines))
