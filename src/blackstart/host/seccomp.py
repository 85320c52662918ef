"""System calls of running or starting processes, answered by rules: fail, delay, pretend, kill at the n-th.

    supervisor = await seccomp.supervisor(folder)
    await supervisor.attach(pid, seccomp.WRITES | seccomp.SYNCS)  # or await supervisor.prefix(…)
    await supervisor.put(Rule(id="full", calls=seccomp.WRITES, path="/s/", action="errno", errno=28))
    …
    counters = await supervisor.drop("full")

All threads and later children are covered, static binaries and Go too; own processes need no privilege. A
filter can never be removed: without rules its calls pass, at 8 µs each, for as long as the process lives.
Writes through shared mappings and io_uring are not system calls: `blind_spots` names them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackstart.errors import FaultError
from blackstart.host import cgroups, procs, ptrace, seccomp_launch, syscalls
from blackstart.host.finishing import finished
from blackstart.host.ptrace import UnansweredError
from blackstart.host.seccomp_rules import Counters, Rule
from blackstart.host.syscalls import OPENS, RENAMES, SIZES, SYNCS, UNLINKS, WRITES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = (
    "OPENS",
    "RENAMES",
    "SIZES",
    "SYNCS",
    "UNLINKS",
    "WRITES",
    "Counters",
    "Rule",
    "Supervisor",
    "UnansweredError",
    "blind_spots",
    "supervisor",
    "unavailable",
)

_LIMIT_S = 5.0
_HELD_LIMIT_S = 30.0
_LINE = 1 << 17
_running: dict[str, Supervisor] = {}


class Supervisor:
    """The owner's side of the process that answers. Every request raises FaultError when that is gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._name = f"blackstart-seccomp-{secrets.token_hex(8)}"
        self._token = secrets.token_hex(16)
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._calls: dict[tuple[int, int], frozenset[str]] = {}
        self._unanswered: list[tuple[int, int]] = []
        self._expected: frozenset[str] = frozenset()
        self._prefixed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None

    @property
    def pid(self) -> int:
        """The process that answers; its keeper is its child."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start the process, and wait until it is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs, (self.folder / "seccomp.log").open("ab") as log:
            command = [sys.executable, "-m", "blackstart.host.seccomp_server", str(theirs.fileno())]
            self._process = subprocess.Popen(  # noqa: ASYNC220 - an ordinary one is not waited for by the loop
                [*command, self._name, self._token],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=_environment(),
            )
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_LIMIT_S):
                ready = await loop.sock_recv(ours, _LINE)
        except TimeoutError:
            ready = b""
        if not ready:
            ours.close()
            raise FaultError("the seccomp supervisor did not start", where=str(self.folder / "seccomp.log"))
        self._link = ours
        loop.add_reader(ours, self._readable)

    async def expect(self, calls: Iterable[str]) -> None:
        """Hear which calls will be needed: a process gets one filter, and it cannot grow later.

        Every filter that is made from now on has them.
        """
        self._expected |= frozenset(calls)
        await self._ask({"expect": sorted(self._expected)})

    async def attach(self, pid: int, calls: Iterable[str]) -> None:
        """Have these calls of a running process answered; harmless when that is so already.

        There is one listener a process: `expect` all calls that will be needed. Raises FaultError; where that
        is `UnansweredError`, the process must be started again, and every `undo` from now on says so.
        """
        wanted, ref = frozenset(calls), _identity(pid)
        if self._prefixed and ref not in self._calls and procs.filtered(pid):
            self._calls[ref] = self._expected  # it, or who started it, came through `prefix`
        if wanted <= self._calls.get(ref, frozenset()):
            return
        if ref in self._calls:
            missing = ", ".join(sorted(wanted - self._calls[ref]))
            raise FaultError(
                f"its filter was built without: {missing}", where=f"pid {pid}", hint="one a process"
            )
        await finished(self._put_in(pid, ref, wanted | self._expected))

    async def _put_in(self, pid: int, ref: Any, wanted: frozenset[str]) -> None:
        """Have the filter installed, and remember it."""
        try:
            await asyncio.to_thread(self._filter, pid, wanted)
        except UnansweredError:
            self._unanswered.append(ref)
            raise
        self._calls = {one: held for one, held in self._calls.items() if _lives(one)} | {ref: wanted}
        if not ptrace.descends(pid):
            self._outlive()

    def _outlive(self) -> None:
        """Leave our control groups, supervisor and keeper: who we did not start needs one of them after us.

        A service manager, a CI job and an engine kill whatever is left in a group when it ends.
        """
        for one in (self.pid, *procs.children(self.pid)):
            cgroups.leave(one)

    async def prefix(self, calls: Iterable[str]) -> tuple[str, ...]:
        """Return the command to put in front of one that shall have its calls answered from its start.

        These, and all that are expected by the time that it starts: the command is the same for all.
        """
        await self.expect(calls)
        self._prefixed = True
        return (sys.executable, "-E", "-S", str(seccomp_launch.__file__), self._name, self._token)

    async def put(self, rule: Rule) -> None:
        """Add a rule; one of the same id is replaced. Raises FaultError when it makes no sense."""
        if (problem := rule.problem()) is not None:
            raise FaultError(problem, where=f"rule {rule.id}")
        await self._ask({"put": {**rule._asdict(), "calls": sorted(rule.calls)}})

    async def drop(self, rule: str) -> Counters | None:
        """Take a rule out, and return what it has seen; calls that it delays go on at once."""
        answer = await self._ask({"drop": [rule]})
        return _counters(answer["counters"].get(rule))

    async def counters(self, rule: str) -> Counters | None:
        """Return what a rule has seen so far; None when there is no such rule."""
        return _counters((await self._ask({"counters": rule}))["counters"])

    async def acted(self, rule: str, limit_s: float) -> Counters | None:
        """Wait until a rule has acted for the first time; None after `limit_s`, or when it is dropped."""
        try:
            return _counters((await self._ask({"acted": rule}, limit_s))["counters"])
        except TimeoutError:
            return None

    def undo(self, *rules: str) -> dict[str, Any]:
        """Return the arguments of the guardian's verb `seccomp`, which takes these rules out without us."""
        known = {"filtered": self._calls, "unanswered": self._unanswered}
        refs = {name: [list(ref) for ref in found] for name, found in known.items()}
        return {"name": self._name, "token": self._token, "rules": list(rules), **refs}

    def close(self) -> None:
        """Take all rules out; idempotent. The process ends itself with the last of those it serves."""
        _running.pop(str(self.folder), None)
        if self._link is not None:
            asyncio.get_running_loop().remove_reader(self._link)
            self._link.close()
        self._end()

    async def _ask(self, request: dict[str, Any], limit_s: float = _LIMIT_S) -> dict[str, Any]:
        if self._link is None:
            raise self._gone()
        self._number += 1
        number = self._number
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            self._link.send(json.dumps({**request, "number": number}).encode())
            return await asyncio.wait_for(answer, limit_s)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise self._gone() from error
        finally:
            self._answers.pop(number, None)

    def _readable(self) -> None:
        assert self._link is not None
        try:
            data = self._link.recv(_LINE)
        except ConnectionError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._link)
            self._link.close()
            self._end()
            return
        answer = json.loads(data)
        waiting = self._answers.get(answer["number"])
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _end(self) -> None:
        self._link = None
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(self._gone())

    def _filter(self, pid: int, calls: frozenset[str]) -> None:
        """Filter a process, and give the listener to the supervisor, which was seen to answer just before.

        A filter cannot be taken out again, and without a supervisor it fails the calls: never the other way.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
            link.settimeout(_LIMIT_S)
            with self._answering():
                link.connect(f"\0{self._name}")
                self._tell(link, {})
            link.settimeout(_HELD_LIMIT_S)  # it has the listener even when it is too busy to say so soon

            def keep(listener: int) -> None:
                with self._answering():
                    self._tell(link, {"listener": 0}, listener)

            ptrace.add_filter(pid, calls, keep)

    def _tell(self, link: socket.socket, request: dict[str, Any], *handles: int) -> None:
        """Say something to the supervisor, and hear that it was done. Raises OSError."""
        socket.send_fds(link, [json.dumps({"token": self._token, **request}).encode()], handles)
        if not link.recv(_LINE):
            raise ConnectionResetError

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = str(self.folder / "seccomp.log")
            raise FaultError("the seccomp supervisor does not answer", where=where) from error

    def _gone(self) -> FaultError:
        where = str(self.folder / "seccomp.log")
        return FaultError("the seccomp supervisor is gone; its keeper lets every call pass", where=where)


async def supervisor(folder: Path) -> Supervisor:
    """Return the running supervisor of a trial, started at the first request: all its faults share it."""
    found = _running.get(str(folder))
    if found is None or found._link is None:  # noqa: SLF001 - the same module
        found = _running[str(folder)] = Supervisor(folder)
        await found.start()
    return found


def blind_spots(pid: int) -> list[str]:
    """Name what of a process' output no system call shows: shared writable files, and io_uring.

    Of one that has ended: nothing.
    """
    found = []
    try:
        mapped = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
        open_files = list(os.scandir(f"/proc/{pid}/fd"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # a zombie's belong to root
        return []
    for line in mapped.splitlines():
        parts = line.split(maxsplit=5)
        if parts[1][1] == "w" and parts[1][3] == "s" and len(parts) == 6 and parts[5].startswith("/"):  # noqa: PLR2004 - a named mapping
            found.append(f"shared mapping of {parts[5]}")
    for entry in open_files:
        try:
            if "io_uring" in Path(entry.path).readlink().name:
                found.append("io_uring")
        except OSError:
            continue
    return sorted(set(found))


@cache
def unavailable(*, attach: bool = True) -> str | None:
    """Say why this cannot be done here, tried on a child of ours; `attach`: while it runs."""
    if syscalls.MACHINE not in syscalls.AUDIT_ARCH:
        return f"no system call table for {syscalls.MACHINE}"
    if attach and (reason := ptrace.unavailable()) is not None:
        return reason
    if not attach:
        return _try_install()
    child = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
    try:
        ptrace.add_filter(child.pid, syscalls.SYNCS, lambda _: None)
    except (FaultError, OSError) as error:
        return f"seccomp user notification: {error}"
    finally:
        child.kill()
        child.wait()
    return None


def _try_install() -> str | None:
    code = "from blackstart.host import seccomp_filter as f, syscalls as s; f.install(s.SYNCS)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_environment()
    )
    return None if done.returncode == 0 else f"seccomp user notification: {done.stderr.splitlines()[-1]}"


def _environment() -> dict[str, str]:
    """Let helpers find this package, and nobody take them for a part of the target."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**{k: v for k, v in os.environ.items() if k != procs.MARKER}, "PYTHONPATH": path}


def _identity(pid: int) -> tuple[int, int]:
    found = procs.stat(pid)
    if found is None or found.dead:
        raise FaultError("has ended", where=f"pid {pid}")
    return found.pid, found.start_ticks


def _lives(ref: tuple[int, int]) -> bool:
    found = procs.stat(ref[0])
    return found is not None and (found.pid, found.start_ticks) == ref


def _counters(found: dict[str, Any] | None) -> Counters | None:
    return None if found is None else Counters(**{**found, "samples": tuple(found["samples"])})
