"""Components that a service manager runs: systemd units, containers of docker or podman.

Blackstart never makes or removes one. It finds the main process, asks the manager to stop and to start it as
its operator would, and leaves it running, as it was found. What the manifest does not name is not touched.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from blackstart.errors import TargetError
from blackstart.host import containers, managed, refs, systemd
from blackstart.model.fault import ProcessRef, Undo
from blackstart.model.record import ProcessSeen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackstart.contracts import Clock, Protect, Sink
    from blackstart.host.managed import Place, State
    from blackstart.model.manifest import Component, Manifest

_RUNS_LIMIT_S = 30.0
_TICK_NS = 10_000_000
_SYSTEMD_NS = 1_000
_ENDED_NS = 2_000_000_000


def place(spec: Component) -> Place:
    """Return what a component is to its manager. Raises TargetError when nobody says where that is."""
    if spec.unit is not None:
        return managed.Place("unit", spec.unit, systemd.manager(spec.manager))
    assert spec.container is not None, "asked for managed components only"
    return managed.Place("container", spec.container, containers.engine())


def resolve(manifest: Manifest) -> Manifest:
    """Fill in who starts each unit and container again, as its manager says now.

    Left open when that cannot be asked: whoever needs the manager then tells why it cannot be reached.
    """
    found = {name: _resolved(spec) for name, spec in manifest.components.items()}
    return msgspec.structs.replace(manifest, components=found)


def _resolved(spec: Component) -> Component:
    if not spec.managed or spec.restart is not None:
        return spec
    try:
        by_itself = managed.look(place(spec)).restarts
    except TargetError:
        return spec
    return msgspec.structs.replace(spec, restart="self" if by_itself else "blackstart")


def problems(manifest: Manifest) -> Iterator[str]:
    """Say of each unit and container of a manifest what is not right with it at present."""
    for name, spec in manifest.components.items():
        if spec.managed:
            try:
                _startable(name, managed.look(place(spec)), place(spec))
            except TargetError as error:
                place_said = "" if error.where == f"components.{name}" else f"{error.where}: "
                hint = f"; {error.hint}" if error.hint else ""
                yield f"components.{name}: {place_said}{error.what}{hint}"


class Managed:
    """The units and containers of one manifest, while a target is open."""

    def __init__(self, manifest: Manifest, *, clock: Clock, sink: Sink, protect: Protect) -> None:
        self._specs = {name: spec for name, spec in manifest.components.items() if spec.managed}
        self._clock, self._sink, self._protect = clock, sink, protect
        self._known: dict[str, ProcessRef] = {}

    def __contains__(self, component: str) -> bool:
        return component in self._specs

    async def attach(self) -> None:
        """See that all of them run, and have the guardian see to it that they do so afterwards.

        Raises TargetError for one that does not, or that could not be started again.
        """
        for name in self._specs:
            where = self._place(name)
            _startable(name, await asyncio.to_thread(managed.look, where), where)
            ref = await self._find(name, where)
            await self._protect([*await self._bound(name, where), _undo(name, where)])
            self._known[name] = ref

    async def _bound(self, component: str, where: Place) -> list[Undo]:
        """Return how units come back that the manifest does not name, and that end whenever this one does."""
        ours = [self._place(name) for name in self._specs]
        found = await asyncio.to_thread(managed.bound, where)
        undos = ((one.name, _undo(component, one)) for one in found if one not in ours)
        return [msgspec.structs.replace(undo, id=f"{undo.id}:{name}") for name, undo in undos]

    async def process(self, component: str) -> ProcessRef:
        """Return the main process right now; one that was not known before is recorded as started.

        Raises TargetError when there is none.
        """
        self._known[component] = ref = await self._find(component, self._place(component))
        return ref

    async def start(self, component: str) -> None:
        """Have the manager start it, and wait until it runs. Raises TargetError."""
        where = self._place(component)
        self._seen(component, "starting", 0)
        await asyncio.to_thread(managed.start, where)
        state = await asyncio.to_thread(managed.until_running, where, _RUNS_LIMIT_S)
        _running(component, state, where)
        await self.process(component)

    async def ask_stop(self, component: str) -> str:
        """See `contracts.AsksManagers`.

        An engine shows a container as running until it has ended, and no policy starts it then: that its undo
        must not take it for running already is in the guardian's hands first.
        """
        where = self._place(component)
        if where.kind == "container":
            ref = self._known[component]  # looked up just now by who asks: the time until it is asked counts
            await self._protect([_undo(component, where, asked=ref)])
        await asyncio.to_thread(managed.ask_stop, where)
        return managed.command(where, "stop")

    async def ended_with(self, component: str) -> int | None:
        """Return what the manager says of its end; None when it has not heard of it within 2 s, or forgot.

        Of a unit only an end that systemd calls a failure is told (`managed.State`).
        """
        where = self._place(component)
        until = self._clock.now().mono_ns + _ENDED_NS
        while self._clock.now().mono_ns < until:
            try:
                state = await asyncio.to_thread(managed.look, where)
            except TargetError:
                return None
            ending = state.pid or state.stopping or state.said.startswith("deactivating")
            if state.status is not None or not ending:
                return state.status
            await self._clock.sleep_until(self._clock.now().mono_ns + _TICK_NS)
        return None

    async def _find(self, component: str, where: Place) -> ProcessRef:
        state = await asyncio.to_thread(managed.look, where)
        _running(component, state, where)
        ref = refs.reference(state.pid)
        if ref is None:
            raise TargetError(f"pid {state.pid} is not running", where=f"components.{component}")
        if ref != self._known.get(component):
            managed.refuse_strange(where, state)
            if component in self._known:
                self._began(component, ref, state)
        return ref

    def _began(self, component: str, ref: ProcessRef, state: State) -> None:
        """Record a new main process: when it began, and said that it is ready, however late we found it."""
        told, ticks = state.started_ns, managed.began_ns(ref.pid)
        mono_ns = told or ticks or self._clock.now().mono_ns
        self._seen(component, "started", ref.pid, mono_ns, _SYSTEMD_NS if told else _TICK_NS)
        if state.ready_ns is not None:
            self._seen(component, "ready", ref.pid, state.ready_ns, _SYSTEMD_NS)

    def _seen(
        self,
        component: str,
        what: Literal["starting", "started", "ready"],
        pid: int,
        mono_ns: int | None = None,
        uncertainty_ns: int = 0,
    ) -> None:
        moment = self._clock.now().mono_ns if mono_ns is None else mono_ns
        record = ProcessSeen(
            component=component, what=what, pid=pid, mono_ns=moment, uncertainty_ns=uncertainty_ns
        )
        self._sink(record)

    def _place(self, component: str) -> Place:
        return place(self._specs[component])


def _running(component: str, state: State, where: Place) -> None:
    if not state.running:
        what = f"{where.name} does not run: {state.said}"
        raise TargetError(what, where=f"components.{component}", hint=managed.by_hand(where, "start"))


def _startable(component: str, state: State, where: Place) -> None:
    _running(component, state, where)
    if state.lost:
        raise TargetError(f"{where.name} {state.lost}", where=f"components.{component}")


def _undo(component: str, where: Place, *, asked: ProcessRef | None = None) -> Undo:
    arguments: dict[str, Any] = {"kind": where.kind, "name": where.name, "at": where.at}
    identifier = f"{where.kind}:{component}"
    if asked is not None:
        arguments["asked_to_stop"] = msgspec.to_builtins(asked)
        identifier += f":{asked.pid}"
    return Undo(id=identifier, action="start_managed", arguments=arguments)
