"""A wall clock that jumps or drifts in one running process, and the way back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ordinary_user
import pytest
from fault_kit import Context

from blackstart.errors import FaultError
from blackstart.faults import registry
from blackstart.host import procs, ptrace, vdso
from blackstart.model.scenario import FaultStep

if TYPE_CHECKING:
    from collections.abc import Iterator

WHY_NOT = vdso.unavailable()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

# Tells, at each line that it reads, its clocks: by clock_gettime, by gettimeofday and time of the C library.
TELLER = """
import ctypes, sys, threading, time
libc = ctypes.CDLL(None)
libc.time.restype = ctypes.c_long
class Timeval(ctypes.Structure): _fields_ = [("s", ctypes.c_long), ("us", ctypes.c_long)]
def busy():
    while True: time.time(); time.sleep(0.0001)
for _ in range(3): threading.Thread(target=busy, daemon=True).start()
print(1, flush=True)
for line in sys.stdin:
    tv = Timeval()
    libc.gettimeofday(ctypes.byref(tv), None)
    print(time.time_ns(), time.clock_gettime_ns(5), tv.s * 10**9 + tv.us * 1000, libc.time(None) * 10**9,
          time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME), flush=True)
"""
S = 1_000_000_000


def start(*prefix: str) -> subprocess.Popen[bytes]:
    """Start the teller."""
    found = subprocess.Popen(
        [*prefix, sys.executable, "-c", TELLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert found.stdout is not None
    found.stdout.readline()
    return found


def ask(process: subprocess.Popen[bytes]) -> tuple[list[float], list[float]]:
    """Return by how many seconds its four wall clocks are ahead of ours, and its two others."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    told = [int(one) for one in process.stdout.readline().split()]
    wall, mono, boot = time.time_ns(), time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return [(one - wall) / S for one in told[:4]], [(told[4] - mono) / S, (told[5] - boot) / S]


@pytest.fixture
def teller() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process with several threads that read the time all the while."""
    found = start()
    yield found
    end(found)


def end(process: subprocess.Popen[bytes]) -> None:
    """End it."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()


def code(pid: int) -> bytes:
    """Return the process's whole vDSO."""
    return vdso._vdso(pid)[1]


async def skew(ctx: Any, who: str = "we", **parameters: Any) -> tuple[Any, Any, Any]:
    """Move the clock, hear the witness and the program, and take it back."""
    fault: Any = registry.make("clock_skew")
    step = FaultStep(kind="clock_skew", components=tuple(ctx.processes), parameters=parameters)
    assert fault.unavailable(ctx.manifest, step) is None
    await fault.aim(ctx, step)
    receipt = await fault.inject(ctx, step)
    witness = await fault.witness(ctx, receipt)
    told = ask(ctx.processes["v"])
    if who == "we":
        await fault.revert(ctx, receipt)
        await fault.revert(ctx, receipt)
    ctx.undo()
    ctx.undo()
    late = await fault.witness(ctx, receipt) if "drift_ppm" not in parameters else None
    assert late is None or late.bit is False, "it is not the witness of what is over"
    return receipt, witness, told


@pytest.mark.parametrize("who", ["we", "the guardian"])
@pytest.mark.parametrize("offset_s", [10.0, -3600.25, 0.5])
def test_every_wall_clock_jumps_and_no_other_and_comes_back(
    teller: subprocess.Popen[bytes], tmp_path: Path, offset_s: float, who: str
) -> None:
    """All ways to read the real time agree; monotonic clocks are untouched; the code is restored."""
    original, host = code(teller.pid), time.time()
    ctx: Any = Context({"v": teller}, folder=tmp_path)
    receipt, witness, (wall, others) = asyncio.run(skew(ctx, who, offset_s=offset_s))
    assert witness.bit is True, witness
    assert witness.evidence["v"]["ahead_at_least_ms"] <= offset_s * 1000
    assert receipt.uncertainty_ns < 100_000_000
    for ahead in wall[:3]:
        assert abs(ahead - offset_s) < 0.2
    assert -1.2 < wall[3] - offset_s < 0.2, "time() has whole seconds"
    assert all(abs(one) < 0.2 for one in others)
    assert all(abs(one) < 0.2 for one in ask(teller)[0][:3])
    assert code(teller.pid) == original
    assert abs(time.time() - host) < 60, "the host's clock is nobody's business"


