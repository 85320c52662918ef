"""For each kind of fault a way to leave the deed out while the fault believes that it was done.

The limits for which witnesses wait are made short meanwhile.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import re
import signal
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from blackstart import faults
from blackstart.faults import death
from blackstart.faults.network.rules import rules
from blackstart.host import seccomp
from blackstart.host.seccomp_rules import Counters
from blackstart.host.shaping import Shape
from blackstart.target.local import LocalTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

WHY = "this host forbids it: ask its operator"
HOST = (
    "blackstart.host.cgroups.unavailable",
    "blackstart.host.seccomp.unavailable",
    "blackstart.host.strace.unavailable",
    "blackstart.host.ptrace.unavailable",
    "blackstart.host.vdso.unavailable",
    "blackstart.host.netprobe.unavailable",
    "blackstart.host.netprobe.ours",
    "blackstart.host.namespaces.unavailable",
)
_SHORT_S = 0.3
_NEUTRAL = Shape()._asdict()
_put, _ask = seccomp.Supervisor.put, LocalTarget.ask


def _now(*_args: Any, **_more: Any) -> tuple[int, int]:
    moment = time.monotonic_ns()
    return moment, moment


def _jump(*_args: Any) -> Any:
    before, after = _now()
    return SimpleNamespace(before_mono_ns=before, after_mono_ns=after, moved=False)


async def _elsewhere(self: seccomp.Supervisor, rule: seccomp.Rule) -> None:
    await _put(self, rule._replace(path="/nowhere/"))


async def _gently(self: seccomp.Supervisor, rule: seccomp.Rule) -> None:
    await _put(self, rule._replace(action="continue"))


async def _acted(_self: Any, _rule: str, _limit_s: float) -> Counters:
    before, after = _now()
    return Counters(
        first_mono_ns=after, samples=({"call": "x", "before_mono_ns": before, "after_mono_ns": after},)
    )


async def _answer(*_args: Any, **_more: Any) -> dict[str, Any]:
    return {"id": "M999", "mono_ns": time.monotonic_ns()}


async def _question(
    self: Any, component: str, statement: str, *arguments: Any, from_outside: bool = False
) -> Any:
    harmless = statement.startswith("SELECT") and "terminate" not in statement
    return await _ask(self, component, statement, *arguments, from_outside=from_outside) if harmless else 0


def _rules(*args: Any) -> Any:
    return [one._replace(port=1) for one in rules(*args)]


_SIGNAL = {"blackstart.host.death.DeathNotice.signal": lambda _self, _number: True}
_GO = {"blackstart.host.helpers.Helper.go": lambda _self: None}
_NETWORK = {"blackstart.faults.network.kernel.rules": _rules}
_QUEUE = {
    "blackstart.host.shaping.Shape._asdict": lambda _self: _NEUTRAL
}  # the packets go through, and nothing is done
_CALLS = {
    "blackstart.host.seccomp.Supervisor.put": _elsewhere,
    "blackstart.host.seccomp.Supervisor.acted": _acted,
}
_EXCHANGE = {"blackstart.target.exchange_oracle.ExchangeOracle.misbehave": _answer}
_BITS = {
    "blackstart.host.bits.write": lambda *_args, **_more: None,
    "blackstart.host.bits.cut": lambda *_args: None,
}

SABOTAGE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("kill", "terminate", "cold", "crash_loop", "pause", "stop_service"), _SIGNAL),
    "segv": {**_SIGNAL, "blackstart.host.ptrace.jump_to_null": _jump},
    "pause_service": {"blackstart.host.procs.send": lambda _one, number: number != signal.SIGSTOP},
    "kill_at_syscall": {
        "blackstart.host.seccomp.Supervisor.put": _gently,
        "blackstart.host.seccomp.Supervisor.acted": _acted,
    },
    "oom": {**_GO, "blackstart.faults.oom._kills": lambda _folder: 1},
    "memory_pressure": _GO,
    "cpu_stress": _GO,
    "cpu_quota": {**_GO, "blackstart.host.cgroups.write": lambda *_args: None},
    "clock_skew": {"blackstart.host.vdso.apply": _now},
    "disk_full": {"blackstart.host.mounts.Ballast.fill": lambda *_args, **_more: 0},
    **dict.fromkeys(("disk_error", "disk_slow", "fsync_fail", "fsync_lie"), _CALLS),
    **dict.fromkeys(("flip_file_bits", "truncate_file", "flip_memory_bits"), _BITS),
    **dict.fromkeys(("misbehave", "disconnect", "nonsense"), _EXCHANGE),
    "refuse_service": {"blackstart.target.local.LocalTarget.ask": _question},
    **dict.fromkeys(("partition", "packet_loss", "reset", "half_open"), _NETWORK),
    **dict.fromkeys(
        ("latency", "reorder", "duplicate_packets", "corrupt_packets", "bandwidth", "slow_reader"), _QUEUE
    ),
}


@contextlib.contextmanager
def of(kind: str) -> Iterator[None]:
    """Leave the deed of that kind out. Raises KeyError where nobody has said how."""
    with contextlib.ExitStack() as stack:
        for place, instead in {**SABOTAGE[kind], **_impatience()}.items():
            stack.enter_context(mock.patch(place, instead))
        for function in (death.witness, death.Strike.witness):
            stack.enter_context(mock.patch.dict(function.__kwdefaults__, limit_s=_SHORT_S))
        yield


def _impatience() -> dict[str, Any]:
    """Shorten every limit of the faults."""
    found = {}
    for one in pkgutil.walk_packages(faults.__path__, "blackstart.faults."):
        module = importlib.import_module(one.name)
        for name in vars(module):
            if limit := re.search(r"_LIMIT_(S|NS)$", name):
                found[f"{one.name}.{name}"] = _SHORT_S if limit[1] == "S" else int(_SHORT_S * 1e9)
    return found
