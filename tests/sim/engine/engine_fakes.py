"""A target, a rig, a guardian and a fault that live in simulated time."""

# ruff: noqa: ARG002 - protocols ask for arguments that fakes do not need

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from blackstart.errors import TargetError
from blackstart.model.fault import ProcessRef, Receipt, Undo, Witness
from blackstart.model.manifest import Component, Manifest, Match, ProbeSpec, Process, Service
from blackstart.model.record import (
    LedgerFile,
    ProbeChange,
    ProcessSeen,
    Record,
    Reverted,
    ServiceBatch,
    ServiceWatched,
    SignalSeen,
)
from blackstart.model.scenario import FaultStep, Objectives, Plan, Scenario

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.contracts import Clock, FaultContext, Sink

MS = 1_000_000


def manifest() -> Manifest:
    """Make a small system that reports all four phases."""
    return Manifest(
        schema=1,
        name="simulated",
        environment="sim",
        processes={"server": Process(command=("nothing",))},
        components={"server": Component(process="server")},
        probes={"ready": ProbeSpec(url="http://nowhere")},
        ready="ready",
        services={"orders": Service(source="oracle")},
        phases={
            phase: (Match(event=phase),)
            for phase in ("detected", "responded", "recovered", "validated")  # type: ignore[misc]
        },
    )


def plan(**changes: Any) -> Plan:
    """Make a trial that kills the server."""
    settings: dict[str, Any] = {
        "id": "S1",
        "title": "simulated",
        "requirement": "R1",
        "fault": FaultStep(kind="fake", components=("server",)),
        "objectives": Objectives(rto_ms=5000),
        **changes,
    }
    return Plan(
        trial_id="S1",
        scenario=Scenario(**settings),
        components=("server",),
        service="orders",
        seed=7,
        replay="-",
    )


class World:
    """What the simulated system does: `outage_ms` after the fault it serves again (None: never).

    With `relapse_ms` it is silent for so long once more, half a second later; with `unready_ms` it serves on,
    and is not ready for so long.
    """

    def __init__(
        self,
        clock: Clock,
        sink: Sink,
        *,
        rate: float,
        outage_ms: float | None,
        start_ms: float = 200,
        relapse_ms: float | None = None,
        unready_ms: float | None = None,
    ) -> None:
        self.relapse_ms, self.unready_ms = relapse_ms, unready_ms
        self.clock, self.sink = clock, sink
        self.gap_ns = round(1e9 / rate) if rate else None
        self.outage_ms, self.start_ms = outage_ms, start_ms
        self.down = asyncio.Event()
        self.log: list[str] = []
        self.aimed: list[tuple[str, int]] = []

    async def wait_ms(self, ms: float) -> None:
        """Wait in simulated time."""
        await self.clock.sleep_until(self.clock.now().mono_ns + round(ms * MS))

    async def serve(self) -> None:
        """Orders at an even rate, except in the outage."""
        serial = 0
        while self.gap_ns is not None:
            if self.down.is_set():
                return
            now = self.clock.now().mono_ns
            self.sink(ServiceBatch(service="orders", events=[(now, f"1-C{serial}", 0)]))
            serial += 1
            await self.clock.sleep_until(now + self.gap_ns)

    async def serve_for(self, ms: float) -> None:
        """Orders at an even rate, for so long."""
        serving = asyncio.ensure_future(self.serve())
        await self.wait_ms(ms)
        serving.cancel()

    def probe(self, *, ok: bool) -> None:
        """Change the ready probe's answer."""
        now = self.clock.now().mono_ns
        self.sink(
            ProbeChange(probe="ready", ok=ok, mono_ns=now, uncertainty_ns=MS, samples=1, detail="HTTP 503")
        )

    def signal(self, event: str) -> None:
        """Report something, as the target."""
        now = self.clock.now().mono_ns
        self.sink(SignalSeen(source="log", event=event, mono_ns=now, seen_mono_ns=now))

    async def life(self) -> None:
        """Come up, serve, go down with the fault, come back."""
        await self.wait_ms(self.start_ms)
        self.probe(ok=True)
        serving = asyncio.ensure_future(self.serve())
        try:
            await self.down.wait()
            await serving
            self.probe(ok=False)
            if self.outage_ms is None:
                await asyncio.Event().wait()
            for phase in ("detected", "responded", "recovered", "validated"):
                await self.wait_ms((self.outage_ms or 0) / 4)
                self.signal(phase)
            self.down.clear()
            self.probe(ok=True)
            if self.relapse_ms is not None:
                await self.serve_for(500)
                await self.wait_ms(self.relapse_ms)
            if self.unready_ms is not None:
                await self.serve_for(500)
                self.probe(ok=False)
                await self.serve_for(self.unready_ms)
                self.probe(ok=True)
            await self.serve()
        finally:
            serving.cancel()


