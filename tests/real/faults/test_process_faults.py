"""Faults of processes: core dumps, standing still, crashing again and again, dying at a call."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import ordinary_user
import pytest
from fault_kit import Context, carry_out

from blackstart.errors import FaultError
from blackstart.faults import registry
from blackstart.host import cgroups, cores, procs, ptrace, seccomp, strace
from blackstart.model.manifest import Limits
from blackstart.model.scenario import FaultStep

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY = "import os,time\nprint(1, flush=True)\nwhile True: time.sleep(0.0005)"
WRITER = (
    "import os, time\nfile = os.open('journal', os.O_CREAT | os.O_WRONLY)\nprint(1, flush=True)\n"
    "while True: os.write(file, b'x' * 10); os.fsync(file); time.sleep(0.001)"
)

TWO_FILES = (
    "import os, time\n"
    "file, other = (os.open(name, os.O_CREAT | os.O_WRONLY) for name in ('journal', 'other'))\n"
    "print(1, flush=True)\n"
    "while True:\n    for one in (other, file): os.write(one, b'x'); os.fsync(one); time.sleep(0.001)"
)


def python(code: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start Python, and wait until it says something."""
    found = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE)
    assert found.stdout is not None
    found.stdout.readline()
    return found


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that is always busy a little."""
    found = python(BUSY, tmp_path)
    yield found
    end(found)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def state(process: subprocess.Popen[bytes]) -> str:
    """Ask the kernel how it is."""
    found = procs.stat(process.pid)
    return found.state if found is not None else "gone"


needs_plain_cores = pytest.mark.skipif(
    cores.place(os.getpid()).folder is None, reason=cores.place(os.getpid()).reason
)


@needs_plain_cores
@pytest.mark.parametrize(
    ("mechanism", "told"),
    [
        pytest.param(
            "null",
            "null dereference by ptrace",
            marks=pytest.mark.skipif(ptrace.unavailable() is not None, reason=str(ptrace.unavailable())),
        ),
        ("signal", "SIGSEGV by pidfd_send_signal (asked for)"),
    ],
)
def test_a_segmentation_fault_leaves_a_core_dump_of_that_process(
    tmp_path: Path, victim: subprocess.Popen[bytes], mechanism: str, told: str
) -> None:
    """It dies by SIGSEGV with a core dump, which lies in the trial's folder and is its own."""
    ctx = Context({"v": victim}, folder=tmp_path / "trial")
    receipt, witness = asyncio.run(carry_out("segv", ctx, mechanism=mechanism))
    assert receipt.mechanism == told
    assert witness.bit is True
    assert victim.returncode == -signal.SIGSEGV
    assert witness.evidence["v"]["status"] == -signal.SIGSEGV
    core = witness.evidence["v"]["core"]
    assert core["collected"] is True, core
    assert cores.dumped_by(Path(core["file"])) == victim.pid
    assert core["signal"] == cores.signal_of(Path(core["file"])) == signal.SIGSEGV
    assert core["bytes"] == Path(core["file"]).stat().st_size
    assert not list(tmp_path.glob("core*"))
    assert ctx.started == ["v"]


@needs_plain_cores
@pytest.mark.parametrize(
    ("look", "finds", "why"), [("dumped_by", 1, "no core dump of pid"), ("signal_of", 6, "died of signal 6")]
)
def test_a_core_dump_that_is_missing_or_of_another_death_proves_nothing(
    tmp_path: Path,
    victim: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    *,
    look: str,
    finds: int,
    why: str,
) -> None:
    """Where dumps can be had here, one of that pid must be there, and say that signal: else why is said."""
    monkeypatch.setattr(cores, look, lambda _: finds)
    _, witness = asyncio.run(carry_out("segv", Context({"v": victim}, folder=tmp_path), mechanism="signal"))
    assert witness.bit is None
    assert why in witness.evidence["why"]


@pytest.mark.parametrize("waits", [True, False])
def test_where_no_core_dump_can_be_had_the_death_is_the_witness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, waits: bool
) -> None:
    """A kernel that pipes dumps away: the crash counts all the same, and the evidence says why."""
    monkeypatch.setattr(cores, "place", lambda _: cores.Place(None, reason="piped away"))
    victim = python(f"import resource as r\nr.setrlimit(r.RLIMIT_CORE, (0, 0))\n{BUSY}", tmp_path)
    ctx = Context({"v": victim}, folder=tmp_path)
    ctx.waits = waits
    try:
        _, witness = asyncio.run(carry_out("segv", ctx, mechanism="signal"))
        assert witness.bit is True
        assert witness.evidence["v"]["status"] == (-signal.SIGSEGV if waits else None)
        core = witness.evidence["v"]["core"]
        assert (core["collected"], core["why"]) == (False, "piped away")
        assert "the death that followed is the witness" in core["instead"]
    finally:
        end(victim)


