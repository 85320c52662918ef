"""Blackstart as the operator of the target's processes: starts them, waits until they are ready.

Starts them again, ends them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from blackstart.errors import TargetError
from blackstart.host import refs
from blackstart.host.listeners import listeners
from blackstart.model.record import ProcessSeen
from blackstart.target import readiness, spawn
from blackstart.target.spawn import Child, Launch
from blackstart.target.variables import expand, names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Literal

    from blackstart.contracts import Clock, Protect, Sink
    from blackstart.model.fault import LaunchChange, ProcessRef
    from blackstart.model.manifest import Manifest, Process, Ready


class Operator:
    """The processes of one manifest. `values` are the variables; an endpoints file adds its process's own."""

    def __init__(
        self,
        manifest: Manifest,
        *,
        run_dir: Path,
        values: dict[str, Any],
        clock: Clock,
        sink: Sink,
        protect: Protect,
    ) -> None:
        self.manifest = manifest
        self.run_dir = run_dir
        self.values = values
        self.changes: list[LaunchChange] = []
        """What faults need changed in the start of every process."""
        self._clock, self._sink, self._protect = clock, sink, protect
        self._children: dict[str, Child] = {}
        self._spares: dict[str, Child] = {}
        self._prepared: set[str] = set()
        self._closing = False
        self._ends: dict[ProcessRef, int] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def start(self, name: str) -> None:
        """Start a process of the manifest and wait until it is ready.

        A running one is left alone: of two that ask at once, the second finds it running. Raises TargetError.
        """
        async with self._turns.setdefault(name, asyncio.Lock()):
            await self._start(name)

    async def _start(self, name: str) -> None:
        process = self._process(name)
        before = self._children.get(name)
        if before is not None and before.running:
            if refs.alive(before.ref):
                return
            await before.exited.wait()  # somebody else heard of its end before we did
        self._seen(name, "starting", before.ref.pid if before else 0)
        if before is not None:
            await before.clear(quickly=True)
        await self._prepare(name, process)
        child = await self._waiting_child(name, process)
        await self._run(name, process, child)
        if process.restart == "blackstart" and not self._closing:
            self._spares[name] = await self.spawn(self._launch(name, process))

    def child(self, name: str) -> Child:
        """Return the running child of a process. Raises TargetError when there is none."""
        child = self._children.get(name)
        if child is None or not child.running:
            raise TargetError("is not running", where=name, hint=f"its log: {self._log(name)}")
        return child

    def owns(self, ref: Any) -> bool:
        """Say whether a process is one that was started here."""
        return any(child.ref == ref for child in self._children.values())

    def name_of(self, ref: Any) -> str | None:
        """Return the manifest's name of a process that was started here; None for any other."""
        return next((name for name, child in self._children.items() if child.ref == ref), None)

    async def ended_with(self, ref: ProcessRef) -> int | None:
        """Return the status of a process that was started here; None for any other, and while it lives."""
        child = next((one for one in self._children.values() if one.ref == ref), None)
        if child is not None and not refs.alive(ref):
            await child.exited.wait()  # somebody else heard of its end before we did
        return self._ends.get(ref)

    def state_paths(self, name: str) -> list[Path]:
        """Return what a cold restart of the process wipes."""
        paths = self._process(name).state
        return [Path(expand(path, self.values, where=f"processes.{name}.state")) for path in paths]

    async def spawn(self, launch: Launch) -> Child:
        """Start a child that waits at its gate, under the guardian's protection."""
        child = Child(launch, self._clock)
        try:
            await self._protect([child.undo])
        except BaseException:
            await child.end(0.0)
            raise
        return child

    async def close(self) -> None:
        """End everything in reverse order; idempotent.

        Raises TargetError after all was tried, when something survived.
        """
        self._closing = True
        await asyncio.gather(*(spare.end(0.1) for spare in self._spares.values()))
        self._spares.clear()
        problems = []
        for name, child in reversed(list(self._children.items())):
            try:
                await child.end(self._process(name).stop_limit_s)
            except TargetError as error:
                problems.append(error.render())
        self._children.clear()
        if problems:
            raise TargetError("; ".join(problems))

    async def _waiting_child(self, name: str, process: Process) -> Child:
        """Return the spare that already waits, if it still fits; else a new one."""
        launch = self._launch(name, process)
        spare = self._spares.pop(name, None)
        if spare is not None and not spare.exited.is_set():
            if spare.launch == launch:
                return spare
            await spare.end(0.1)
        return await self.spawn(launch)

    async def _run(self, name: str, process: Process, child: Child) -> None:
        endpoints = self._endpoints(name)
        if not _own_variables(name, process.ready):
            ready = self._ready(name, process.ready)
            await self._refuse_taken(name, ready)
            _remove(ready.file)
        _remove(endpoints)
        log = child.launch.log
        since = log.stat().st_size
        self._children[name] = child
        child.on_exit = lambda child: self._exited(name, child)
        child.release()
        self._seen(name, "started", child.ref.pid)
        checking = self._checking(name, process.ready, endpoints, log, since)
        asked_ns = await self._until_ready(name, child, checking, process.ready.limit_s, since)
        now = self._clock.now().mono_ns
        self._seen(name, "ready", child.ref.pid, mono_ns=now, uncertainty_ns=now - asked_ns)

    async def _until_ready(
        self, name: str, child: Child, checking: Callable[[], Awaitable[bool]], limit_s: float, since: int
    ) -> int:
        """Ask until the answer is yes; return when the last no was asked for: the change came after that."""
        started = last = self._clock.now().mono_ns
        while True:
            asked = self._clock.now().mono_ns
            if await checking():
                return last
            last = asked
            if child.exited.is_set():
                what = f"ended before it was ready (status {child.popen.returncode})"
                raise TargetError(what, where=name, hint=_log_hint(child.launch.log, since))
            if asked - started > limit_s * 1e9:
                raise TargetError(
                    f"not ready after {limit_s:g} s", where=name, hint=_log_hint(child.launch.log, since)
                )
            await asyncio.sleep(readiness.POLL_S)

    async def _refuse_taken(self, name: str, ready: Ready) -> None:
        """Somebody else on our port would look like a ready target: refuse, and say who it is."""
        address = ready.tcp or (urlsplit(ready.url).netloc if ready.url else None)
        if address is None or ":" not in address or not await readiness.tcp_accepts(address):
            return
        who = ", ".join(listeners(int(address.rpartition(":")[2]))) or "somebody else"
        hint = 'end it, or let Blackstart choose a free port: `ports = ["…"]` and `{port.…}`'
        raise TargetError(f"port {address} is taken by {who}", where=name, hint=hint)

    async def _prepare(self, name: str, process: Process) -> None:
        """Run the `prepare` command before the first start, and again when the state is gone."""
        if not process.prepare:
            return
        if name in self._prepared and all(path.exists() for path in self.state_paths(name)):
            return
        argv = self._argv(name, "prepare", process.prepare)
        launch = msgspec.structs.replace(self._launch(name, process), name=f"{name}-prepare", argv=argv)
        child = await self.spawn(launch)
        child.release()
        try:
            async with asyncio.timeout(process.ready.limit_s):
                await child.exited.wait()
        except TimeoutError:
            pass
        finally:
            await child.end(1.0)
        if child.popen.returncode != 0:
            what = f"`{argv[0]}` failed (status {child.popen.returncode})"
            raise TargetError(what, where=f"{name}.prepare", hint=_log_hint(launch.log, 0))
        self._prepared.add(name)

    def _launch(self, name: str, process: Process) -> Launch:
        where = f"processes.{name}.environment"
        prefix = tuple(part for change in self.changes for part in change.prefix)
        own = {key: expand(text, self.values, where=where) for key, text in process.environment.items()}
        added = {key: text for change in self.changes for key, text in change.environment.items()}
        return Launch(
            name=name,
            argv=(*prefix, *self._argv(name, "command", process.command)),
            log=self._log(name),
            marker=f"{self.run_dir}:{name}",
            environment={**own, **added},
            folder=self.run_dir,
            user=process.user,
            stop_signal=process.stop_signal,
        )

    def _argv(self, name: str, key: str, command: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(expand(part, self.values, where=f"processes.{name}.{key}") for part in command)

    def _ready(self, name: str, ready: Ready) -> Ready:
        texts = {key: getattr(ready, key) for key in ("file", "url", "tcp", "log")}
        where = f"processes.{name}.ready"
        found = {
            key: expand(text, self.values, where=where) for key, text in texts.items() if text is not None
        }
        return msgspec.structs.replace(ready, **found)

    def _checking(
        self, name: str, ready: Ready, endpoints: Path | None, log: Path, since: int
    ) -> Callable[[], Awaitable[bool]]:
        """Return the question whether a process is ready.

        Its endpoints file comes first: the question may need its values.
        """
        ask: Callable[[], Awaitable[bool]] | None = None

        async def checking() -> bool:
            nonlocal ask
            if ask is None:
                if not self._read_endpoints(name, endpoints):
                    return False
                ask = readiness.check(self._ready(name, ready), log, since)
            return await ask()

        return checking

    def _endpoints(self, name: str) -> Path | None:
        text = self._process(name).endpoints
        return None if text is None else Path(expand(text, self.values, where=f"processes.{name}.endpoints"))

    def _read_endpoints(self, name: str, path: Path | None) -> bool:
        """Take over what the process tells of itself; False while it has not told yet."""
        if path is None:
            return True
        try:
            self.values[name] = msgspec.json.decode(path.read_bytes())
        except FileNotFoundError:
            return False
        except (OSError, msgspec.DecodeError) as error:
            raise TargetError(f"its endpoints file cannot be read: {error}", where=name) from None
        return True

    def _log(self, name: str) -> Path:
        return self.run_dir / "logs" / f"{name}.log"

    def _process(self, name: str) -> Process:
        try:
            return self.manifest.processes[name]
        except KeyError:
            raise TargetError(f"the manifest has no process `{name}`", where=self.manifest.name) from None

    def _components(self, name: str) -> list[str]:
        """Return the components that are this very process; the process's own name when there is none."""
        found = [key for key, component in self.manifest.components.items() if component.process == name]
        return found or [name]

    def _exited(self, name: str, child: Child) -> None:
        self._ends[child.ref] = child.popen.returncode
        if not self._closing:
            detail = {"status": child.popen.returncode}
            self._seen(name, "exited", child.ref.pid, mono_ns=child.exited_mono_ns, detail=detail)

    def _seen(
        self,
        name: str,
        what: Literal["exited", "starting", "started", "ready"],
        pid: int,
        *,
        mono_ns: int | None = None,
        uncertainty_ns: int = 0,
        detail: dict[str, Any] | None = None,
    ) -> None:
        moment = self._clock.now().mono_ns if mono_ns is None else mono_ns
        for component in self._components(name):
            record = ProcessSeen(
                component=component,
                what=what,
                pid=pid,
                mono_ns=moment,
                uncertainty_ns=uncertainty_ns,
                detail=detail or {},
            )
            self._sink(record)


def _own_variables(name: str, ready: Ready) -> bool:
    """Say whether the question needs values that only the process itself can tell."""
    return any(variable.split(".")[0] == name for variable in names(msgspec.to_builtins(ready)))


def _remove(path: str | Path | None) -> None:
    """Remove a file of the life before: it must not make the new one look ready."""
    if path is not None:
        Path(path).unlink(missing_ok=True)


def _log_hint(log: Path, since: int) -> str:
    lines = spawn.tail(log, since=since)
    return f"{log} ends with:\n{lines}" if lines else f"{log} is empty"
