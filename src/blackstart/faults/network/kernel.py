"""Network faults by the kernel's packet filter, held by a process of their own.

When that process ends, by whatever cause, the kernel takes the rules away. In the trial's own network where
there is one, as root in the host's otherwise.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from blackstart.errors import FaultError
from blackstart.faults.network.kind import Put, Treatment
from blackstart.faults.network.rules import rules
from blackstart.host import helper, namespaces, netprobe
from blackstart.model.fault import Undo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Link, Manifest

_QUEUES = range(1000, 65000)
_HOST = "nftables in the host's network, loopback only"


class Kernel:
    """One fault's rules, and the queue where there is one."""

    def __init__(self, treated: Treatment, seed: int, *, own: bool) -> None:
        self.treated = treated
        self.mechanism = mechanism(treated, own=own)
        self._seed = seed
        self._holder: helper.Helper | None = None

    async def aim(self, ctx: FaultContext) -> None:
        """Start the holder, and bind the queue; no packet goes there yet."""
        if self._holder is not None:
            return
        self._holder = await helper.start("netholder", ctx.protect)
        if self.treated.verdict == "queue":
            shape = self.treated.shape._asdict()
            await self._holder.ask("queue", number=self._queue, shape=shape, seed=self._seed)

    async def put(
        self, ctx: FaultContext, links: Mapping[str, Link], ports: Mapping[str, Sequence[int]], way: str
    ) -> Put:
        """Install the rules, all at once."""
        await self.aim(ctx)
        assert self._holder is not None
        written = rules(links, ports, self.treated, way, self._queue)
        table = f"blackstart_{self._holder.ref.pid}"
        number = namespaces.identity(namespaces.NETWORK)
        undo = Undo(id=f"filter:{table}", action="filter", arguments={"table": table, "namespace": number})
        await ctx.protect([self._holder.undo, undo])  # from now on its life has a limit, too
        asked = [one._asdict() for one in written]
        answer = await self._holder.ask("install", table=table, rules=asked)
        undos = (self._holder.undo, undo)
        return Put(answer["before_ns"], answer["after_ns"], undos, "the committed rules")

    async def counts(self) -> dict[str, Any]:
        """Read the kernel's counters."""
        return {} if self._holder is None else await self._holder.ask("counts")

    async def release(self) -> dict[str, Any]:
        """Let go what is held, take the rules away, and return the last counters.

        A holder that was ended before us has let everything go; its undos prove that nothing is left.
        """
        holder, self._holder = self._holder, None
        if holder is None:
            return {}
        try:
            return await holder.ask("release")
        except FaultError:
            return {}
        finally:
            holder.let_go()

    @property
    def _queue(self) -> int:
        assert self._holder is not None
        return _QUEUES[self._holder.ref.pid % len(_QUEUES)]


def mechanism(treated: Treatment, *, own: bool) -> str:
    """Name what is used."""
    where = "nftables in the trial's own network" if own else _HOST
    ends = {
        "drop": "drop" if treated.share >= 1 else f"numgen random, drop {treated.share:.2%}",
        "reset": "reject with tcp reset",
        "queue": "NFQUEUE with bypass, served from Python",
    }
    return f"{where}: {ends[treated.verdict]}"


def unavailable(manifest: Manifest, treated: Treatment) -> str | None:
    """Say why the kernel's packet filter cannot do it to that target here, or None. Tries it for real."""
    if "network" in manifest.isolation and namespaces.unavailable("network") is None:
        return netprobe.unavailable(treated.verdict)
    if os.geteuid() == 0:
        return netprobe.ours() or netprobe.unavailable(treated.verdict)
    if "network" in manifest.isolation:
        return f"no network of its own for a trial: {namespaces.unavailable('network')}"
    return 'as an ordinary user only in a network of its own (isolation = ["network"])'


def permitted(ctx: FaultContext) -> bool:
    """Say whether this trial may use the packet filter."""
    return "network" in ctx.isolation or os.geteuid() == 0
