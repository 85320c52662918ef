"""Children of the supervisor: real processes, watched by pidfd."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from paperfirm.config import SupervisorSettings
from paperfirm.servers import Identity, Kind
from paperfirm.supervisor.child import Child, Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path


SLEEPER = "import time; time.sleep(600)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


class Watched:
    """A child with everything that it reported."""

    def __init__(
        self, folder: Path, program: str, *, settings: SupervisorSettings | None = None, **options: Any
    ) -> None:
        self.events: list[tuple[str, int, dict[str, Any]]] = []
        self.ready = asyncio.Event()
        self.log = folder / "child.log"
        spec = Spec(
            name="child",
            argv=[sys.executable, "-c", program],
            log=self.log,
            identity=Identity(Kind.SAME, os.geteuid(), os.getegid()),
            is_ready=self.is_ready,
            **options,
        )
        self.child = Child(spec, self.emit, on_exit=lambda _: None, settings=settings)

    async def is_ready(self, _pid: int) -> bool:
        """Be ready once the program has written something, or at once if it never does."""
        return "print" not in self.child.spec.argv[-1] or bool(self.log.read_bytes())

    def emit(self, event: str, *, mono_ns: int = 0, **detail: Any) -> int:
        """Remember an event with its stamp."""
        stamp = mono_ns or time.monotonic_ns()
        self.events.append((event, stamp, detail))
        return stamp

    def count(self, name: str) -> int:
        """Return how often an event was reported."""
        return sum(event == name for event, _, _ in self.events)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run on the loop that the supervisor uses."""
    uvloop.run(asyncio.wait_for(work, 60))


async def until(condition: Callable[[], bool]) -> None:
    """Poll; the caller's time limit ends it."""
    while not condition():  # noqa: ASYNC110 - any condition, not an event
        await asyncio.sleep(0.002)


def test_a_death_is_noticed_at_once_and_answered_at_once(tmp_path: Path) -> None:
    """The pidfd tells a kill -9 within milliseconds, with the signal, and the first restart does not wait."""

    async def scenario() -> None:
        watched = Watched(tmp_path, SLEEPER)
        watched.child.start()
        await until(lambda: watched.child.state == "running")
        pid = watched.child.pid
        assert pid is not None
        killed_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: watched.child.pid not in {None, pid})
        (exited,) = [event for event in watched.events if event[0] == "component_exited"]
        assert exited[2] == {"component": "child", "pid": pid, "signal": 9, "core_dumped": False} | {
            "max_rss_kb": exited[2]["max_rss_kb"]
        }
        assert exited[2]["max_rss_kb"] > 1000
        assert killed_ns < exited[1] < killed_ns + 2_000_000_000
        assert watched.child.restarts == 1
        assert watched.count("component_back_off") == 0
        await watched.child.stop()
        assert watched.child.state == "stopped"

    run(scenario())


def test_rapid_deaths_back_off_and_call_an_operator(tmp_path: Path) -> None:
    """A child that dies at every start is tried ever more slowly and reported as given up once."""
    settings = SupervisorSettings(first_s=0.001, longest_s=0.05, rapid_deaths=8)

    async def scenario() -> None:
        watched = Watched(tmp_path, "raise SystemExit(3)", settings=settings)
        watched.child.start()
        await until(lambda: watched.count("component_started") > settings.rapid_deaths + 1)
        await watched.child.stop()
        delays = [e[2]["delay_ms"] for e in watched.events if e[0] == "component_back_off"]
        assert delays == sorted(delays)
        assert delays[-1] == 50
        assert watched.count("component_given_up") == 1
        (alert,) = [e[2] for e in watched.events if e[0] == "alert"]
        assert (alert["code"], alert["component"], alert["deaths"]) == ("component_given_up", "child", 8)
        assert watched.count("alert_cleared") == 0
        exits = [e[2] for e in watched.events if e[0] == "component_exited"]
        assert {e.get("exit_status") for e in exits[:-1]} == {3}  # the last one was stopped

    run(scenario())


def test_a_child_that_stays_up_again_ends_the_alert(tmp_path: Path) -> None:
    """Given up means tried at long intervals: when it works again for a while, the operator is told."""
    settings = SupervisorSettings(first_s=0.001, longest_s=0.01, stable_s=0.05, rapid_deaths=3)
    broken = tmp_path / "broken"
    broken.touch()
    program = f"import os, time\nif os.path.exists({str(broken)!r}): raise SystemExit(3)\ntime.sleep(600)"

    async def scenario() -> None:
        watched = Watched(tmp_path, program, settings=settings)
        watched.child.start()
        await until(lambda: watched.count("alert") == 1)
        broken.unlink()

        async def cleared() -> None:
            while not watched.count("alert_cleared"):
                await watched.child.beat()
                await asyncio.sleep(0.01)

        async with asyncio.timeout(20):
            await cleared()
        await watched.child.stop()

    run(scenario())


