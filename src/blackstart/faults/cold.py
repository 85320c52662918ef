"""Cold restart: processes killed, their state on disk wiped, then started with nothing (R3)."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from blackstart.contracts import FaultContext, Restartable
from blackstart.errors import FaultError
from blackstart.faults import death
from blackstart.model.fault import Receipt, Witness

if TYPE_CHECKING:
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_END_LIMIT_S = 10.0


class Cold:
    """SIGKILL, then the `state` paths of the processes are removed before the operator starts them again."""

    name = "cold"

    def __init__(self) -> None:
        self._bed: death.Deathbed | None = None
        self._wiped: asyncio.Event = asyncio.Event()

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`: nothing is cold whose state nobody can wipe before it is started again."""
        return death.no_processes(target, step.components) or _not_wiped(target, step)

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Open handles on the processes before the trigger.

        Looking them up takes longer than killing them.
        """
        self._bed = await death.aimed(self._bed, ctx, step)

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Kill the step's components.

        The wiping is the operator's part, because files may only go once nobody writes them.
        """
        restart = death.ours(ctx.target.manifest, step.components)
        state = [str(path) for path in _state(ctx, restart)]
        self._bed = bed = await death.aimed(self._bed, ctx, step)
        before, after = await bed.strike(signal.SIGKILL)
        return Receipt(
            fault=self.name,
            mechanism="SIGKILL by pidfd_send_signal, state removed",
            t0_mono_ns=after,
            t0_source="the kill call",
            uncertainty_ns=after - before,
            processes=bed.processes,
            data={"restart": restart, "state": state},
        )

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Prove the deaths, and that the state was gone before the restart."""
        del ctx
        assert self._bed is not None
        deaths = await death.witness(self._bed, receipt.t0_mono_ns, limit_s=_END_LIMIT_S)
        try:
            async with asyncio.timeout(_END_LIMIT_S):
                await self._wiped.wait()
        except TimeoutError:
            return Witness(bit=False, evidence={**deaths.evidence, "wiped": False})
        bit = deaths.bit if receipt.data["state"] else False
        return Witness(bit=bit, evidence={**deaths.evidence, "wiped": receipt.data["state"]})

    async def operate(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Wipe and start with nothing."""
        assert self._bed is not None
        if not await self._bed.gone(_END_LIMIT_S):
            raise FaultError("still there after SIGKILL", where=", ".join(self._bed.processes))
        for path in map(Path, receipt.data["state"]):
            await asyncio.to_thread(_remove, path)
        self._wiped.set()
        await death.start_again(ctx, receipt.data["restart"])

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Let the handles go; what was wiped is wiped."""
        del ctx, receipt
        if self._bed is not None:
            self._bed.close()


def _not_wiped(manifest: Manifest, step: FaultStep) -> str | None:
    names = death.members(manifest, step.components)
    ours = death.ours(manifest, names)
    for name in (one for one in names if one in manifest.components):
        process = manifest.components[name].process
        if process is None or process not in ours:
            return f"`{name}` is not a process that Blackstart starts again: nobody wipes its state before"
        if not manifest.processes[process].state:
            return f"the manifest does not say which state of `{process}` a cold restart wipes"
    return None


def _state(ctx: FaultContext, processes: list[str]) -> list[Path]:
    target = ctx.target
    assert isinstance(target, Restartable)
    return [Path(path) for name in processes for path in target.state_paths(name)]


def _remove(path: Path) -> None:
    """Remove a file or folder.

    Processes that die with their parent may write for one more moment: try again until it is gone.
    """
    for _ in range(100):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        if not path.exists():
            return
    raise FaultError("cannot be removed", where=str(path))
