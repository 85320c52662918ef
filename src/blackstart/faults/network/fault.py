"""Any network fault: by which mechanism, who witnesses it, and how it is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blackstart.contracts import HasLinks
from blackstart.errors import FaultError
from blackstart.faults.network import by_proxy, kernel
from blackstart.faults.network.by_proxy import ByProxy
from blackstart.faults.network.kernel import Kernel
from blackstart.faults.network.kind import Kind, direction, treatment
from blackstart.host import connections
from blackstart.model.fault import Receipt, Witness
from blackstart.model.record import Reverted
from blackstart.model.scenario import FaultStep
from blackstart.scenario import seeds
from blackstart.scenario.plan import flat_links

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Link, Manifest

_WITNESS_LIMIT_NS = 10_000_000_000
_LOOK_NS = 10_000_000
_SOME = 100_000
_MECHANISMS = ("kernel", "proxy")


class NetworkFault:
    """A fault of links; what it does to packets is its kind.

    The kernel's packet filter where it may be used, else the proxy of the links; `parameters.mechanism`
    (`kernel`, `proxy`) forces one.
    """

    aims_early = True

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.name = kind.name
        self.says = kind.says
        self._way: Kernel | ByProxy | None = None
        self._last: dict[str, Any] = {}

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`. Tries the kernel's part for real, in a network of its own."""
        try:
            return self._choice(target, step)[1]
        except FaultError as error:
            return f"{error.where}: {error.what}" + (f" ({error.hint})" if error.hint else "")

    def mechanisms(self, target: Manifest) -> dict[str, str | None]:
        """See `contracts.HasMechanisms`. Tried on each link that it fits; one for which it works will do."""
        fitting = [name for name, link in target.links.items() if link.protocol in self.kind.protocols]
        if not fitting:
            none = f"no link of {' or '.join(self.kind.protocols)} in its [links]"
            return dict.fromkeys(_MECHANISMS, none)
        return {one: self._offers(target, one, fitting) for one in _MECHANISMS}

    def _offers(self, target: Manifest, mechanism: str, links: Sequence[str]) -> str | None:
        """Say why no link can be broken by that mechanism (the last link's reason), or None."""
        wanted: dict[str, Any] = {name: _SOME for name, usual in self.kind.numbers.items() if usual is None}
        wanted["mechanism"] = mechanism
        steps = (FaultStep(kind=self.name, links=(one,), parameters=wanted) for one in links)
        reasons = [self.unavailable(target, step) for step in steps]
        return None if None in reasons else reasons[-1]

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Choose the mechanism and prepare what takes time."""
        self._way = self._way or self._made(ctx, step)
        await self._way.aim(ctx)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Put it in place; t0 is when the kernel, or the proxy, has it."""
        links, target, way = self._links(ctx.target.manifest, step), ctx.target, direction(self.kind, step)
        if not isinstance(target, HasLinks):
            raise FaultError("the target cannot say which ports its links have", where=target.name)
        ports = {name: list(target.link_ports(name)) for name in links}
        try:
            await self.aim(ctx, step)
            assert self._way is not None
            put = await self._way.put(ctx, links, ports, way)
        except BaseException:
            await self._give_up()
            raise
        return Receipt(
            fault=self.name,
            mechanism=self._way.mechanism,
            t0_mono_ns=put.after_ns,
            t0_source=put.source,
            uncertainty_ns=put.after_ns - put.before_ns,
            undo=put.undo,
            data={"links": ports, "direction": way},
        )

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Read the counters until something was hit; after the end, their last state."""
        del receipt
        deadline = ctx.clock.now().mono_ns + _WITNESS_LIMIT_NS
        found = await self._counts()
        while not _hits(found) and self._way is not None and ctx.clock.now().mono_ns < deadline:
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _LOOK_NS)
            found = await self._counts()
        return Witness(bit=_hits(found) > 0, evidence=found)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Let go what is held, let all pass, and note who waits for its own next try; idempotent."""
        way, self._way = self._way, None
        if way is None:
            return
        waiting = connections.waiting([port for one in receipt.data["links"].values() for port in one])
        self._last = await way.release() or self._last
        ctx.record(_floor(receipt, waiting, self._last, ctx.clock.now().mono_ns))

    def _made(self, ctx: FaultContext, step: FaultStep) -> Kernel | ByProxy:
        treated, manifest = treatment(self.kind, step), ctx.target.manifest
        name = f"{self.name}:{','.join(step.links)}"
        seed = seeds.stream(ctx.plan.seed, ctx.plan.trial_id, name).getrandbits(32)
        bare = any(link.proxy is None for link in self._links(manifest, step).values())
        forced = step.parameters.get("mechanism")
        if forced == "proxy" or (forced is None and not bare and not kernel.permitted(ctx)):
            by_proxy.refuse(by_proxy.unavailable(self._links(manifest, step), treated))
            return ByProxy(treated, seed)
        if not kernel.permitted(ctx):
            hint = 'isolation = ["network"] in the manifest, root, or a proxy on the link'
            raise FaultError("this trial has no network of its own", where=ctx.target.name, hint=hint)
        return Kernel(treated, seed, own="network" in ctx.isolation)

    def _choice(self, manifest: Manifest, step: FaultStep) -> tuple[str, str | None]:
        """Choose the mechanism, and say why it cannot be had, or None. Raises FaultError for nonsense."""
        treated, links = treatment(self.kind, step), self._links(manifest, step)
        direction(self.kind, step)
        forced = step.parameters.get("mechanism")
        if forced not in (None, *_MECHANISMS):
            raise FaultError(f"no mechanism `{forced}`", where=self.name, hint=", ".join(_MECHANISMS))
        bare = any(link.proxy is None for link in links.values())
        without = "kernel" if forced == "proxy" else kernel.unavailable(manifest, treated)
        if without is None or forced == "kernel" or (bare and forced is None):
            return "kernel", without
        return "proxy", by_proxy.unavailable(links, treated)

    def _links(self, manifest: Manifest, step: FaultStep) -> dict[str, Link]:
        if not step.links:
            raise FaultError("which link?", where=self.name, hint="`links` of the fault names it")
        links = flat_links(step.links, manifest)
        for name in links or step.links:
            if name not in manifest.links:
                raise FaultError(f"the manifest has no link `{name}`", where=self.name)
            protocol = manifest.links[name].protocol
            if protocol not in self.kind.protocols:
                raise FaultError(
                    f"only for {self.kind.protocols[0]}; `{name}` is {protocol}", where=self.name
                )
        return {name: manifest.links[name] for name in links}

    async def _counts(self) -> dict[str, Any]:
        if self._way is None:
            return self._last
        try:
            return await self._way.counts()
        except FaultError:
            return self._last

    async def _give_up(self) -> None:
        way, self._way = self._way, None
        if way is not None:
            await way.release()


def _hits(found: dict[str, Any]) -> int:
    """Count the packets to which something was done; that they went through the queue is not enough."""
    queue = found.get("queue")
    if queue is not None:
        return sum(int(queue[done]) for done in ("late", "lost", "changed", "doubled"))
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