class FakeTarget:
    """Implements Target and HasState."""

    name = "simulated"

    def __init__(self, world: World, refuses: str | None) -> None:
        self.manifest = manifest()
        self.world, self.refuses = world, refuses

    async def open(self) -> None:
        """Start, or say why not."""
        if self.refuses:
            raise TargetError(self.refuses, where="server")
        self.world.log.append("open")

    async def close(self) -> None:
        """Note the end."""
        self.world.log.append("close")

    async def process(self, component: str) -> ProcessRef:
        """Nobody is there to be sampled."""
        raise TargetError("none", where=component)

    async def document(self, name: str) -> Any:
        """No documents."""
        raise TargetError("none", where=name)

    async def operation(self, name: str) -> None:
        """Do it at once, and tell of it."""
        self.world.log.append(name)
        self.world.signal(f"{name}-done")

    async def export(self, stream: str, folder: Path) -> LedgerFile:
        """No streams."""
        raise TargetError("none", where=stream)


class FakeRig:
    """Implements Rig."""

    oracle = None
    workload = None

    def __init__(self, world: World, refuses: str | None = None) -> None:
        self.world = world
        self.target = FakeTarget(world, refuses)

    async def watch(self, services: Sequence[str], interest: Sequence[Match]) -> None:
        """Let the world live, and say how long it was watched."""
        since = self.world.clock.now().mono_ns
        try:
            await self.world.life()
        finally:
            for service in services:
                until = self.world.clock.now().mono_ns
                self.world.sink(ServiceWatched(service=service, since_mono_ns=since, until_mono_ns=until))

    async def acknowledged(self, stream: str, folder: Path) -> Record:
        """No streams."""
        raise TargetError("none", where=stream)

    async def totals(self, stream: str) -> tuple[int | None, int | None]:
        """No streams."""
        return None, None


class FakeGuard:
    """Holds undos in memory."""

    def __init__(self, log: list[str], *, sticks: bool = False) -> None:
        self.log, self.sticks = log, sticks
        self.owed: dict[str, Undo] = {}
        self.on_halt: Callable[[str], None] = lambda _why: None

    async def protect(self, undos: Iterable[Undo]) -> None:
        """Take undos."""
        self.owed.update({undo.id: undo for undo in undos})
        self.log.append("protect")

    async def undo(self, ids: Sequence[str] | None = None) -> list[Reverted]:
        """Give them back as done."""
        chosen = [one for one in self.owed if ids is None or one in ids]
        self.log.append("undo")
        if self.sticks:
            evidence = {"error": "it sticks", "by_hand": "rm the thing"}
            return [Reverted(undo_id=one, verified=False, evidence=evidence) for one in chosen]
        for one in chosen:
            del self.owed[one]
        return [Reverted(undo_id=one, verified=True, evidence={}) for one in chosen]

    async def close(self) -> None:
        """Go."""
        self.log.append("guard closed")


class FakeFault:
    """Stops the world's service."""

    name = "fake"

    def __init__(self, world: Callable[[], World], *, bites: bool = True, why_not: str | None = None) -> None:
        self.world, self.bites, self.why_not = world, bites, why_not
        self.reverts = 0

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """Say what stands against it."""
        return self.why_not

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Note it, under the trigger's kind, and how many faults came before."""
        world = self.world()
        world.aimed.append((step.trigger.at, world.log.count("inject")))

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Protect first, then break."""
        undo = Undo(id=f"fake-{id(self)}", action="unlink", arguments={})
        await ctx.protect([undo])
        self.world().log.append("inject")
        if self.bites:
            self.world().down.set()
        now = ctx.clock.now().mono_ns
        return Receipt(
            fault="fake", mechanism="simulated", t0_mono_ns=now, t0_source="simulation", undo=(undo,)
        )

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Say whether it bit."""
        return Witness(bit=self.bites, evidence={})

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Count."""
        self.reverts += 1
        self.world().log.append("revert")


class EarlyFault(FakeFault):
    """Looks nobody up when it is aimed."""

    aims_early = True


class FakeExchange:
    """An oracle that can misbehave: notes what it was asked for."""

    name = "exchange"

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[tuple[str, Any, dict[str, Any]]] = []

    async def misbehave(
        self, action: str, *, on: Match | None, parameters: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Note it."""
        self.world.log.append("misbehave")
        self.asked.append((action, on, dict(parameters)))
        return {"id": "M1"}

    async def open_orders(self) -> Sequence[Mapping[str, Any]]:
        """None."""
        return []

    async def positions(self) -> Mapping[str, Any]:
        """None."""
        return {}

    async def behave(self) -> None:
        """Nothing to lift."""

    def disarm(self) -> Undo:
        """Give an undo."""
        return Undo(id="disarm", action="http", arguments={"url": "http://nowhere"})


def died(clock: Clock) -> ProcessSeen:
    """Tell that the server ended by itself."""
    return ProcessSeen(
        component="server", what="exited", pid=5, mono_ns=clock.now().mono_ns, detail={"status": -11}
    )


Protect = Callable[[Iterable[Undo]], Awaitable[None]]
Figures = Mapping[str, Any]