@needs_plain_cores
def test_a_process_that_may_not_dump_core_is_not_expected_to(tmp_path: Path) -> None:
    """Its hard limit is 0: where we may not raise it no dump is missed, and the evidence names the limit."""
    victim = python(f"import resource as r\nr.setrlimit(r.RLIMIT_CORE, (0, 0))\n{BUSY}", tmp_path)
    try:
        ctx = Context({"v": victim}, folder=tmp_path)
        _, witness = asyncio.run(carry_out("segv", ctx, mechanism="signal"))
        core = witness.evidence["v"]["core"]
        assert witness.bit is True
        assert core["collected"] or "RLIMIT_CORE" in core["why"]
    finally:
        end(victim)


def test_who_ends_otherwise_where_no_core_dump_can_be_had_did_not_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process with a handler of its own for SIGSEGV ends in order: its parent knows that it did."""
    monkeypatch.setattr(cores, "place", lambda _: cores.Place(None, reason="piped away"))
    handler = "import signal, sys\nsignal.signal(signal.SIGSEGV, lambda *_: sys.exit(3))"
    victim = python(f"{handler}\n{BUSY}", tmp_path)
    try:
        ctx = Context({"v": victim}, folder=tmp_path)
        _, witness = asyncio.run(carry_out("segv", ctx, mechanism="signal"))
        assert witness.bit is None
        assert "ended with status 3" in witness.evidence["why"]
    finally:
        end(victim)


@needs_plain_cores
@pytest.mark.skipif(ptrace.unavailable() is not None, reason=str(ptrace.unavailable()))
def test_a_process_in_a_bad_folder_leaves_its_dump_all_the_same(tmp_path: Path) -> None:
    """A folder that has been removed can hold no dump: it is written in the trial's."""
    place = tmp_path / "gone"
    place.mkdir()
    victim = python(BUSY, place)
    place.rmdir()
    try:
        _, witness = asyncio.run(carry_out("segv", Context({"v": victim}, folder=tmp_path / "trial")))
        assert witness.evidence["v"]["core"]["collected"] is True, witness
    finally:
        end(victim)


@pytest.mark.skipif(ptrace.unavailable() is not None, reason=str(ptrace.unavailable()))
def test_who_ignores_a_sent_sigsegv_still_crashes_by_a_real_one(tmp_path: Path) -> None:
    """A process that ignores SIGSEGV dies of a null dereference."""
    deaf = python(f"import signal; signal.signal(signal.SIGSEGV, signal.SIG_IGN)\n{BUSY}", tmp_path)
    try:
        _, witness = asyncio.run(carry_out("segv", Context({"v": deaf}, folder=tmp_path)))
        assert witness.bit is True
        assert deaf.wait() == -signal.SIGSEGV
    finally:
        end(deaf)


def test_a_file_that_is_no_core_dump_is_not_taken_for_one(tmp_path: Path) -> None:
    """Neither text nor another kind of ELF file is a core dump, and the evidence says that there is none."""
    (tmp_path / "core").write_text("a file of the target's own")
    assert cores.dumped_by(tmp_path / "core") is None
    assert cores.dumped_by(Path(sys.executable)) is None
    found = cores.collect(cores.Place(tmp_path, "core*"), 1, tmp_path / "kept")
    assert found["collected"] is False
    assert (tmp_path / "core").exists()


@pytest.mark.parametrize(
    ("pattern", "uses_pid", "expected"),
    [
        ("core", "0", ("core", "")),
        ("core", "1", ("core.PID", "")),
        ("/var/crash/%e.%p.%t", "0", ("*.PID.*", "")),
        ("|/usr/lib/systemd/systemd-coredump %P", "0", ("", "coredumpctl")),
        ("", "0", ("", "empty")),
    ],
)
def test_every_core_pattern_is_understood(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
    uses_pid: str,
    expected: tuple[str, str],
) -> None:
    """Where the dump will lie, or why it cannot be collected."""
    for name, text in (("_PATTERN", pattern), ("_USES_PID", uses_pid)):
        (tmp_path / name).write_text(text + "\n")
        monkeypatch.setattr(cores, name, tmp_path / name)
    found = cores.place(os.getpid())
    assert found.name == expected[0].replace("PID", str(os.getpid()))
    assert expected[1] in found.reason
    assert (found.folder is None) == bool(found.reason)


FREEZER = cgroups.unavailable("freezer")


