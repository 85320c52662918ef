"""Looks at everything that a fault may leave behind, and at what the target does; believes nobody."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.nftables.main import NFTables

from blackstart.host import procs
from blackstart.target import glue, http

if TYPE_CHECKING:
    from blackstart.model.fault import ProcessRef

_LIMIT_S = 5.0
_HELPERS = ("hog", "duty", "netholder", "strace")


class Looker:
    """Remembers how it was in the beginning."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx
        self._manifest = ctx.manifest
        self._before: dict[str, Any] = {}

    async def begin(self) -> None:
        """Wait until the target serves, and remember how everything looks."""
        await self.serves()
        self._before = await self._look()

    async def left(self) -> dict[str, Any]:
        """Say what differs from the beginning; what needs a moment gets it."""
        end = time.monotonic() + _LIMIT_S
        while True:
            now = await self._look()
            found = {
                k: [self._before.get(k), now.get(k)]
                for k in {*self._before, *now}
                if self._before.get(k) != now.get(k)
            }
            if not found or time.monotonic() > end:
                break
            await asyncio.sleep(0.02)
        return found or await self.serves()

    async def _look(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "mounts": _mounts(),
            "tables": sorted(await asyncio.to_thread(_tables)),
            "groups": sorted(_groups()),
            "helpers": sorted(_helpers()),
            "environment": dict(os.environ),
            "files": self._files(),
        }
        for name in self._manifest.components:
            try:
                found[name] = _process(await self._ctx.target.process(name))
            except Exception as error:  # noqa: BLE001 - then that is how it looks
                found[name] = str(error)
        return found

    def _files(self) -> dict[str, Any]:
        run = self._ctx.target.run_dir
        state, memory = run / "state", run / "memory"
        if not memory.exists():
            return {}
        names = sorted(path.name for path in state.iterdir())
        return {
            "names": names,
            "limits": (state / "limits").read_text(),
            "limit": memory.read_bytes()[12:24].hex(),
        }

    async def serves(self) -> dict[str, Any]:
        """See that the target does what it should; says what it does not."""
        if self._manifest.name == "small":
            return await self._small()
        if self._manifest.oracle is not None:
            return await self._exchange()
        deadline = time.monotonic() + _LIMIT_S
        while True:
            try:
                await self._ctx.target.ask("server", "SELECT 1")
            except Exception as error:  # noqa: BLE001
                if time.monotonic() > deadline:
                    return {"database": str(error)}
            else:
                return {}

    async def _small(self) -> dict[str, Any]:
        """See that the server takes a line, syncs without errors, knows the time, and both links carry."""
        module = glue.load(glue.path(self._manifest))
        settings = self._ctx.target.settings()
        before, wrong = None, {"status": "never answered"}
        deadline = time.monotonic() + _LIMIT_S
        while wrong and time.monotonic() < deadline:
            try:
                async with asyncio.timeout(1.0):
                    now = await module.status(settings)
                    connection = await module.connect(settings)
                    await module.write(connection, {"id": str(time.monotonic_ns())})
                    connection.close()
            except (OSError, ValueError, TimeoutError) as error:
                wrong, before = {"status": f"{type(error).__name__}: {error}"}, None
            else:
                wrong = _trouble(before or now, now) if before else {"status": "once only"}
                before = now
            await asyncio.sleep(0.05)
        return wrong

    async def _exchange(self) -> dict[str, Any]:
        """See that the exchange has nothing armed, and its member is logged on."""
        url = self._ctx.target.values["exchange"]["http"]
        deadline = time.monotonic() + 3 * _LIMIT_S
        while True:
            try:
                listed = (await http.fetch_json(f"{url}/control/misbehaviours"))["misbehaviours"]
                armed = [one["action"] for one in listed if one["armed"]]
                on = await self._ctx.oracle.summary()
            except Exception as error:  # noqa: BLE001
                armed, on = [str(error)], {}
            wrong = {"armed": armed} if armed else {}
            if not any(one.get("logged_on") for one in on.get("sessions", {}).values()):
                wrong["summary"] = on
            if not wrong or time.monotonic() > deadline:
                return wrong
            await asyncio.sleep(0.05)

    async def end(self, name: str) -> None:
        """Kill a process of the target."""
        ref = self._ctx.target.operator.child(name).ref
        os.kill(ref.pid, signal.SIGKILL)
        while procs.is_alive(ref.pid, ref.start_ticks):  # noqa: ASYNC110 - the kernel has no event for us here
            await asyncio.sleep(0.005)

    async def start(self, name: str) -> None:
        """Start it again."""
        await asyncio.sleep(0.05)
        await self._ctx.target.start(name)


def _trouble(before: dict[str, int], now: dict[str, int]) -> dict[str, Any]:
    wrong: dict[str, Any] = {}
    wrong |= {
        name: [before[name], now[name]]
        for name in ("beats", "mirrored", "echoed")
        if now[name] <= before[name]
    }
    if now["failed"] > before["failed"]:
        wrong["failed"] = [before["failed"], now["failed"]]
    if abs(ahead := now["wall_ns"] - time.time_ns()) > 1_000_000_000:
        wrong["clock_ahead_s"] = ahead / 1e9
    return wrong


def _mounts() -> list[str]:
    return sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _tables() -> list[str]:
    """Name the tables of the packet filter; none for whoever may not look, and so could not make one."""
    with NFTables() as filters:
        try:
            return [str(table.get_attr("NFTA_TABLE_NAME")) for table in filters.get_tables()]
        except NetlinkError as error:
            if error.code != errno.EPERM:
                raise
            return []


def _groups() -> list[str]:
    """Find groups of ours: their names hold our pid."""
    return [
        str(path) for path in Path("/sys/fs/cgroup").rglob(f"*blackstart-{os.getpid()}-*") if path.is_dir()
    ]


def _helpers() -> list[str]:
    """Programs of faults among our descendants."""
    family = procs.family(os.getpid(), procs.stat(os.getpid()).start_ticks, young=False)  # type: ignore[union-attr]
    found = []
    for one in family:
        try:
            words = Path(f"/proc/{one.pid}/cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        found += [
            name
            for name in _HELPERS
            if any(
                word in (name, f"blackstart.host.{name}") or word.endswith(f"/{name}.py") for word in words
            )
        ]
    return found


def _process(ref: ProcessRef) -> dict[str, Any]:
    """Tell what a fault may have changed in a process that lives."""
    folder = Path(f"/proc/{ref.pid}")
    found = procs.stat(ref.pid)
    status = dict(
        line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line
    )
    return {
        "stands": found.stopped if found else "gone",
        "oom_score_adj": (folder / "oom_score_adj").read_text().strip(),
        "groups": (folder / "cgroup").read_text(),
        "address_space": resource.prlimit(ref.pid, resource.RLIMIT_AS),
        "nice": os.getpriority(os.PRIO_PROCESS, ref.pid),
        "tracer": status.get("TracerPid"),
    }