def test_a_program_that_cannot_be_started_is_reported(tmp_path: Path) -> None:
    """A missing program is an event and a back-off, not the end of the supervisor."""

    async def scenario() -> None:
        watched = Watched(tmp_path, SLEEPER)
        watched.child.spec = Spec(
            name="child",
            argv=[str(tmp_path / "missing")],
            log=watched.log,
            identity=watched.child.spec.identity,
            is_ready=watched.is_ready,
        )
        watched.child.start()
        await until(lambda: watched.count("component_start_failed") > 2)
        assert watched.child.pid is None
        await watched.child.stop()
        assert watched.child.state == "stopped"

    run(scenario())


def test_a_deaf_child_is_stopped_by_force(tmp_path: Path) -> None:
    """A child that ignores SIGTERM does not keep the firm from stopping."""

    async def scenario() -> None:
        watched = Watched(tmp_path, STUBBORN, stop_limit_s=0.2)
        watched.child.start()
        await until(lambda: watched.child.state == "running")
        await watched.child.stop()
        assert watched.count("component_killed") == 1
        assert watched.child.pid is None
        assert watched.child.restarts == 0

    run(scenario())


def test_a_kill_from_outside_has_its_memory_examined_and_an_operator_called(tmp_path: Path) -> None:
    """SIGKILL that the supervisor did not send may be the kernel's: it tells what it knows."""

    async def scenario() -> None:
        watched = Watched(tmp_path, SLEEPER, settings=SupervisorSettings(stable_s=0.05))
        watched.child.start()
        await until(lambda: watched.child.state == "running")
        pid = watched.child.pid
        assert pid is not None
        for _ in range(2):
            watched.child.look_at_memory(None)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: watched.count("alert") == 1)
        (examined,) = [detail for event, _, detail in watched.events if event == "memory_examined"]
        assert (examined["pid"], examined["samples"], examined["known_by"]) == (pid, 2, None)
        assert examined["max_bytes"] > 1_000_000
        assert examined["verdict"] == "too short to tell"
        (alert,) = [detail for event, _, detail in watched.events if event == "alert"]
        assert (alert["code"], alert["component"]) == ("killed", "child")
        await until(lambda: watched.child.state == "running")
        while not watched.count("alert_cleared"):
            await watched.child.beat()
            await asyncio.sleep(0.01)
        await watched.child.stop()

    run(scenario())


@pytest.mark.parametrize(
    ("program", "signals"), [("import os; os._exit(70)", ()), (STUBBORN, (signal.SIGTERM,))]
)
def test_other_deaths_are_no_matter_of_memory(
    tmp_path: Path, program: str, signals: tuple[signal.Signals, ...]
) -> None:
    """Neither an exit of its own nor a SIGKILL by the supervisor itself is looked into."""

    async def scenario() -> None:
        watched = Watched(tmp_path, program, stop_limit_s=0.1)
        watched.child.start()
        if signals:
            await until(lambda: watched.child.state == "running")
        else:
            await until(lambda: watched.count("component_exited") > 0)
        await watched.child.stop()
        await asyncio.sleep(0.01)
        assert watched.count("component_exited") > 0
        assert watched.count("memory_examined") == 0
        assert watched.count("alert") == 0

    run(scenario())


NO_MEMORY_LEFT = """
import asyncio, sys
from pathlib import Path
from paperfirm.supervisor import component
class Quiet:
    def emit(self, *_, **__): return 0
error = {error}
component._crash(Quiet(), None, Path("."), {{"exception": error}})
"""


@pytest.mark.parametrize("error", ["MemoryError()", "OSError(12, 'Cannot allocate memory')"])
def test_a_component_that_gets_no_memory_says_so_by_its_exit_status(tmp_path: Path, error: str) -> None:
    """Where a limit makes allocations fail nobody kills: the component ends with 71, and that is known."""

    async def scenario() -> None:
        watched = Watched(tmp_path, NO_MEMORY_LEFT.format(error=error))
        watched.child.start()
        await until(lambda: watched.count("alert") == 1)
        exited = next(detail for event, _, detail in watched.events if event == "component_exited")
        assert exited["exit_status"] == 71
        (alert,) = [detail for event, _, detail in watched.events if event == "alert"]
        assert alert["code"] == "out_of_memory"
        await watched.child.stop()

    run(scenario())