@pytest.mark.parametrize(
    "mechanism",
    ["SIGSTOP", pytest.param("freezer", marks=pytest.mark.skipif(FREEZER is not None, reason=str(FREEZER)))],
)
@pytest.mark.parametrize("who", ["we", "the guardian"])
def test_a_pause_is_seen_by_the_kernel_and_taken_back(
    tmp_path: Path, victim: subprocess.Popen[bytes], mechanism: str, who: str
) -> None:
    """It stands still, says the kernel, until it is let go: by us or by the guardian alone."""
    ctx: Any = Context({"v": victim}, folder=tmp_path)
    home = cgroups.home(cgroups.hierarchy("freezer"), victim.pid) if mechanism == "freezer" else None

    async def main() -> None:
        fault: Any = registry.make("pause")
        step = FaultStep(kind="pause", components=("v",), parameters={"mechanism": mechanism})
        assert fault.unavailable(ctx.manifest, step) is None
        receipt = await fault.inject(ctx, step)
        assert (await fault.witness(ctx, receipt)).bit is True
        assert mechanism in receipt.mechanism
        assert receipt.undo == tuple(ctx.protected)
        if who == "we":
            await fault.revert(ctx, receipt)
            assert (await fault.witness(ctx, receipt)).bit is False, "it is not the witness of what is over"

    asyncio.run(main())
    ctx.undo()
    ctx.undo()
    assert state(victim) in "SR"
    if home is not None:
        assert cgroups.home(cgroups.hierarchy("freezer"), victim.pid) == home
        assert not list(home.glob("blackstart-*"))


@pytest.mark.parametrize("who", ["we", "the guardian"])
def test_a_duty_cycle_makes_it_slow_and_ends(
    tmp_path: Path, victim: subprocess.Popen[bytes], who: str
) -> None:
    """It runs and stands by turns; afterwards it only runs, and the helper is gone."""
    ctx: Any = Context({"v": victim}, folder=tmp_path)

    async def main() -> None:
        fault: Any = registry.make("pause")
        step = FaultStep(kind="pause", components=("v",), parameters={"duty": 0.5, "period_ms": 40})
        receipt = await fault.inject(ctx, step)
        witness = await fault.witness(ctx, receipt)
        assert witness.bit is True, witness
        if who == "we":
            await fault.revert(ctx, receipt)
        else:
            ctx.undo()
        helper = receipt.undo[-1].arguments
        assert not procs.is_alive(helper["pid"], helper["start_ticks"])
        assert all(state(victim) != "T" for _ in range(40) if time.sleep(0.002) is None)  # noqa: ASYNC251 - a test may block
        await fault.revert(ctx, receipt)

    asyncio.run(main())


@pytest.mark.parametrize("first", [{}, {"duty": 0.5, "period_ms": 40}])
@pytest.mark.parametrize("second", ["pause", "pause_service"])
def test_who_is_stopped_already_is_not_stopped_once_more(
    tmp_path: Path, victim: subprocess.Popen[bytes], first: dict[str, Any], second: str
) -> None:
    """One SIGCONT would end both faults: the second is refused, and leaves the first in place."""
    ctx: Any = Context({"v": victim}, folder=tmp_path)

    async def main() -> None:
        one, two = registry.make("pause"), registry.make(second)
        receipt = await one.inject(ctx, FaultStep(kind="pause", components=("v",), parameters=first))
        await one.witness(ctx, receipt)
        protected = len(ctx.protected)
        with pytest.raises(FaultError, match="stopped already"):
            await two.inject(ctx, FaultStep(kind=second, components=("v",)))
        assert len(ctx.protected) == protected
        assert (await one.witness(ctx, receipt)).bit is True
        await one.revert(ctx, receipt)
        later = await two.inject(ctx, FaultStep(kind=second, components=("v",)))
        await two.revert(ctx, later)

    asyncio.run(main())


def test_nonsense_is_refused_before_the_trial(tmp_path: Path, victim: subprocess.Popen[bytes]) -> None:
    """Parameters that mean nothing are an answer of `unavailable`, not a surprise at the injection."""
    manifest: Any = Context({"v": victim}).manifest
    for kind, parameters, word in (
        ("pause", {"duty": 1.5}, "duty"),
        ("pause", {"mechanism": "magic"}, "magic"),
        ("pause", {"mechanism": "freezer", "duty": 0.5}, "SIGSTOP"),
        ("segv", {"mechanism": "magic"}, "magic"),
        ("crash_loop", {"times": 0}, "times"),
        ("kill_at_syscall", {}, "call"),
        ("kill_at_syscall", {"call": "nanosleep"}, "nanosleep"),
        ("kill_at_syscall", {"call": "fsync", "n": 0}, "n"),
    ):
        step = FaultStep(kind=kind, components=("v",), parameters=parameters)
        assert word in str(registry.make(kind).unavailable(manifest, step))


