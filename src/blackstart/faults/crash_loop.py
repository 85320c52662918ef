"""Crash loop: a component is killed again each time it comes back (R36)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

from blackstart.errors import FaultError, TargetError
from blackstart.faults import death
from blackstart.model.fault import ProcessRef, Receipt, RemoteRef, Witness

if TYPE_CHECKING:
    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

AnyRef = ProcessRef | RemoteRef

_TIMES = 10
_BACK_LIMIT_S = 30.0
_END_LIMIT_S = 10.0
_LOOK_NS = 10_000_000


class CrashLoop:
    """SIGKILL `times` times (10), each time as soon as the component has a process again.

    It may take `limit_s` (30) to come back each time. T0 is the first kill. The witness tells every death.
    After the manifest's `fault_limit_s` it is not killed any more: then there may be fewer.
    """

    name = "crash_loop"

    def __init__(self) -> None:
        self._strike = death.Strike(remote=True)
        self._deaths: dict[str, list[dict[str, Any]]] = {}
        self._ours: dict[str, bool] = {}
        self._over = asyncio.Event()
        self._times = _TIMES
        self._limit_s = _BACK_LIMIT_S

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if int(step.parameters.get("times", _TIMES)) < 1:
            return "`times` is at least 1"
        return death.no_processes(target, step.components)

    def unreachable(self, step: FaultStep) -> str | None:
        """See `contracts.ReachesHosts`."""
        del step
        return None

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """See `death.Strike`."""
        await self._strike.aim(ctx, step)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Kill for the first time; the others follow in `operate`."""
        self._times = int(step.parameters.get("times", _TIMES))
        self._limit_s = float(step.parameters.get("limit_s", _BACK_LIMIT_S))
        bed = await self._strike.aim(ctx, step)
        when = await bed.strike(signal.SIGKILL)
        mechanism = f"SIGKILL by pidfd_send_signal, {self._times} times, at each return"
        return self._strike.receipt(self.name, mechanism, "the first kill call", when)

    async def operate(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Kill again at each return; start again what only Blackstart starts, the last time, too."""
        try:
            await asyncio.gather(*(self._loop(ctx, name, receipt) for name in receipt.hit))
        finally:
            self._over.set()

    async def _loop(self, ctx: FaultContext, name: str, receipt: Receipt) -> None:
        deaths = self._deaths[name] = []
        manifest = ctx.target.manifest
        restart = death.ours(manifest, [name])
        self._ours[name] = bool(restart)
        end = receipt.t0_mono_ns + round(manifest.limits.fault_limit_s * 1e9)
        process, struck, bed = self._strike.bed.ref(name), receipt.t0_mono_ns, self._strike.bed
        while True:
            deaths.append(_told(len(deaths) + 1, process, struck, await _death_of(name, bed)))
            await death.start_again(ctx, restart)
            if len(deaths) == self._times:
                return
            again = await self._return(ctx, name, process, end)
            if again is None:
                return
            process = again.ref(name)
            (_, struck), bed = await again.strike(signal.SIGKILL), again

    async def _return(
        self, ctx: FaultContext, name: str, before: AnyRef, end_ns: int
    ) -> death.Deathbed | None:
        """Wait for another process behind the component, and watch it; None when none comes in time."""
        deadline = min(end_ns, ctx.clock.now().mono_ns + int(self._limit_s * 1e9))
        while ctx.clock.now().mono_ns < deadline:
            with contextlib.suppress(TargetError, FaultError):  # nobody there yet, or no longer
                if (bed := await death.around(ctx, [name], remote=True)).ref(name) != before:
                    return bed
                bed.close()
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _LOOK_NS)
        return None

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Prove every death by the kernel's notice; fewer than asked for is no crash loop."""
        del ctx, receipt
        await self._over.wait()
        evidence = {
            name: {
                "wanted": self._times,
                "died": len(deaths),
                "deaths": deaths,
                "started_by_blackstart": self._ours[name],
            }
            for name, deaths in self._deaths.items()
        }
        return Witness(bit=all(one["died"] == self._times for one in evidence.values()), evidence=evidence)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Let it live."""
        del ctx, receipt
        self._over.set()
        self._strike.close()


async def _death_of(name: str, bed: death.Deathbed) -> int:
    """Wait for the kernel's notice; returns when it came. Raises FaultError when it does not."""
    deadline = asyncio.get_running_loop().time() + _END_LIMIT_S
    while name not in bed.noticed:
        if asyncio.get_running_loop().time() > deadline:
            raise FaultError(f"still there {_END_LIMIT_S:g} s after SIGKILL", where=name)
        await asyncio.sleep(0.001)
    return bed.noticed[name]


def _told(number: int, process: AnyRef, struck: int, noticed: int) -> dict[str, Any]:
    return {
        "number": number,
        "pid": process.pid,
        "struck_mono_ns": struck,
        "noticed_after_ms": (noticed - struck) / 1e6,
    }
