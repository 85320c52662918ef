"""Files whose system calls fail, lie or come late, in a running process."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ordinary_user
import pytest
from fault_kit import Context

from blackstart.engine.verbs import begin
from blackstart.errors import FaultError
from blackstart.faults import registry
from blackstart.host import procs, seccomp
from blackstart.model.scenario import FaultStep

if TYPE_CHECKING:
    from collections.abc import Callable

    from blackstart.model.fault import LaunchChange

WRITER = """
import os, time
os.makedirs("state", exist_ok=True)
file = os.open("state/journal", os.O_CREAT | os.O_WRONLY)
other = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
print(1, flush=True)
number = 0
while True:
    number += 1
    began, said = time.monotonic(), "fine"
    for call in ("write", "fsync"):
        try:
            os.write(file, b"x" * 10) if call == "write" else os.fsync(file)
        except OSError as error:
            said = f"{call} {error.errno}"
    os.write(other, f"{number} {said} {time.monotonic() - began:.4f}\\n".encode())
    time.sleep(0.001)
"""
SECCOMP = seccomp.unavailable()
pytestmark = pytest.mark.skipif(SECCOMP is not None, reason=str(SECCOMP))


def start(folder: Path, *prefix: str) -> subprocess.Popen[bytes]:
    """Start the writer, and wait until it has begun."""
    found = subprocess.Popen([*prefix, sys.executable, "-c", WRITER], cwd=folder, stdout=subprocess.PIPE)
    assert found.stdout is not None
    found.stdout.readline()
    return found


def end(process: subprocess.Popen[bytes]) -> None:
    """End it."""
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def lines(folder: Path) -> list[tuple[str, float]]:
    """Return what the writer said of each round: what became of it, and how long it took in s."""
    said = (folder / "log").read_text().splitlines()
    return [(" ".join(one.split()[1:-1]), float(one.split()[-1])) for one in said]


def last(folder: Path) -> str:
    """Return what became of the newest round; nothing before the first."""
    said = lines(folder)
    return said[-1][0] if said else ""


def rounds(folder: Path, number: int) -> Callable[[], bool]:
    """Make a question: has the writer gone so many rounds since that was first asked."""
    begun: list[int] = []

    def shown() -> bool:
        now = len(lines(folder))
        begun.append(now)
        return now > begun[0] + number

    return shown


async def until(test: Callable[[], bool]) -> bool:
    """Look until it holds."""
    deadline = time.monotonic() + 10
    while not test() and time.monotonic() < deadline:  # noqa: ASYNC110 - another process is waited for
        await asyncio.sleep(0.01)
    return test()


async def carry_out(
    kind: str, folder: Path, writer: Any, shown: Callable[[], bool], who: str = "we", **parameters: Any
) -> tuple[Any, Any]:
    """Break it until the writer shows it, take it back, and see that it works again; returns the proofs."""
    ctx: Any = Context({"v": writer}, folder=folder / "trial")
    step = FaultStep(kind=kind, components=("v",), parameters={"path": str(folder / "state"), **parameters})
    fault: Any = registry.make(kind)
    assert fault.unavailable(ctx.manifest, step) is None
    await fault.aim(ctx, step)
    receipt = await fault.inject(ctx, step)
    assert receipt.undo == tuple(ctx.protected)
    assert await until(shown), lines(folder)[-5:]
    witness = await fault.witness(ctx, receipt)
    if who == "we":
        await fault.revert(ctx, receipt)
        await fault.revert(ctx, receipt)
        assert (await fault.witness(ctx, receipt)).evidence["calls_seen"] >= witness.evidence["calls_seen"]
    await asyncio.to_thread(ctx.undo)
    before = len(lines(folder))
    assert await until(lambda: len(lines(folder)) > before + 10)
    assert {said for said, _ in lines(folder)[before + 2 :]} == {"fine"}
    (await seccomp.supervisor(ctx.folder)).close()
    return receipt, witness


@pytest.mark.parametrize("who", ["we", "the guardian"])
@pytest.mark.parametrize(
    ("kind", "parameters", "expected"),
    [
        ("disk_error", {}, f"write {errno.EIO}"),
        ("disk_error", {"error": "ENOSPC"}, f"write {errno.ENOSPC}"),
        ("disk_error", {"error": "EDQUOT", "call": "fsync"}, f"fsync {errno.EDQUOT}"),
        ("fsync_fail", {}, f"fsync {errno.EIO}"),
    ],
)
def test_calls_fail_with_that_error_until_it_is_taken_back(
    tmp_path: Path, kind: str, parameters: dict[str, Any], expected: str, who: str
) -> None:
    """The writer gets the error, from those calls and on those files only; then all is as before."""
    writer = start(tmp_path)
    try:
        shown = lambda: last(tmp_path) == expected  # noqa: E731 - it is one word
        receipt, witness = asyncio.run(carry_out(kind, tmp_path, writer, shown, who, **parameters))
        assert witness.bit is True
        assert witness.evidence["calls_failed"] > 0
        assert receipt.data["folders"] == [str(tmp_path / "state")]
        assert {said for said, _ in lines(tmp_path)} == {"fine", expected}
    finally:
        end(writer)


def test_exactly_those_calls_fail(tmp_path: Path) -> None:
    """Writes 5 to 14 since the injection fail, one after the other, and no other."""
    writer = start(tmp_path)
    try:
        failed = lambda: [said for said, _ in lines(tmp_path)].count("write 5")  # noqa: E731 - it is one word
        shown = lambda: failed() == 10 and last(tmp_path) == "fine"  # noqa: E731 - see above
        _, witness = asyncio.run(carry_out("disk_error", tmp_path, writer, shown, first=5, last=14))
        assert witness.evidence["calls_failed"] == failed() == 10
        said = [said for said, _ in lines(tmp_path)]
        first = said.index("write 5")
        assert said[first : first + 10] == ["write 5"] * 10
    finally:
        end(writer)


def test_a_lying_sync_is_counted_and_not_done(tmp_path: Path) -> None:
    """The writer notices nothing; the count of the swallowed syncs tells."""
    writer = start(tmp_path)
    try:
        shown = rounds(tmp_path, 20)
        receipt, witness = asyncio.run(carry_out("fsync_lie", tmp_path, writer, shown))
        assert witness.bit is True
        assert witness.evidence["calls_swallowed"] >= 10
        assert {one["call"] for one in witness.evidence["first"]} == {"fsync"}
        assert receipt.t0_source == "the first call that was swallowed"
    finally:
        end(writer)


def test_a_slow_disk_makes_each_call_wait(tmp_path: Path) -> None:
    """A write and a sync take twice the delay together; afterwards they do not."""
    writer = start(tmp_path)
    try:
        shown = lambda: lines(tmp_path)[-1][1] >= 0.08  # noqa: E731 - it is one word
        _, witness = asyncio.run(carry_out("disk_slow", tmp_path, writer, shown, delay_ms=40))
        assert witness.evidence["calls_delayed"] >= 2
        assert lines(tmp_path)[-1][1] < 0.08
    finally:
        end(writer)


def test_a_call_that_does_not_come_is_no_fault(tmp_path: Path) -> None:
    """The error says which; no rule stays."""
    writer = start(tmp_path)
    try:
        with pytest.raises(FaultError, match="no such call came: rename"):
            asyncio.run(carry_out("disk_error", tmp_path, writer, lambda: True, call="rename", limit_s=0.2))
        assert last(tmp_path) == "fine"
    finally:
        end(writer)


def test_a_component_without_a_file_there_is_told_so(tmp_path: Path) -> None:
    """A folder that it does not use is no disk of its."""
    writer = start(tmp_path)
    try:
        with pytest.raises(FaultError, match="no file open there"):
            asyncio.run(
                carry_out("disk_error", tmp_path, writer, lambda: True, path=str(tmp_path / "elsewhere"))
            )
    finally:
        end(writer)


class Launched(Context):
    """A target whose start can be changed for a fault."""

    prefix: tuple[str, ...] = ()

    def change_launch(self, change: LaunchChange) -> None:
        """Note what comes in front of its command."""
        self.prefix += change.prefix


@pytest.mark.parametrize(
    ("kind", "parameters", "expected"),
    [
        ("disk_full", {}, f"write {errno.ENOSPC}"),
        ("fsync_fail", {"mechanism": "launch"}, f"fsync {errno.EIO}"),
    ],
)
def test_from_the_start_on_whoever_comes_after_it_is_hit_too(
    tmp_path: Path, kind: str, parameters: dict[str, Any], expected: str
) -> None:
    """Without own mounts a full disk is injected; the next life of the component finds it full, too."""
    ctx: Any = Launched({}, folder=tmp_path / "trial")
    writers: list[subprocess.Popen[bytes]] = []

    async def main() -> None:
        fault: Any = registry.make(kind)
        step = FaultStep(
            kind=kind, components=("v",), parameters={"path": str(tmp_path / "state"), **parameters}
        )
        ctx.change_launch(await fault.prepare(ctx, step))
        writers.append(start(tmp_path, *ctx.prefix))
        ctx.processes["v"] = writers[0]
        await fault.aim(ctx, step)
        receipt = await fault.inject(ctx, step)
        assert "from the start" in receipt.mechanism
        assert await until(lambda: last(tmp_path) == expected)
        assert (await fault.witness(ctx, receipt)).bit is True
        end(writers[0])
        before = len(lines(tmp_path))
        writers.append(start(tmp_path, *ctx.prefix))
        assert await until(lambda: len(lines(tmp_path)) > before + 5)
        assert {said for said, _ in lines(tmp_path)[before:]} == {expected}
        await fault.revert(ctx, receipt)
        await asyncio.to_thread(ctx.undo)
        assert await until(lambda: last(tmp_path) == "fine")
        (await seccomp.supervisor(ctx.folder)).close()

    try:
        asyncio.run(main())
    finally:
        end(writers[-1])


AS_USER = """
import asyncio, pathlib, sys
sys.path.insert(0, FAULTS)
import test_disk_calls as t
for kind in ("disk_error", "fsync_fail", "fsync_lie", "disk_slow"):
    folder = pathlib.Path.cwd() / kind
    folder.mkdir()
    writer = t.start(folder)
    shown = t.rounds(folder, 5)
    receipt, witness = asyncio.run(t.carry_out(kind, folder, writer, shown))
    print(kind, witness.bit)
    t.end(writer)