class Respawning(Context):
    """A target whose component is started again when it dies, up to so many times."""

    def __init__(self, folder: Path, returns: int) -> None:
        self.all = [subprocess.Popen(["sleep", "600"])]
        self.returns = returns
        super().__init__({"v": self.all[0]}, folder=folder)
        self.manifest.processes.clear()

    async def process(self, component: str) -> Any:
        """Start the next one when the last has ended."""
        if self.all[-1].poll() is not None and len(self.all) <= self.returns:
            self.all.append(subprocess.Popen(["sleep", "600"]))  # noqa: ASYNC220 - a test may block
            self.processes["v"] = self.all[-1]
        return await super().process(component)


@pytest.mark.parametrize(("returns", "bit"), [(3, True), (1, False)])
def test_a_crash_loop_kills_at_each_return_and_tells_every_death(
    tmp_path: Path, returns: int, bit: bool
) -> None:
    """Three deaths of three processes, and the fourth lives; one that does not come back is no crash loop."""
    ctx = Respawning(tmp_path, returns)
    try:
        receipt, witness = asyncio.run(carry_out("crash_loop", ctx, times=3, limit_s=0.5))
        assert receipt.mechanism.endswith("3 times, at each return")
        assert witness.bit is bit
        told = witness.evidence["v"]["deaths"]
        died = [one.pid for one in ctx.all if one.poll() == -signal.SIGKILL]
        assert [one["pid"] for one in told] == died
        assert len(died) == min(3, returns + 1)
        if bit:
            asyncio.run(ctx.process("v"))
            assert ctx.all[3].poll() is None
    finally:
        for one in ctx.all:
            end(one)


def test_a_crash_loop_ends_when_the_manifest_allows_no_more(tmp_path: Path) -> None:
    """`fault_limit_s` after the first kill it lives, and what the loop did not come to is told."""
    ctx = Respawning(tmp_path, 10_000)
    ctx.manifest = msgspec.structs.replace(ctx.manifest, limits=Limits(fault_limit_s=0.3))
    try:
        _, witness = asyncio.run(asyncio.wait_for(carry_out("crash_loop", ctx, times=9000), 30))
        assert witness.bit is False
        assert 1 <= witness.evidence["v"]["died"] < 9000
        asyncio.run(ctx.process("v"))
        assert ctx.all[-1].poll() is None
    finally:
        for one in ctx.all:
            end(one)


SECCOMP = seccomp.unavailable()


@pytest.mark.skipif(SECCOMP is not None, reason=str(SECCOMP))
def test_it_dies_at_exactly_that_call(tmp_path: Path) -> None:
    """Killed at the fifth fsync of the journal: five writes and four syncs were done since the injection."""
    writer = python(WRITER, tmp_path)
    ctx: Any = Context({"v": writer}, folder=tmp_path / "trial")
    try:
        path = str(tmp_path / "journal")
        receipt, witness = asyncio.run(carry_out("kill_at_syscall", ctx, call="fsync", path=path, n=5))
        assert witness.bit is True
        assert writer.wait() == -signal.SIGKILL
        assert receipt.data["call"]["n"] == receipt.data["seen"] == 5
        assert receipt.data["call"]["path"] == path
        assert receipt.uncertainty_ns < 10_000_000
        assert ctx.started == ["v"]
        ctx.undo()
    finally:
        end(writer)


STRACE = strace.unavailable()


@pytest.mark.skipif(STRACE is not None, reason=str(STRACE))
def test_strace_kills_at_exactly_that_call_of_that_file(tmp_path: Path) -> None:
    """Killed at the fifth fsync of the journal, whatever else is synced: five writes were done by then."""
    writer = python(TWO_FILES, tmp_path)
    ctx: Any = Context({"v": writer}, folder=tmp_path / "trial")
    try:
        ask = {"call": "fsync", "path": str(tmp_path / "journal"), "n": 5, "mechanism": "strace"}
        receipt, witness = asyncio.run(carry_out("kill_at_syscall", ctx, **ask))
        assert witness.bit is True
        assert writer.wait() == -signal.SIGKILL
        assert receipt.data["call"]["n"] == 5
        assert receipt.mechanism == "SIGKILL at call 5 by strace"
        assert 0 < receipt.uncertainty_ns < 5_000_000_000
        ctx.undo()
    finally:
        end(writer)


