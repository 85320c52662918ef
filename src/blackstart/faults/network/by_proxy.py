"""Network faults by the proxy through which the manifest leads its links: without any privilege."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blackstart.contracts import HasProxies
from blackstart.errors import FaultError
from blackstart.faults.network.kind import Put, Treatment
from blackstart.model.fault import Undo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Link


class ByProxy:
    """One fault of proxied links."""

    mechanism = "user-space proxy"

    def __init__(self, treated: Treatment, seed: int) -> None:
        self.treated = treated
        self._seed = seed
        self._target: HasProxies | None = None
        self._links: tuple[str, ...] = ()
        self._by = ""

    async def aim(self, ctx: FaultContext) -> None:
        """Do nothing: the proxy is there since before the target."""

    async def put(
        self, ctx: FaultContext, links: Mapping[str, Link], ports: Mapping[str, Sequence[int]], way: str
    ) -> Put:
        """Tell the proxy."""
        del ports
        target = ctx.target
        assert isinstance(target, HasProxies)
        self._by = f"proxy:{','.join(links)}:{ctx.clock.now().mono_ns}"
        undo = Undo(id=self._by, action="proxy", arguments={"pid": target.proxy_pid, "by": self._by})
        await ctx.protect([undo])
        self._target, self._links = target, tuple(links)
        told = {
            "verdict": self.treated.verdict,
            "direction": way,
            "share": self.treated.share,
            "existing": self.treated.existing,
            "shape": self.treated.shape._asdict(),
            "seed": self._seed,
            "by": self._by,
        }
        answers = [_taken(name, await target.ask_proxy(name, "break", told)) for name in links]
        return Put(answers[0]["before_ns"], answers[-1]["after_ns"], (undo,), "the proxy's stamp")

    async def counts(self) -> dict[str, Any]:
        """Ask the proxy what it met and hit."""
        return await self._ask("counts")

    async def release(self) -> dict[str, Any]:
        """Let everything pass again."""
        return await self._ask("release")

    async def _ask(self, do: str) -> dict[str, Any]:
        if self._target is None:
            return {}
        told = [await self._target.ask_proxy(name, do, {"by": self._by}) for name in self._links]
        return {"rules": [rule for one in told for rule in one["rules"]]}


def _taken(link: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raise FaultError where another fault has hold of the link."""
    if "broken_by" in answer:
        what = "is broken by another fault: a proxy does one thing to a link at a time"
        hint = "let the other end before, or break it by the kernel (`mechanism`)"
        raise FaultError(what, where=f"links.{link}", hint=hint)
    return answer


def unavailable(links: Mapping[str, Link], treated: Treatment) -> str | None:
    """Say why a proxy cannot do it, or None."""
    bare = [name for name, link in links.items() if link.proxy is None]
    if bare:
        return f"link `{bare[0]}` does not lead through a proxy ([links.{bare[0]}] proxy)"
    shape = treated.shape
    whole = treated.share >= 1 and not (shape.duplicate or shape.reorder)
    if not whole and any(link.protocol == "tcp" for link in links.values()):
        return "a proxy sees no packets of a TCP connection: nothing to lose, double or overtake"
    if shape.corrupt and shape.checksum != "right":
        return 'a proxy cannot send a wrong checksum: checksum = "right"'
    return None


def refuse(problem: str | None) -> None:
    """Raise FaultError for a problem."""
    if problem is not None:
        raise FaultError(problem, where="mechanism proxy")
