"""All faults by name.

The built-in ones, and those that other packages bring (entry points `blackstart.faults`).
"""

from __future__ import annotations

import difflib
import functools
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from blackstart.contracts import Fault, ReachesHosts, Selective
from blackstart.errors import ScenarioError
from blackstart.faults.clock_skew import ClockSkew
from blackstart.faults.cold import Cold
from blackstart.faults.cpu_quota import CpuQuota
from blackstart.faults.cpu_stress import CpuStress
from blackstart.faults.crash_loop import CrashLoop
from blackstart.faults.disconnect import Disconnect
from blackstart.faults.disk.disk_error import disk_error
from blackstart.faults.disk.disk_full import DiskFull
from blackstart.faults.disk.disk_slow import disk_slow
from blackstart.faults.disk.fsync_fail import fsync_fail
from blackstart.faults.disk.fsync_lie import fsync_lie
from blackstart.faults.flip_file_bits import FlipFileBits
from blackstart.faults.flip_memory_bits import FlipMemoryBits
from blackstart.faults.kill import Kill
from blackstart.faults.kill_at_syscall import KillAtSyscall
from blackstart.faults.memory_pressure import MemoryPressure
from blackstart.faults.misbehave import Misbehave
from blackstart.faults.network import (
    bandwidth,
    corrupt_packets,
    duplicate_packets,
    half_open,
    latency,
    packet_loss,
    partition,
    reorder,
    reset,
    slow_reader,
)
from blackstart.faults.network.fault import NetworkFault
from blackstart.faults.nonsense import Nonsense
from blackstart.faults.oom import Oom
from blackstart.faults.pause import Pause
from blackstart.faults.pause_service import PauseService
from blackstart.faults.refuse_service import RefuseService
from blackstart.faults.segv import Segv
from blackstart.faults.stop_service import StopService
from blackstart.faults.terminate import Terminate
from blackstart.faults.truncate_file import TruncateFile
from blackstart.scenario import radius
from blackstart.scenario.plan import EACH, flat

if TYPE_CHECKING:
    from collections.abc import Callable

    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

GROUP = "blackstart.faults"
_BUILT_IN: tuple[Callable[[], Fault], ...] = (
    Kill,
    Terminate,
    Cold,
    Disconnect,
    Pause,
    Segv,
    CrashLoop,
    KillAtSyscall,
    Oom,
    MemoryPressure,
    CpuStress,
    CpuQuota,
    FlipFileBits,
    FlipMemoryBits,
    TruncateFile,
    Misbehave,
    Nonsense,
    StopService,
    PauseService,
    RefuseService,
    *(
        functools.partial(NetworkFault, one.KIND)
        for one in (
            partition,
            packet_loss,
            reset,
            half_open,
            latency,
            reorder,
            duplicate_packets,
            corrupt_packets,
            bandwidth,
            slow_reader,
        )
    ),
    DiskFull,
    disk_error,
    disk_slow,
    fsync_fail,
    fsync_lie,
    ClockSkew,
)


def unavailable(fault: Fault, manifest: Manifest, step: FaultStep) -> str | None:
    """Say why a fault cannot be done to a target here, or None when it can.

    Asked everywhere instead of the fault itself: of one that does not say that it reaches other hosts
    (`ReachesHosts`), also one from a plug-in, it is known here that it does not.
    """
    reasons = [_unreachable(fault, manifest, step, name) for name in flat(step.components, manifest)]
    given = [reason for reason in reasons if reason is not None]
    if given and (EACH not in step.components or len(given) == len(reasons)):
        return given[0]
    return _not_kept(fault, manifest, step) or fault.unavailable(manifest, step)


def _not_kept(fault: Fault, manifest: Manifest, step: FaultStep) -> str | None:
    """Say why a fault cannot be kept to the symbols of its step, or None."""
    if not step.symbols:
        return None
    if strangers := radius.unknown(manifest, step.symbols):
        return f"{manifest.name} does not trade {', '.join(strangers)}"
    why_not = fault.selective(step) if isinstance(fault, Selective) else "it hits all symbols alike"
    return None if why_not is None else f"cannot be kept to {', '.join(step.symbols)}: {why_not}"


def _unreachable(fault: Fault, manifest: Manifest, step: FaultStep, name: str) -> str | None:
    host = manifest.host_of(name)
    if host is None:
        return None
    why = fault.unreachable(step) if isinstance(fault, ReachesHosts) else "it acts on this host only"
    return None if why is None else f"`{name}` runs on host `{host}`: {why}"


@cache
def known() -> dict[str, Callable[[], Fault]]:
    """Return what makes each fault, by its name. A plug-in may not replace a built-in one."""
    made: dict[str, Callable[[], Fault]] = {}
    for point in entry_points(group=GROUP):
        made[point.name] = point.load()
    return made | {factory().name: factory for factory in _BUILT_IN}


def make(kind: str) -> Fault:
    """Make a fresh fault for one trial.

    Raises ScenarioError for an unknown kind or a plug-in that breaks the contract.
    """
    factory = known().get(kind)
    if factory is None:
        close = difflib.get_close_matches(kind, known(), n=1)
        meant = f"did you mean `{close[0]}`? " if close else ""
        raise ScenarioError(
            f"no such fault: `{kind}`", where="fault.kind", hint=f"{meant}known: {', '.join(sorted(known()))}"
        )
    fault = factory()
    missing = [
        name
        for name in ("unavailable", "inject", "witness", "revert")
        if not callable(getattr(fault, name, None))
    ]
    if missing or not isinstance(fault, Fault):
        raise ScenarioError(
            f"the plug-in lacks: {', '.join(missing) or 'name'}",
            where=f"fault `{kind}`",
            hint="see CREATING_FAULTS.md",
        )
    return fault
