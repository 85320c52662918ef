"""What of a target is on other hosts: its components there, found, watched, measured, started again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from blackstart.errors import AbsentError, TargetError
from blackstart.host import procs, ssh
from blackstart.model.fault import RemoteRef
from blackstart.model.record import ProcessSeen
from blackstart.target import readiness
from blackstart.target.remote import Link, RemoteHold
from blackstart.target.variables import expand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from blackstart.contracts import Clock, Protect, Sink
    from blackstart.model.manifest import Component, Host, Manifest, Ready

AGAIN_S = 0.1
_POLL_S = 0.005
_STOP_LIMIT_S = 10.0


class Hosts:
    """Implements HasHosts of `contracts` for a manifest with [hosts]; without them it does nothing.

    `pid_of_url` asks the target itself for a pid; `run` marks what is started for this trial.
    """

    def __init__(
        self,
        manifest: Manifest,
        expand: Callable[[str, str], str],
        pid_of_url: Callable[[str, Component], Awaitable[int]],
        *,
        run: Path,
        clock: Clock,
        sink: Sink,
        protect: Protect,
    ) -> None:
        self._manifest, self._expand, self._pid_of_url = manifest, expand, pid_of_url
        self._run, self._clock, self._sink, self._protect = run, clock, sink, protect
        self.links: dict[str, Link] = {}
        self._seen_last: dict[str, RemoteRef] = {}
        self._ours: dict[str, str] = {}
        """Components that did not run before, each with the marker of what is started for the trial."""

    async def connect(self) -> None:
        """Connect to every host. Raises TargetError naming the first that cannot be used, and why."""
        for name, host in self._manifest.hosts.items():
            self.links[name] = Link(name, command(name, host, self._expand), self._clock)
        opening = (link.open(self._protect) for link in self.links.values())
        for outcome in await asyncio.gather(*opening, return_exceptions=True):
            if outcome is not None:  # all are waited for: none may go on opening while it is closed
                raise outcome

    async def bring_up(self) -> None:
        """See that every component there runs. What ran before will be left running, what did not will not.

        Raises TargetError naming the one that does not run, does not come up, or of which nobody can tell.
        """
        for name, spec in self._there().items():
            try:
                await self.find(name)
            except AbsentError:
                if not spec.start:
                    raise
                await self._own(name)
                await self.start(name)
            else:
                await self._keep(name, spec)

    async def close(self) -> None:
        """End what `bring_up` started, and let every host go; idempotent.

        The helpers take back whatever is still in place.
        """
        await asyncio.gather(*(self._stop(name) for name in self._ours))
        self._ours.clear()
        await asyncio.gather(*(link.close() for link in self.links.values()))

    async def sight(self) -> None:
        """Wait; raises TargetError as soon as a host is lost: nobody sees any more what happens there."""
        if not self.links:
            return
        waiting = {asyncio.ensure_future(link.lost.wait()): link for link in self.links.values()}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            link = waiting[next(iter(done))]
            raise TargetError(f"lost sight: {link.why}", where=f"hosts.{link.name}")
        finally:
            for task in waiting:
                task.cancel()

    def link(self, component: str) -> Link:
        """Return the connection to a component's host. Raises TargetError when there is none yet."""
        name = self._manifest.components[component].host or ""
        if name not in self.links:
            raise TargetError("not connected yet", where=f"hosts.{name}")
        return self.links[name]

    async def find(self, component: str) -> RemoteRef:
        """Find the process behind a component right now.

        Raises TargetError when there is not exactly one: AbsentError when there certainly is none.
        """
        link, where = self.link(component), f"components.{component}"
        try:
            found = await link.ask("find", **await self._wanted(component))
        except TargetError as error:
            where = where if not link.lost.is_set() else error.where
            raise type(error)(error.what, where=where, hint=error.hint) from None
        return RemoteRef(link.name, found["pid"], found["start_ticks"])

    async def hold(self, component: str, told: Callable[[int], None]) -> RemoteHold:
        """See `contracts.HasHosts`."""
        return await RemoteHold(self.link(component), await self.find(component), told).take()

    async def measure(self, component: str) -> Mapping[str, Any] | None:
        """See `contracts.HasHosts`."""
        try:
            ref = self._seen_last.get(component) or await self.find(component)
            found = await self.link(component).ask("use", pid=ref.pid, start_ticks=ref.start_ticks)
        except TargetError:
            self._seen_last.pop(component, None)
            return None
        self._seen_last[component] = ref
        return {**{key: found[key] for key in found if key != "n"}, "host": ref.host}

    async def lives(self, component: str) -> None:
        """Watch the component's process, and the next one, for ever; each death is recorded."""
        while True:
            with contextlib.suppress(TargetError):
                hold = await self.hold(component, lambda _mono_ns: None)
                try:
                    moment = await hold.death()
                finally:
                    hold.close()
                self._seen(component, "exited", hold.ref.pid, moment.mono_ns, moment.uncertainty_ns)
            await asyncio.sleep(AGAIN_S if not self.link(component).lost.is_set() else 1.0)

    async def follow(self, host: str, files: str) -> AsyncIterator[tuple[Link, dict[str, Any], int]]:
        """Yield each batch of new lines of files there, with the link and when it reached us."""
        link = self.links[host]
        words: asyncio.Queue[tuple[dict[str, Any], int]] = asyncio.Queue()
        identifier = link.watch(lambda word, seen: words.put_nowait((word, seen)))
        try:
            await link.ask("tail", id=identifier, files=files)
            while True:
                word, seen = await words.get()
                yield link, word, seen
        finally:
            link.unwatch(identifier)

    async def start(self, component: str) -> None:
        """Start a component on its host and wait until it is ready. One that runs is left alone.

        Raises TargetError, also when nobody can tell whether it runs: it may be two then.
        """
        spec = self._manifest.components[component]
        with contextlib.suppress(AbsentError):
            await self.find(component)
            return
        self._seen(component, "starting", 0)
        ended: list[int] = []
        identifier = self.link(component).watch(lambda word, _: ended.append(int(word.get("status", 0))))
        try:
            await self._launch(component, identifier)
            ref = await self._until(component, spec.ready, ended)
        finally:
            self.link(component).unwatch(identifier)
        self._seen_last[component] = ref

    async def _own(self, component: str) -> None:
        """Have it ended with the trial, however often it will have been started."""
        link = self.link(component)
        marker = f"{self._run}:{component}@{link.name}"
        await self._protect(
            [link.undo(f"end:{component}", {"what": "end", "marker": marker}, _ending(marker))]
        )
        self._ours[component] = marker

    async def _stop(self, component: str) -> None:
        """Ask it to end, and wait for that; who does not is killed by the helper, which ends after this."""
        number = self._manifest.components[component].stop_signal or "TERM"
        with contextlib.suppress(TargetError, TimeoutError):
            hold = await self.hold(component, lambda _mono_ns: None)
            async with asyncio.timeout(_STOP_LIMIT_S):
                await hold.signal(signal.Signals[f"SIG{number}"])
                await hold.death()

    async def _launch(self, component: str, identifier: int) -> None:
        link, marker = self.link(component), self._ours.get(component)
        words = self._command(component)
        answer = await link.ask("start", id=identifier, name=component, command=words, marker=marker)
        self._seen(component, "started", answer["pid"])

    async def _until(self, component: str, ready: Ready, ended: list[int]) -> RemoteRef:
        """Ask until it is found there and answers here; the last no bounds when it became ready."""
        checking = readiness.check(self._ready(component, ready), Path(), 0)
        began = last = self._clock.now().mono_ns
        while True:
            asked = self._clock.now().mono_ns
            try:
                ref, why = await self.find(component), "it runs, but is not ready"
                if await checking():
                    now = self._clock.now().mono_ns
                    self._seen(component, "ready", ref.pid, now, now - last)
                    return ref
            except TargetError as error:
                why = error.what
            last = asked
            where = f"components.{component}.start"
            if self.link(component).lost.is_set() or (ended and ended[0] != 0):
                how = f" (status {ended[0]})" if ended else ""
                raise TargetError(f"ended before it was ready{how}: {why}", where=where)
            if asked - began > ready.limit_s * 1e9:
                raise TargetError(f"not ready after {ready.limit_s:g} s: {why}", where=where)
            await asyncio.sleep(_POLL_S)

    async def _keep(self, component: str, spec: Component) -> None:
        """See to it that what ran when we came, and only we start again, runs when we have gone."""
        if not spec.operated:
            return
        link, command = self.link(component), self._command(component)
        values = {"what": "keep", "find": await self._wanted(component), "command": command}
        await self._protect([link.undo(f"keep:{component}", values, command)])
        await link.ask("keep", name=component, find=values["find"], command=command)

    async def _wanted(self, component: str) -> dict[str, Any]:
        spec, where = self._manifest.components[component], f"components.{component}"
        if spec.match is not None:
            return {"match": self._expand(spec.match, f"{where}.match")}
        if spec.pid_file is not None:
            return {"pid_file": self._expand(spec.pid_file, f"{where}.pid_file")}
        return {"pid": await self._pid_of_url(component, spec)}

    def _command(self, component: str) -> list[str]:
        words = self._manifest.components[component].start
        return [self._expand(word, f"components.{component}.start") for word in words]

    def _ready(self, component: str, ready: Ready) -> Ready:
        where = f"components.{component}.ready"
        given = {key: text for key in ("url", "tcp") if (text := getattr(ready, key)) is not None}
        found = {key: self._expand(text, where) for key, text in given.items()}
        return msgspec.structs.replace(ready, **found)

    def _there(self) -> dict[str, Component]:
        return {name: spec for name, spec in self._manifest.components.items() if spec.host is not None}

    def _seen(
        self,
        component: str,
        what: Literal["exited", "starting", "started", "ready"],
        pid: int,
        mono_ns: int | None = None,
        uncertainty_ns: int = 0,
    ) -> None:
        self._sink(
            ProcessSeen(
                component=component,
                what=what,
                pid=pid,
                mono_ns=self._clock.now().mono_ns if mono_ns is None else mono_ns,
                uncertainty_ns=uncertainty_ns,
                detail={"host": self._manifest.components[component].host},
            )
        )


def command(name: str, host: Host, expanded: Callable[[str, str], str]) -> list[str]:
    """Return how a host is reached, the manifest's variables replaced."""
    where = f"hosts.{name}"
    return ssh.command(
        address=expanded(host.address, f"{where}.address"),
        port=host.port,
        user=host.user,
        identity=None if host.identity is None else expanded(host.identity, f"{where}.identity"),
        python=host.python,
        options={key: expanded(text, f"{where}.options") for key, text in host.options.items()},
    )


def reach(manifest: Manifest, name: str, clock: Clock) -> Link:
    """Return a connection to a host outside any trial, not yet opened; no run, so no variable of one."""
    values = {"here": manifest.folder}
    return Link(
        name,
        command(name, manifest.hosts[name], lambda text, where: expand(text, values, where=where)),
        clock,
    )


def _ending(marker: str) -> tuple[str, ...]:
    """Return the words with which an operator ends whatever carries a marker."""
    found = f"grep -lsF {procs.MARKER}={marker} /proc/[0-9]*/environ"
    return ("sh", "-c", f"for one in $({found}); do kill -KILL $(echo $one | cut -d/ -f3); done")
