"""Any network fault: where it is put, who witnesses it, and how it is taken back.

Rules of the packet filter for the ports of the step's links, held by a process of their own: when that one
ends, by whatever cause, the kernel takes them away. In the trial's own network where there is one, as root in
the host's otherwise.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from blackstart.contracts import HasLinks
from blackstart.errors import FaultError
from blackstart.faults.network import holder as holders
from blackstart.faults.network.kind import Kind, Treatment, direction, treatment
from blackstart.faults.network.rules import rules
from blackstart.host import connections, namespaces, netprobe
from blackstart.model.fault import Receipt, Undo, Witness
from blackstart.model.record import Reverted
from blackstart.scenario import seeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackstart.contracts import FaultContext
    from blackstart.faults.network.holder import Holder
    from blackstart.model.manifest import Link, Manifest
    from blackstart.model.scenario import FaultStep

_WITNESS_LIMIT_NS = 10_000_000_000
_LOOK_NS = 10_000_000
_QUEUES = range(1000, 65000)
_HOST = "nftables in the host's network, loopback only"


class NetworkFault:
    """A fault of links; what it does to packets is its kind."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.name = kind.name
        self.says = kind.says
        self._holder: Holder | None = None
        self._queued = False
        self._last: dict[str, Any] = {}

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`. Tries the kernel's part for real, in a network of its own."""
        try:
            treated = treatment(self.kind, step)
            direction(self.kind, step)
            self._links(target, step)
        except FaultError as error:
            return f"{error.where}: {error.what}" + (f" ({error.hint})" if error.hint else "")
        return _kernel(target, treated)

    def mechanism(self, target: Manifest, step: FaultStep) -> str:
        """Say what would be used, for `doctor`."""
        return _mechanism(treatment(self.kind, step), own="network" in target.isolation)

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Start the holder, and bind the queue; no packet goes there yet."""
        treated = treatment(self.kind, step)
        if self._holder is None:
            _allowed(ctx)
            self._holder = await holders.start(ctx.protect)
        if treated.verdict == "queue" and not self._queued:
            rng = seeds.stream(ctx.plan.seed, ctx.plan.trial_id, f"{self.name}:{','.join(step.links)}")
            shape = treated.shape._asdict()
            await self._holder.ask("queue", number=self._queue, shape=shape, seed=rng.getrandbits(32))
            self._queued = True

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Put the rules in place, all at once; t0 is when the kernel has them."""
        links, target = self._links(ctx.target.manifest, step), ctx.target
        if not isinstance(target, HasLinks):
            raise FaultError("the target cannot say which ports its links have", where=target.name)
        ports = {name: target.link_ports(name) for name in links}
        treated, way = treatment(self.kind, step), direction(self.kind, step)
        try:
            await self.aim(ctx, step)
            written = rules(links, ports, treated, way, self._queue)
            undo = await self._protected(ctx)
            assert self._holder is not None
            asked = [one._asdict() for one in written]
            answer = await self._holder.ask("install", table=undo[-1].arguments["table"], rules=asked)
        except BaseException:
            await self._close()
            raise
        return Receipt(
            fault=self.name,
            mechanism=_mechanism(treated, own="network" in ctx.isolation),
            t0_mono_ns=answer["after_ns"],
            t0_source="the committed rules",
            uncertainty_ns=answer["after_ns"] - answer["before_ns"],
            undo=undo,
            data={
                "links": {name: list(ports[name]) for name in links},
                "direction": way,
                "rules": len(written),
            },
        )

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Read the kernel's counters of the rules until a packet was hit; after the end, their last state."""
        del receipt
        deadline = ctx.clock.now().mono_ns + _WITNESS_LIMIT_NS
        while not _hits(found := await self._counts()) and ctx.clock.now().mono_ns < deadline:
            if self._holder is None:
                break
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _LOOK_NS)
        return Witness(bit=_hits(found) > 0, evidence=found)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Let go what is held, take the rules away, and note who waits for its own next try; idempotent."""
        holder = self._holder
        if holder is None:
            return
        ports = [port for one in receipt.data["links"].values() for port in one]
        waiting = connections.waiting(ports)
        try:
            self._last = await holder.ask("release")
        finally:
            await self._close()
        ctx.record(_floor(receipt, waiting, self._last, ctx.clock.now().mono_ns))

    def _links(self, manifest: Manifest, step: FaultStep) -> dict[str, Link]:
        if not step.links:
            raise FaultError("which link?", where=self.name, hint="`links` of the fault names it")
        for name in step.links:
            if name not in manifest.links:
                raise FaultError(f"the manifest has no link `{name}`", where=self.name)
            protocol = manifest.links[name].protocol
            if protocol not in self.kind.protocols:
                raise FaultError(
                    f"only for {self.kind.protocols[0]}; `{name}` is {protocol}", where=self.name
                )
        return {name: manifest.links[name] for name in step.links}

    async def _protected(self, ctx: FaultContext) -> tuple[Undo, ...]:
        assert self._holder is not None
        name = f"blackstart_{self._holder.ref.pid}_{self.name}"
        number = namespaces.identity(namespaces.NETWORK)
        undo = Undo(id=f"filter:{name}", action="filter", arguments={"table": name, "namespace": number})
        await ctx.protect([undo])
        return (self._holder.undo, undo)

    async def _counts(self) -> dict[str, Any]:
        try:
            return self._last if self._holder is None else await self._holder.ask("counts")
        except FaultError:
            return self._last

    async def _close(self) -> None:
        holder, self._holder, self._queued = self._holder, None, False
        if holder is not None:
            await holder.close()

    @property
    def _queue(self) -> int:
        assert self._holder is not None
        return _QUEUES[self._holder.ref.pid % len(_QUEUES)]


def _kernel(manifest: Manifest, treated: Treatment) -> str | None:
    """Say why the kernel's packet filter cannot do it to that target here, or None."""
    if "network" in manifest.isolation and namespaces.unavailable("network") is None:
        return netprobe.unavailable(treated.verdict)
    if os.geteuid() == 0:
        return netprobe.ours() or netprobe.unavailable(treated.verdict)
    if "network" in manifest.isolation:
        return f"no network of its own for a trial: {namespaces.unavailable('network')}"
    return 'as an ordinary user only in a network of its own (isolation = ["network"])'


def _allowed(ctx: FaultContext) -> None:
    if "network" not in ctx.isolation and os.geteuid() != 0:
        hint = 'isolation = ["network"] in the manifest, or root'
        raise FaultError("this trial has no network of its own", where=ctx.target.name, hint=hint)


def _mechanism(treated: Treatment, *, own: bool) -> str:
    where = "nftables in the trial's own network" if own else _HOST
    ends = {
        "drop": "drop" if treated.share >= 1 else f"numgen random, drop {treated.share:.2%}",
        "reset": "reject with tcp reset",
        "queue": "NFQUEUE with bypass, served from Python",
    }
    return f"{where}: {ends[treated.verdict]}"


def _hits(found: dict[str, Any]) -> int:
    queue = found.get("queue")
    if queue is not None and not queue["met"]:
        return 0
    return sum(one["hit"] for one in found.get("rules", ()))


def _floor(
    receipt: Receipt, waiting: Sequence[connections.Connection], counted: dict[str, Any], now: int
) -> Reverted:
    """Tell how long the kernel itself makes each connection wait: no recovery can be quicker on it."""
    told = [
        {"ports": [one.local_port, one.remote_port], "next_try_ms": one.expires_ms, "timer": one.timer}
        for one in waiting
    ]
    note = "existing TCP connections stand still until their next try" if told else "no connection waits"
    evidence = {"waiting": told, "note": note, "counted": counted}
    return Reverted(undo_id=f"{receipt.undo[-1].id}:floor", verified=None, evidence=evidence, mono_ns=now)
