"""One child process: started, watched by pidfd, started again after a back-off."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from paperfirm.alerts import Alerts
from paperfirm.config import SupervisorSettings
from paperfirm.servers import Identity, enter
from paperfirm.supervisor.backoff import Backoff
from paperfirm.supervisor.component import NO_MEMORY, PARENT_VARIABLE
from paperfirm.supervisor.memory import Record, examine

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Awaitable, Callable, Coroutine

    from paperfirm.supervisor.memory import Cause, Sample

State = Literal["starting", "running", "back_off", "stopped"]

POLL_S = 0.02
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_WHY = {
    "itself": "could not allocate memory",
    "group": "was killed by the kernel: its memory group is full",
    "host": "was killed when the kernel killed for want of memory",
    None: "was killed, and nobody knows by whom",
}


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a child, how to end it, and how to know that it works (`is_ready`, given its pid)."""

    name: str
    argv: list[str]
    log: Path
    identity: Identity
    is_ready: Callable[[int], Awaitable[bool]]
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    stop_limit_s: float = 5.0
    own: bool = False
    """One of our own components, which calls `die_with_supervisor` itself."""


def _environment() -> dict[str, str]:
    """Return our own without what would have every restart compile all modules again."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, PARENT_VARIABLE: str(os.getpid())}


class Child:
    """A component or server under the supervisor. `emit` writes events."""

    def __init__(
        self,
        spec: Spec,
        emit: Callable[..., int],
        *,
        on_exit: Callable[[Child], None],
        settings: SupervisorSettings | None = None,
        alerts: Alerts | None = None,
    ) -> None:
        self.spec = spec
        self._emit = emit
        self._on_exit = on_exit
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._settings = settings = settings or SupervisorSettings()
        self._alerts = alerts or Alerts(emit)
        self._backoff = Backoff(
            first_s=settings.first_s, longest_s=settings.longest_s, stable_s=settings.stable_s
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = self._killing = False
        self.memory = Record()
        self.exited = asyncio.Event()
        self.state: State = "starting"
        self.restarts = 0
        self.started_ns = self.heartbeat_ns = 0

    @property
    def name(self) -> str:
        """The component's name."""
        return self.spec.name

    @property
    def pid(self) -> int | None:
        """Its process, if there is one."""
        return self._process.pid if self._process is not None else None

    @property
    def rss_bytes(self) -> int:
        """Memory of its process now, 0 without one: a leak shows before the kernel ends it."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        except OSError:
            return 0
        return int(pages) * PAGE_BYTES

    def start(self) -> None:
        """Start the process and watch it."""
        self._emit("component_starting", component=self.name)
        try:
            self._process = self._popen()
        except (OSError, subprocess.SubprocessError) as error:
            self._emit("component_start_failed", component=self.name, reason=str(error))
            self._start_again(ran_s=0.0)
            return
        self.exited.clear()
        self._killing = False
        pid = self._process.pid
        self.memory.begin(pid)
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._died)
        self.state = "starting"
        self.started_ns = self.heartbeat_ns = self._emit("component_started", component=self.name, pid=pid)
        self._spawn(self._await_ready(pid))

    def _popen(self) -> subprocess.Popen[bytes]:
        self.spec.log.parent.mkdir(parents=True, exist_ok=True)
        with self.spec.log.open("ab") as log:
            return subprocess.Popen(
                self.spec.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                process_group=0,  # Ctrl-C in a terminal is for the supervisor, which then stops in order
                preexec_fn=self._before_exec(),  # noqa: PLW1509 - no threads here
            )

    def _before_exec(self) -> Callable[[], None] | None:
        """Our own components ask to die with us by themselves.

        Without a hook the start is a cheap vfork (1 ms, not 10).
        """
        return None if self.spec.own else enter(self.spec.identity, self.spec.death_signal)

    async def stop(self) -> None:
        """End it cleanly; by force when it does not go."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        if self._process is None:
            self.state = "stopped"
            return
        self._signal(self.spec.stop_signal)
        try:
            async with asyncio.timeout(self.spec.stop_limit_s):
                await self.exited.wait()
        except TimeoutError:
            self._emit("component_killed", component=self.name, reason="did not end in time")
            self._signal(signal.SIGKILL)
            await self.exited.wait()

    def restart(self) -> None:
        """End it; it is started again like after any death."""
        self._signal(self.spec.stop_signal)

    def _signal(self, number: signal.Signals) -> None:
        self._killing |= number == signal.SIGKILL
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, number)

    def _died(self) -> None:
        """Note the death that the pidfd tells: stamp first, then find out."""
        mono_ns = time.monotonic_ns()
        process = self._process
        assert process is not None
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        cause = self.memory.killed(process.pid)  # until it is waited for, its group can be asked
        _, status, used = os.wait4(process.pid, 0)
        code = process.returncode = os.waitstatus_to_exitcode(status)
        self._process = None
        detail: dict[str, Any] = {"signal": -code} if code < 0 else {"exit_status": code}
        detail |= {"core_dumped": os.WCOREDUMP(status), "max_rss_kb": used.ru_maxrss}
        self._emit("component_exited", mono_ns=mono_ns, component=self.name, pid=process.pid, **detail)
        if code == NO_MEMORY or (code == -signal.SIGKILL and not self._killing):
            # Nobody waits for it: the standby and the next start come first.
            asyncio.get_running_loop().call_soon(self._examine, process.pid, code, self.memory.samples, cause)
        self.state = "stopped"
        self._alerts.clear("component_silent", self.name)
        self.exited.set()
        self._on_exit(self)
        if not self._stopping:
            self._start_again(ran_s=(mono_ns - self.started_ns) / 1e9)

    def _examine(self, pid: int, code: int, samples: deque[Sample], cause: Cause) -> None:
        """Look for the reason of a death that want of memory may have caused, and call an operator."""
        found, known_by = examine(samples), "itself" if code == NO_MEMORY else cause.known_by
        detail: dict[str, Any] = {"known_by": known_by, **found._asdict()}
        if cause.group is not None:
            detail |= {"group": cause.group.group, "limit_bytes": cause.group.limit_bytes}
        self._emit("memory_examined", component=self.name, pid=pid, **detail)
        text = f"{self.name} (process {pid}) {_WHY[known_by]}; its memory: {found.verdict} ({found.span_s} s)"
        alert = "out_of_memory" if known_by else "killed"
        self._alerts.sound(alert, text, key=self.name, component=self.name, pid=pid)

    def look_at_memory(self, host: int | None) -> None:
        """Sample the memory of a component that works: what its start takes is no leak.

        `host` are the OOM kills that the kernel counts now.
        """
        if self.state == "running" and self.pid is not None:
            self.memory.look(self.pid, time.monotonic_ns(), self.rss_bytes, host)

    def _start_again(self, *, ran_s: float) -> None:
        delay_s = self._backoff.failed(ran_s)
        self.restarts += 1
        failures, settings = self._backoff.failures, self._settings
        if failures == settings.rapid_deaths:
            self._give_up(failures)
        if delay_s == 0:
            self.start()
            return
        if failures >= settings.rapid_deaths:
            delay_s = settings.longest_s
        self.state = "back_off"
        self._emit("component_back_off", component=self.name, delay_ms=round(delay_s * 1000), deaths=failures)
        self._spawn(self._start_later(delay_s))

    def _give_up(self, deaths: int) -> None:
        """Call an operator; from now on it is tried at long intervals only."""
        retry_s = self._settings.longest_s
        self._emit("component_given_up", component=self.name, deaths=deaths, retry_s=retry_s)
        text = f"{self.name} died {deaths} times in a row; see {self.spec.log}; tried again every {retry_s} s"
        self._alerts.sound("component_given_up", text, key=self.name, component=self.name, deaths=deaths)

    async def _start_later(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        self.start()

    async def _await_ready(self, pid: int) -> None:
        while self.pid == pid:
            if await self.spec.is_ready(pid):
                if self.pid == pid:
                    self.state = "running"
                    self.heartbeat_ns = self._emit("component_ready", component=self.name, pid=pid)
                return
            await asyncio.sleep(POLL_S)

    async def beat(self) -> None:
        """Ask a running child whether it still works, and remember when it last did."""
        pid = self.pid
        if self.state != "running" or pid is None:
            return
        if not await self.spec.is_ready(pid):
            self._silent(pid)
        elif self.pid == pid:
            self.heartbeat_ns = time.monotonic_ns()
            self._alerts.clear("component_silent", self.name)
            if self.heartbeat_ns - self.started_ns > self._settings.stable_s * 1e9:
                for code in ("component_given_up", "out_of_memory", "killed"):
                    self._alerts.clear(code, self.name)

    def _silent(self, pid: int) -> None:
        """Call an operator when a component is hung, and end it when it stays so."""
        silent_s = (time.monotonic_ns() - self.heartbeat_ns) / 1e9
        if not self.spec.own or self.pid != pid or silent_s < self._settings.silent_s:
            return
        detail: dict[str, Any] = {"component": self.name, "pid": pid, "silent_ms": round(silent_s * 1000)}
        text = f"{self.name} (process {pid}) does not answer; killed after {self._settings.hung_s} s"
        self._alerts.sound("component_silent", text, key=self.name, **detail)
        if silent_s >= self._settings.hung_s:
            self._emit("component_killed", component=self.name, reason="hung")
            self._signal(signal.SIGKILL)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