"""


def test_an_ordinary_user_can_do_all_that_to_its_own_processes() -> None:
    """None of it needs a privilege."""
    said = ordinary_user.run(f"FAULTS = {str(Path(__file__).parent)!r}{AS_USER}", needs="pytest, msgspec")
    kinds = ["disk_error", "fsync_fail", "fsync_lie", "disk_slow"]
    assert said.splitlines() == [f"{kind} True" for kind in kinds]


@pytest.mark.parametrize("kind", ["fsync_fail", "kill_at_syscall"])
def test_who_is_filtered_and_not_answered_is_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The supervisor is killed as it gets the listener: the guardian knows whose calls fail until it ends."""
    tell = seccomp.Supervisor._tell

    def killed(self: seccomp.Supervisor, link: Any, request: dict[str, Any], *handles: int) -> None:
        if handles:
            for one in (*procs.children(self.pid), self.pid):
                os.kill(one, signal.SIGKILL)
        tell(self, link, request, *handles)

    monkeypatch.setattr(seccomp.Supervisor, "_tell", killed)
    writer = start(tmp_path)
    ctx: Any = Context({"v": writer}, folder=tmp_path / "trial")
    fault: Any = registry.make(kind)
    parameters = {"path": str(tmp_path / "state/"), "call": "fsync", "mechanism": "attach"}

    async def main() -> None:
        with pytest.raises(FaultError, match="start this process again"):
            await fault.aim(ctx, FaultStep(kind=kind, components=("v",), parameters=parameters))
        (await seccomp.supervisor(ctx.folder)).close()

    try:
        asyncio.run(main())
        (owed,) = ctx.protected
        verified, evidence = begin(owed.action, owed.arguments, "-")()
        assert (verified, evidence["pids"]) == (False, [writer.pid])
    finally:
        end(writer)
    ctx.undo()
