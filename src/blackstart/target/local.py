"""A target whose processes run on this host, started by Blackstart or found by it, or on others (`hosts`)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackstart.errors import TargetError
from blackstart.host import procs, refs
from blackstart.host.death import DeathNotice
from blackstart.model.record import ProcessSeen
from blackstart.target import data, glue, http, links, needs, ports, reshape, sql, streams
from blackstart.target.hosts import Hosts
from blackstart.target.managed import Managed
from blackstart.target.operator import Operator
from blackstart.target.proxies import Proxies
from blackstart.target.variables import expand, expand_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from blackstart.contracts import Clock, Hold, Protect, Sink
    from blackstart.model.data import Region
    from blackstart.model.fault import LaunchChange, ProcessRef
    from blackstart.model.manifest import Component, Manifest
    from blackstart.model.record import LedgerFile


class LocalTarget:
    """Implements Target, HasProcesses, Restartable, HasState, HasData, HasDatabases, HasLinks of `contracts`.

    And HasHosts, by `hosts`.

    Everything seen goes to `sink`; every process is put under `protect` before it runs. `on_restart` is
    called when a process was started again: its endpoints may have changed.
    """

    def __init__(
        self, manifest: Manifest, *, run_dir: Path, seed: int, clock: Clock, sink: Sink, protect: Protect
    ) -> None:
        self.name = manifest.name
        self.manifest = manifest
        self.run_dir = run_dir.resolve()
        self.seed, self.clock, self.sink = seed, clock, sink
        self.on_restart: list[Callable[[], None]] = []
        self.values: dict[str, Any] = {
            "run": str(self.run_dir),
            "seed": seed,
            "python": sys.executable,
            "here": manifest.folder,
        }
        self.operator = Operator(
            manifest, run_dir=self.run_dir, values=self.values, clock=clock, sink=sink, protect=protect
        )
        self.managed = Managed(manifest, clock=clock, sink=sink, protect=protect)
        self.proxies = Proxies(manifest, self.values, protect)
        self.hosts = Hosts(
            manifest,
            lambda text, where: self.expand(text, where=where),
            self._pid_of_url,
            run=self.run_dir,
            clock=clock,
            sink=sink,
            protect=protect,
        )
        self._deaths: dict[ProcessRef, tuple[DeathNotice, asyncio.Event]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._connections: dict[str, http.Connection] = {}
        self._finder: glue.Finder | None = None

    async def open(self) -> None:
        """Connect to other hosts, start every process in the order of the manifest, then what runs there.

        When one does not come up, what was started is ended again. Raises TargetError, also when a program
        of [needs] is not installed.
        """
        needs.refuse_missing(self.manifest)
        await self.managed.attach()
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.values["port"] = ports.allocate(self.manifest.ports, random.SystemRandom())
        try:
            await self.hosts.connect()
            await self.proxies.start()
            await self.proxies.lead()
            for name in self.manifest.processes:
                await self.operator.start(name)
                await self.proxies.lead()
            await self.hosts.bring_up()
        except BaseException:
            with contextlib.suppress(TargetError):
                await self.close()
            raise

    async def close(self) -> None:
        """End everything that `open` started, in reverse order; idempotent.

        Raises TargetError naming survivors.
        """
        for notice, _ in self._deaths.values():
            notice.close()
        self._deaths.clear()
        for connection in self._connections.values():
            connection.close()
        try:
            await self.hosts.close()
        finally:
            await self._close_here()

    async def _close_here(self) -> None:
        try:
            await self.operator.close()
        finally:
            await self.proxies.close()

    async def process(self, component: str) -> ProcessRef:
        """Return the process behind a component right now, looked up anew each time.

        Raises TargetError when there is none, or when it runs on another host.
        """
        spec = self._component(component)
        if spec.host is not None:
            raise TargetError(f"runs on host `{spec.host}`, not here", where=f"components.{component}")
        if component in self.managed:
            return await self.managed.process(component)
        if spec.process is not None:
            return self.operator.child(spec.process).ref
        if spec.glue is not None:
            return await self._found_by_glue(component, spec.glue)
        if spec.match is not None:
            return self._matching(component, spec.match)
        pid = self._pid_of_file(component, spec) if spec.pid_file else await self._pid_of_url(component, spec)
        return self._running(component, pid)

    def started_as(self, ref: ProcessRef) -> str | None:
        """See `contracts.KnowsItsOwn`."""
        return self.operator.name_of(ref)

    async def ended_with(self, component: str, ref: ProcessRef) -> int | None:
        """See `contracts.TellsEnds`."""
        if component in self.managed:
            return await self.managed.ended_with(component)
        return await self.operator.ended_with(ref)

    async def _found_by_glue(self, component: str, name: str) -> ProcessRef:
        """Ask the glue who has the role now: it answers with a pid, or with a process of the manifest."""
        where = f"components.{component}.glue"
        self._finder = self._finder or glue.Finder(glue.load(glue.path(self.manifest)))
        try:
            found = await self._finder.ask(name, self.settings())
        except Exception as error:
            what = f"`{name}` failed: {type(error).__name__}: {error}"
            raise TargetError(what, where=where) from error
        if isinstance(found, str):
            return self.operator.child(found).ref
        if not isinstance(found, int) or isinstance(found, bool) or found <= 0:
            raise TargetError(f"`{name}` returned {found!r}, neither a pid nor a process", where=where)
        return self._running(component, found)

    def _matching(self, component: str, match: str) -> ProcessRef:
        where = f"components.{component}.match"
        pattern = self.expand(match, where=where)
        found = procs.matching(pattern)
        if len(found) != 1:
            listed = "; ".join(f"{one.pid}: {line[:80]}" for one, line in found[:5])
            raise TargetError(f"`{pattern}` matches {len(found)} processes, not one ({listed})", where=where)
        return self._running(component, found[0][0].pid)

    def _running(self, component: str, pid: int) -> ProcessRef:
        found = refs.reference(pid)
        if found is None:
            raise TargetError(f"pid {pid} is not running", where=f"components.{component}")
        return found

    async def watch(self, component: str) -> ProcessRef:
        """Have the kernel tell the death of the component's present process (pidfd).

        Recorded as ProcessSeen exited.

        Processes started here are watched anyway. Raises TargetError when there is no process.
        """
        ref = await self.process(component)
        if ref in self._deaths or self.operator.owns(ref):
            return ref
        try:
            notice = DeathNotice(ref, self.clock, functools.partial(self._gone, component, ref))
        except ProcessLookupError:
            raise TargetError(f"pid {ref.pid} ended", where=f"components.{component}") from None
        self._deaths[ref] = (notice, asyncio.Event())
        return ref

    async def death(self, ref: ProcessRef) -> None:
        """Wait until a watched process has ended."""
        if ref in self._deaths:
            await self._deaths[ref][1].wait()

    async def hold(self, component: str, told: Callable[[int], None]) -> Hold:
        """See `contracts.HasHosts`."""
        self._component(component)
        return await self.hosts.hold(component, told)

    async def measure(self, component: str) -> Mapping[str, Any] | None:
        """See `contracts.HasHosts`."""
        return await self.hosts.measure(component)

    async def start(self, process: str) -> None:
        """Start a process of the manifest, a unit or container, or a component on its host; wait for it.

        Raises TargetError.
        """
        if process in self.managed:
            await self.managed.start(process)
        elif self.manifest.host_of(process) is not None:
            await self.hosts.start(process)
        else:
            await self.operator.start(process)
        await self.proxies.lead()
        for changed in self.on_restart:
            changed()

    async def ask_stop(self, component: str) -> str:
        """See `contracts.AsksManagers`."""
        return await self.managed.ask_stop(component)

    def change_launch(self, change: LaunchChange) -> None:
        """See `contracts.Prepared`."""
        if change not in self.operator.changes:  # several faults may want the same
            self.operator.changes.append(change)

    def state_paths(self, process: str) -> Sequence[Path]:
        """Return what a cold restart of a process wipes."""
        return self.operator.state_paths(process)

    async def document(self, name: str) -> Any:
        """Return one state document (docs/reference/state-documents.md).

        Raises TargetError when it cannot be had.
        """
        spec = self.manifest.state.get(name)
        if spec is None:
            raise TargetError(f"the manifest names no document `{name}`", where=f"[state.{name}]")
        url = self.expand(spec.url, where=f"state.{name}.url")
        document = await http.fetch_json(url)
        return reshape.search(spec.select, document, where=url)

    async def export(self, stream: str, folder: Path) -> LedgerFile:
        """Write what the target holds of a stream into `folder`.

        A failure is told in the record's `error`, never hidden.
        """
        return await streams.export_recovered(self, stream, folder)

    async def regions(self, name: str, *, place: str = "") -> Sequence[Region]:
        """See `contracts.HasData`."""
        return await data.regions(self, name, place)

    async def operation(self, name: str) -> None:
        """See `contracts.Operates`."""
        spec, where = self.manifest.operations.get(name), f"operations.{name}"
        if spec is None:
            raise TargetError("the manifest names no such operation", where=where)
        for url in spec.urls:
            await http.call(self.expand(url, where=where), method=spec.method)

    def dsn(self, component: str) -> str:
        """See `contracts.HasDatabases`."""
        spec, where = self._component(component), f"components.{component}.dsn"
        if spec.dsn is None:
            raise TargetError("not given: nobody says how it is reached", where=where)
        return self.expand(spec.dsn, where=where)

    async def ask(self, component: str, statement: str, *arguments: Any, from_outside: bool = False) -> Any:
        """See `contracts.HasDatabases`."""
        return await sql.ask(self.dsn(component), statement, *arguments, from_outside=from_outside)

    def link_ports(self, name: str) -> Sequence[int]:
        """See `contracts.HasLinks`."""
        return links.ports(self.manifest, name, self.values)

    async def ask_proxy(self, link: str, do: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `contracts.HasProxies`."""
        return await self.proxies.ask(link, do, values)

    @property
    def proxy_pid(self) -> int:
        """See `contracts.HasProxies`."""
        return self.proxies.pid

    def expand(self, text: str, *, where: str) -> str:
        """Replace the variables of a manifest's string by their present values."""
        return expand(text, self.values, where=where)

    def settings(self) -> dict[str, Any]:
        """Return what the glue is told: the run folder.

        And the workload's settings with their variables expanded.
        """
        workload = self.manifest.workload
        settings: dict[str, Any] = expand_all(
            workload.settings if workload else {}, self.values, where="workload.settings"
        )
        return {"run": str(self.run_dir), **settings}

    def _component(self, name: str) -> Component:
        try:
            return self.manifest.components[name]
        except KeyError:
            raise TargetError(f"the manifest has no component `{name}`", where=self.name) from None

    def _pid_of_file(self, component: str, spec: Component) -> int:
        where = f"components.{component}.pid_file"
        path = self.expand(spec.pid_file or "", where=where)
        try:
            return int(Path(path).read_text(encoding="utf-8").split()[0])
        except (OSError, ValueError, IndexError) as error:
            raise TargetError(f"no pid in {path}: {error}", where=where) from None

    async def _pid_of_url(self, component: str, spec: Component) -> int:
        where = f"components.{component}"
        url = self.expand(spec.url or "", where=f"{where}.url")
        connection = self._connections.setdefault(url, http.Connection(url))
        try:
            async with asyncio.timeout(5.0), self._one_at_a_time:
                answer = await connection.request()
        except (OSError, TimeoutError) as error:
            raise TargetError(f"{url} cannot be reached: {error}", where=where) from None
        pid = reshape.search(spec.select, http.decode(answer, url), where=where)
        if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
            raise TargetError(f"`{spec.select}` yields {pid!r}, not a pid", where=where)
        return pid

    def _gone(self, component: str, ref: ProcessRef, mono_ns: int) -> None:
        _, ended = self._deaths.pop(ref)
        ended.set()
        self.sink(ProcessSeen(component=component, what="exited", pid=ref.pid, mono_ns=mono_ns))