def test_a_clock_drifts(teller: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """With 10 % drift the clock is ahead by a tenth of the time since, as the witness waits to see."""
    ctx: Any = Context({"v": teller}, folder=tmp_path)
    receipt, witness, (wall, _) = asyncio.run(skew(ctx, drift_ppm=100_000))
    passed = (time.monotonic_ns() - receipt.t0_mono_ns) / S
    assert witness.bit is True, witness
    assert 0 < wall[0] < passed * 0.11
    assert witness.evidence["v"]["ahead_at_least_ms"] > 0


def test_the_witness_tells_when_nothing_was_changed(teller: subprocess.Popen[bytes]) -> None:
    """A process whose clock is right is found to be right."""
    least, most = vdso.read(teller.pid).ahead_ns
    assert least <= 0 <= most


def test_a_restarted_process_has_the_true_time(teller: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """What ended needs no taking back: the undo says that it is gone."""
    ctx: Any = Context({"v": teller}, folder=tmp_path)

    async def main() -> None:
        fault: Any = registry.make("clock_skew")
        await fault.inject(ctx, FaultStep(kind="clock_skew", components=("v",)))

    asyncio.run(main())
    teller.kill()
    teller.wait()
    ctx.undo()


OWNER = """
import asyncio, os, subprocess, sys
from pathlib import Path
sys.path[:0] = [FAULTS, FAULTS + "/../host"]
import fault_kit
from blackstart.engine import guard, locks
from blackstart.faults import registry
from blackstart.model.scenario import FaultStep

class Here:
    pid = int(sys.argv[2])

async def main(run):
    lock = locks.hold(str(run), locks.OWNER_LOCK)
    guardian = await guard.start(run)
    ctx = fault_kit.Context({"v": Here()}, folder=run)
    ctx.protect = guardian.protect
    await registry.make("clock_skew").inject(ctx, FaultStep(kind="clock_skew", components=("v",)))
    print(1, flush=True)
    await asyncio.sleep(600)

asyncio.run(main(Path(sys.argv[1])))
"""


def test_when_the_injector_is_killed_the_clock_is_right_again(
    teller: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """SIGKILL while the clock is wrong: the guardian puts the code back and says so."""
    original = code(teller.pid)
    code_of_owner = f"FAULTS = {str(Path(__file__).parent)!r}{OWNER}"
    owner = subprocess.Popen(
        [sys.executable, "-c", code_of_owner, str(tmp_path), str(teller.pid)],
        stdout=subprocess.PIPE,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "index")},
    )
    assert owner.stdout is not None
    try:
        owner.stdout.readline()
        assert ask(teller)[0][0] > 9
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
    deadline = time.monotonic() + 20
    while code(teller.pid) != original and time.monotonic() < deadline:
        time.sleep(0.005)
    assert abs(ask(teller)[0][0]) < 0.2
    undone = tmp_path / "undone.jsonl"
    while not (undone.exists() and undone.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.005)
    outcomes = [json.loads(line) for line in undone.read_text().splitlines()]
    assert len({one["id"] for one in outcomes}) == 1  # carried out again when the dead is wholly gone
    assert all(one["verified"] for one in outcomes)


@pytest.mark.parametrize(
    ("parameters", "word"),
    [({"offset": 1}, "offset"), ({"offset_s": 0}, "neither"), ({"offset_s": "1"}, "number")],
)
def test_nonsense_is_refused_before_the_trial(parameters: dict[str, Any], word: str) -> None:
    """Parameters that mean nothing are an answer of `unavailable`, not a surprise at the injection."""
    manifest: Any = Context({}).manifest
    step = FaultStep(kind="clock_skew", components=(), parameters=parameters)
    assert word in str(registry.make("clock_skew").unavailable(manifest, step))


FORKS = """
import os, sys, time
print(1, flush=True)
for line in sys.stdin:
    if line == "exec\\n": os.execv(sys.executable, [sys.executable, "-c", "print(1, flush=True); input()"])
    read, write = os.pipe()
    if os.fork() == 0:
        if line == "orphan\\n" and os.fork(): os._exit(0)
        os.write(write, str(os.getpid()).encode())
        time.sleep(600)
    print(os.read(read, 20).decode(), flush=True)
"""


@pytest.fixture
def forks() -> Iterator[subprocess.Popen[str]]:
    """Start a process that forks, or executes another program, when it is told to."""
    command = [sys.executable, "-c", FORKS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as found:
        assert found.stdout is not None
        found.stdout.readline()
        yield found
        found.kill()


def tell(process: subprocess.Popen[str], word: str) -> int:
    """Tell it, and read the number that it answers with."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@pytest.mark.parametrize("who", ["we", "the guardian"])
@pytest.mark.parametrize("lives", [True, False])
def test_who_inherited_the_wrong_clock_gets_the_true_one_back(
    forks: subprocess.Popen[str], tmp_path: Path, who: str, *, lives: bool
) -> None:
    """A child, and one whose parent has gone; also when the process that was hit has ended since."""
    ctx: Any = Context({"v": forks}, folder=tmp_path)  # type: ignore[dict-item]
    children: list[int] = []

    async def main() -> None:
        fault: Any = registry.make("clock_skew")
        receipt = await fault.inject(ctx, FaultStep(kind="clock_skew", components=("v",)))
        children.extend(tell(forks, word) for word in ("child", "orphan"))
        assert all(vdso.read(pid).ahead_ns[0] > 9 * S for pid in children)
        if not lives:
            forks.kill()
            forks.wait()
        if who == "we":
            await fault.revert(ctx, receipt)

    try:
        asyncio.run(main())
        ctx.undo()
        ctx.undo()
        assert [round(vdso.read(pid).ahead_ns[1] / S) for pid in children] == [0, 0]
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("who", ["we", "the guardian"])
def test_a_program_that_was_executed_since_has_a_true_clock(
    forks: subprocess.Popen[str], tmp_path: Path, who: str
) -> None:
    """The same process, with a vDSO of its own: there is nothing to put back, and that is verified."""
    ctx: Any = Context({"v": forks}, folder=tmp_path)  # type: ignore[dict-item]

    async def main() -> None:
        fault: Any = registry.make("clock_skew")
        receipt = await fault.inject(ctx, FaultStep(kind="clock_skew", components=("v",)))
        tell(forks, "exec")
        assert round(vdso.read(forks.pid).ahead_ns[1] / S) == 0
        if who == "we":
            await fault.revert(ctx, receipt)

    asyncio.run(main())
    ctx.undo()
    ctx.undo()


READS = """
import sys
from blackstart.host import vdso
vdso.read(int(sys.argv[1]))
print(1, flush=True)
while True: vdso.read(int(sys.argv[1]))
"""


def test_who_is_killed_while_it_is_in_a_process_leaves_it_as_it_was(teller: subprocess.Popen[bytes]) -> None:
    """Ten times while it makes the process read its clock: it answers, and takes the signals that it took."""

    def status(name: str) -> str:
        lines = Path(f"/proc/{teller.pid}/status").read_text().splitlines()
        return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))

    blocked = status("SigBlk")
    for number in range(10):
        reader = subprocess.Popen([sys.executable, "-c", READS, str(teller.pid)], stdout=subprocess.PIPE)
        assert reader.stdout is not None
        reader.stdout.readline()
        time.sleep(0.0037 * number)
        reader.kill()
        reader.wait()
        reader.stdout.close()
        until = time.monotonic() + 5
        while status("TracerPid") != "0":
            assert time.monotonic() < until
        assert status("SigBlk") == blocked
        assert abs(ask(teller)[0][0]) < 0.2


AS_USER = """
import asyncio, pathlib, sys
sys.path.insert(0, FAULTS)
import test_clock_skew as t
teller = t.start()
ctx = t.Context({"v": teller}, folder=pathlib.Path.cwd())
receipt, witness, (wall, others) = asyncio.run(t.skew(ctx, offset_s=10))
print(witness.bit, round(wall[0]), round(t.ask(teller)[0][0]))
t.end(teller)
"""


def test_an_ordinary_user_can_do_it_to_its_own_processes() -> None:
    """It needs no privilege."""
    said = ordinary_user.run(f"FAULTS = {str(Path(__file__).parent)!r}{AS_USER}", needs="pytest, msgspec")
    assert said.split() == ["True", "10", "0"]


def test_a_process_that_is_just_being_made_has_its_clock_moved(tmp_path: Path) -> None:
    """Forty newborn processes, taken at once: while a program is loaded, its vDSO comes last."""
    for _ in range(40):
        newborn = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
        try:
            vdso.apply(vdso.prepare(newborn.pid), offset_ns=S, drift_ppb=0)
            least, most = vdso.read(newborn.pid).ahead_ns
            assert least <= S <= most
        finally:
            newborn.kill()
            newborn.wait()


def test_the_process_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Twenty times there and back while four threads read the time: it lives, and answers."""
    process = start()
    try:
        prepared = vdso.prepare(process.pid)
        for _ in range(20):
            vdso.apply(prepared, offset_ns=S, drift_ppb=0)
            assert ask(process)[0][0] > 0.5
            assert vdso.restore(process.pid, prepared.places)
        found = procs.stat(process.pid)
        assert found is not None
        assert not found.stopped
        assert abs(ask(process)[0][0]) < 0.2
    finally:
        end(process)


@contextlib.contextmanager
def held(pid: int) -> Iterator[threading.Event]:
    """Have another thread hold a process as its tracer, until it is told to let go."""
    let_go, has_it = threading.Event(), threading.Event()

    def hold() -> None:
        with ptrace.Halted(pid):
            has_it.set()
            let_go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert has_it.wait(30)
    try:
        yield let_go
    finally:
        let_go.set()
        thread.join()


def test_two_who_take_it_back_at_once_wait_for_each_other(teller: subprocess.Popen[bytes]) -> None:
    """After the kill switch the owner and the guardian both do: neither fails because the other is at it."""
    original = code(teller.pid)
    skew = vdso.prepare(teller.pid)
    vdso.apply(skew, offset_ns=10**10, drift_ppb=0)
    with held(teller.pid) as let_go:
        threading.Timer(0.1, let_go.set).start()
        assert vdso.restore(teller.pid, skew.places)
        assert let_go.is_set()
    assert code(teller.pid) == original


def test_who_is_held_for_good_is_told(
    teller: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A debugger that does not let go: said with its reason, and as before when it has gone."""
    monkeypatch.setattr(ptrace, "_HELD_LIMIT_S", 0.05)
    skew = vdso.prepare(teller.pid)
    with held(teller.pid), pytest.raises(FaultError) as told:
        vdso.apply(skew, offset_ns=10**10, drift_ppb=0)
    assert "a debugger holds it" in told.value.render()
    assert vdso.restore(teller.pid, skew.places)