@pytest.mark.skipif(STRACE is not None, reason=str(STRACE))
def test_strace_goes_when_the_call_does_not_come(tmp_path: Path) -> None:
    """The process lives on untraced."""
    writer = python(WRITER, tmp_path)
    ctx: Any = Context({"v": writer}, folder=tmp_path / "trial")
    try:
        ask = {"call": "renames", "path": str(tmp_path / "journal"), "mechanism": "strace", "limit_s": 0.3}
        with pytest.raises(FaultError, match="did not come"):
            asyncio.run(carry_out("kill_at_syscall", ctx, **ask))
        assert writer.poll() is None
        assert "TracerPid:\t0\n" in Path(f"/proc/{writer.pid}/status").read_text()
    finally:
        end(writer)


@pytest.mark.skipif(SECCOMP is not None, reason=str(SECCOMP))
def test_a_call_that_does_not_come_is_no_fault(tmp_path: Path) -> None:
    """The error says how many came, and the process lives on without a rule."""
    writer = python(WRITER, tmp_path)
    ctx: Any = Context({"v": writer}, folder=tmp_path / "trial")
    try:
        with pytest.raises(FaultError, match="only 0 of 1 calls came"):
            asyncio.run(carry_out("kill_at_syscall", ctx, call="renames", limit_s=0.2))
        assert writer.poll() is None
        ctx.undo()
        size = (tmp_path / "journal").stat().st_size
        deadline = time.monotonic() + 10
        while (tmp_path / "journal").stat().st_size == size and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "journal").stat().st_size > size
    finally:
        end(writer)


AS_USER = """
import asyncio, pathlib, sys
sys.path.insert(0, FAULTS)
import test_process_faults as t
folder = pathlib.Path.cwd()
for kind, parameters in (("segv", {}), ("pause", {}), ("pause", {"duty": 0.5, "period_ms": 40}),
                         ("kill_at_syscall", {"call": "syncs", "n": 3})):
    victim = t.python(t.WRITER, folder)
    ctx = t.Context({"v": victim}, folder=folder / kind)
    receipt, witness = asyncio.run(t.carry_out(kind, ctx, **parameters))
    print(kind, witness.bit, receipt.mechanism)
    ctx.undo()
    t.end(victim)
"""


def test_an_ordinary_user_can_do_all_that_to_its_own_processes() -> None:
    """Crash, pause, slowness and the exact crash point need no privilege."""
    said = ordinary_user.run(f"FAULTS = {str(Path(__file__).parent)!r}{AS_USER}", needs="pytest, msgspec")
    lines = said.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["segv", "True"],
        ["pause", "True"],
        ["pause", "True"],
        ["kill_at_syscall", "True"],
    ]
    if ptrace.unavailable() is None:
        assert "null dereference" in lines[0]


def test_who_survives_a_segmentation_fault_has_its_limit_back(tmp_path: Path) -> None:
    """It ignores the signal; its limit on core dumps was raised, and the undo was handed over before."""
    code = f"import resource, signal\nresource.setrlimit(resource.RLIMIT_CORE, (0, 4096))\n{BUSY}"
    deaf = python(f"import signal; signal.signal(signal.SIGSEGV, signal.SIG_IGN)\n{code}", tmp_path)
    ctx = Context({"v": deaf}, folder=tmp_path)
    fault: Any = registry.make("segv")
    step = FaultStep(kind="segv", components=("v",), parameters={"mechanism": "signal"})
    try:
        receipt = asyncio.run(fault.inject(ctx, step))
        raised, _ = resource.prlimit(deaf.pid, resource.RLIMIT_CORE)
        assert raised != 0
        assert receipt.undo == tuple(ctx.protected) != ()
        ctx.undo()
        assert resource.prlimit(deaf.pid, resource.RLIMIT_CORE) == (0, 4096)
    finally:
        end(deaf)


@needs_plain_cores
def test_a_core_dump_that_no_witness_fetched_is_fetched_when_it_ends(
    tmp_path: Path, victim: subprocess.Popen[bytes]
) -> None:
    """The trial was broken off: a dump as large as the process is not left in somebody's folder."""
    ctx = Context({"v": victim}, folder=tmp_path / "trial")

    async def main() -> None:
        fault: Any = registry.make("segv")
        step = FaultStep(kind="segv", components=("v",), parameters={"mechanism": "signal"})
        receipt = await fault.inject(ctx, step)
        await fault.revert(ctx, receipt)

    asyncio.run(main())
    (kept,) = (tmp_path / "trial" / "fault").glob("core.v.*")
    assert cores.dumped_by(kept) == victim.pid
    assert not list(tmp_path.glob("core*"))
