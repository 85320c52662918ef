"""System calls answered by rules, on real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ordinary_user
import pytest

from blackstart.engine.verbs import begin
from blackstart.errors import FaultError
from blackstart.host import cgroups, procs, ptrace, seccomp
from blackstart.host.seccomp import SYNCS, WRITES, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(seccomp.unavailable() is not None, reason=str(seccomp.unavailable()))

# Obeys lines: "CALL COUNT" makes that many calls, in every one of two threads, and tells how they went.
OBEY = """
import errno, os, sys, threading
file = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
other = os.open(sys.argv[1] + ".other", os.O_CREAT | os.O_RDWR)
print("up", flush=True)
DO = {"write": lambda: os.write(file, b"ab"), "fsync": lambda: os.fsync(file),
      "writev": lambda: os.writev(file, [b"ab", b"c"]), "other": lambda: os.write(other, b"ab"),
      "rename": lambda: os.rename(sys.argv[1] + ".other", "renamed") or 0}
def work(call, count, found):
    for _ in range(count):
        try: found.append(DO[call]())
        except OSError as error: found.append(errno.errorcode[error.errno])
for line in sys.stdin:
    call, count, threads = line.split()
    found = []
    if call == "fork":
        if os.fork() == 0: work("write", int(count), found); print(found, flush=True); os._exit(0)
        os.wait(); continue
    all = [threading.Thread(target=work, args=(call, int(count), found)) for _ in range(int(threads))]
    [one.start() for one in all]; [one.join() for one in all]
    print(found, flush=True)
"""


class Obedient:
    """A process that makes system calls when it is told to."""

    def __init__(self, folder: Path, prefix: tuple[str, ...] = ()) -> None:
        self.file = folder / "file"
        self.popen = subprocess.Popen(
            [*prefix, sys.executable, "-c", OBEY, str(self.file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            text=True,
        )
        assert self.answer() == "up"

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.popen.pid

    def tell(self, call: str, count: int = 1, threads: int = 1) -> None:
        """Say what to do."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{call} {count} {threads}\n")
        self.popen.stdin.flush()

    def answer(self) -> str:
        """Hear how it went."""
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def do(self, call: str, count: int = 1, threads: int = 1) -> list[Any]:
        """Tell, and hear."""
        self.tell(call, count, threads)
        found: list[Any] = eval(self.answer())
        return found

    def close(self) -> None:
        """End it."""
        self.popen.kill()
        self.popen.wait()
        for one in (self.popen.stdin, self.popen.stdout):
            assert one is not None
            with contextlib.suppress(BrokenPipeError):
                one.close()


Bench = tuple[asyncio.Runner, Any, Obedient]


def gone(pid: int) -> bool:
    """No longer there, or a zombie."""
    found = procs.stat(pid)
    return found is None or found.dead


def poll(test: Callable[[], bool], limit_s: float = 10.0) -> bool:
    """Look until `test` holds."""
    end = time.monotonic() + limit_s
    while not test() and time.monotonic() < end:
        time.sleep(0.005)
    return test()


@pytest.fixture(params=["attached", "started behind it"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Give a supervisor and a process whose writes, syncs and renames it answers; nobody is left behind."""
    calls = WRITES | SYNCS | seccomp.RENAMES
    with asyncio.Runner() as runner:
        supervisor = runner.run(seccomp.supervisor(tmp_path / "fault"))
        if request.param == "attached":
            process = Obedient(tmp_path)
            runner.run(supervisor.attach(process.pid, calls))
        else:
            process = Obedient(tmp_path, runner.run(supervisor.prefix(calls)))
        yield runner, supervisor, process
        process.close()
        runner.run(close(supervisor))
        assert poll(lambda: gone(supervisor.pid)), "the supervisor outlived everybody"


async def close(supervisor: Any) -> None:
    """Close it inside the loop."""
    supervisor.close()


def test_exactly_the_named_calls_fail(bench: Bench) -> None:
    """Writes 3 to 5 of the file fail, other writes and another file's pass; all are counted."""
    runner, supervisor, process = bench
    file = str(process.file)
    rule = Rule(id="full", calls=WRITES, path=file, first=3, last=5, action="errno", errno=28)
    runner.run(supervisor.put(rule))
    assert process.do("other", 4) == [2] * 4
    assert process.do("write", 7) == [2, 2, *["ENOSPC"] * 3, 2, 2]
    counters = runner.run(supervisor.drop("full"))
    assert (counters.seen, counters.acted) == (7, 3)
    assert [one["n"] for one in counters.samples] == [3, 4, 5]
    assert counters.samples[0]["pid"] == process.pid
    assert counters.samples[0]["path"] == str(process.file)
    assert process.do("write", 7) == [2] * 7
    assert process.file.stat().st_size == 2 * 11


def test_all_threads_and_children_are_covered(bench: Bench) -> None:
    """Calls of other threads and of a child born later fail like those of the first thread."""
    runner, supervisor, process = bench
    rule = Rule(id="bad", calls=WRITES, path=f"{process.file.parent}/", action="errno", errno=5)
    runner.run(supervisor.put(rule))
    assert process.do("write", 5, threads=4) == ["EIO"] * 20
    assert process.do("fork", 3) == ["EIO"] * 3
    assert runner.run(supervisor.counters("bad")).acted == 23


def test_a_rule_for_one_process_covers_its_children_and_nobody_else(
    bench: Bench,
) -> None:
    """With `pids` the process itself and its children are meant; for a stranger's pid nobody is."""
    runner, supervisor, process = bench
    rule = Rule(id="one", calls=WRITES, path=str(process.file), action="errno", errno=5)
    with subprocess.Popen(["true"]) as stranger:
        runner.run(supervisor.put(rule._replace(pids=(stranger.pid,))))
        assert process.do("write") == [2]
    runner.run(supervisor.put(rule._replace(pids=(process.pid,))))
    assert process.do("write") == ["EIO"]
    assert process.do("fork", 1) == ["EIO"]


def test_a_lie_is_told_as_the_truth_would_be(bench: Bench) -> None:
    """Pretended writes tell their own number of bytes and pretended syncs 0, and nothing is on the disk."""
    runner, supervisor, process = bench
    rule = Rule(id="lie", calls=WRITES | SYNCS, path=str(process.file), action="pretend")
    runner.run(supervisor.put(rule))
    assert process.do("write") + process.do("writev") + process.do("fsync") == [2, 3, None]
    assert process.file.stat().st_size == 0


def test_a_delayed_call_holds_up_nobody_else_and_goes_on_when_the_rule_goes(
    bench: Bench,
) -> None:
    """A sync delayed for minutes waits, another process' writes pass; the wait ends with the rule."""
    runner, supervisor, process = bench
    runner.run(supervisor.put(Rule(id="slow", calls=SYNCS, path=str(process.file), delay_ms=300_000)))
    process.tell("fsync")
    assert runner.run(supervisor.acted("slow", 10)).acted == 1
    other = Obedient(process.file.parent)
    try:
        runner.run(supervisor.attach(other.pid, WRITES))
        assert other.do("write", 3) == [2] * 3
    finally:
        other.close()
    assert runner.run(supervisor.drop("slow")).acted == 1
    assert process.answer() == "[None]"


def test_a_short_delay_is_kept(bench: Bench) -> None:
    """Three syncs delayed by 30 ms each take at least 90 ms, and are done."""
    runner, supervisor, process = bench
    runner.run(supervisor.put(Rule(id="slow", calls=SYNCS, path=str(process.file), delay_ms=30)))
    began = time.monotonic()
    assert process.do("fsync", 3) == [None] * 3
    assert time.monotonic() - began >= 0.09


def test_the_process_dies_at_the_nth_call_before_it_is_done(
    bench: Bench,
) -> None:
    """Killed at write 6: five are on the disk."""
    runner, supervisor, process = bench
    file = str(process.file)
    runner.run(supervisor.put(Rule(id="kill", calls=WRITES, path=file, first=6, action="kill")))
    process.tell("write", 1000)
    counters = runner.run(supervisor.acted("kill", 10))
    assert process.popen.wait() == -signal.SIGKILL
    assert process.file.stat().st_size == 2 * 5
    assert counters.samples[0]["before_mono_ns"] <= counters.samples[0]["after_mono_ns"]


def test_no_later_call_is_done_by_any_thread(bench: Bench) -> None:
    """Killed at write 6 of three threads: never more than five are on the disk."""
    runner, supervisor, process = bench
    file = str(process.file)
    runner.run(supervisor.put(Rule(id="kill", calls=WRITES, path=file, first=6, action="kill")))
    process.tell("write", 1000, threads=3)
    assert runner.run(supervisor.acted("kill", 10)).samples[0]["n"] == 6
    assert process.popen.wait() == -signal.SIGKILL
    assert process.file.stat().st_size <= 2 * 5


def test_paths_of_both_sides_of_a_rename_are_seen(bench: Bench) -> None:
    """A relative target path is understood as the process means it."""
    runner, supervisor, process = bench
    target = str(process.file.parent / "renamed")
    runner.run(supervisor.put(Rule(id="r", calls=seccomp.RENAMES, path=target, action="errno", errno=13)))
    assert process.do("rename") == ["EACCES"]
    runner.run(supervisor.drop("r"))
    assert process.do("rename") == [0]
    assert Path(target).exists()


def test_calls_pass_when_the_supervisor_is_killed(bench: Bench) -> None:
    """A call under way goes on, later ones pass, and the owner is told that its supervisor is gone."""
    runner, supervisor, process = bench
    runner.run(supervisor.put(Rule(id="slow", calls=SYNCS, path=str(process.file), delay_ms=300_000)))
    process.tell("fsync")
    runner.run(supervisor.acted("slow", 10))
    os.kill(supervisor.pid, signal.SIGKILL)
    assert process.answer() == "[None]"
    assert process.do("write", 50, threads=3) == [2] * 150
    with pytest.raises(FaultError, match="gone"):
        runner.run(supervisor.drop("slow"))


def test_a_dead_keeper_is_replaced(bench: Bench) -> None:
    """With the first keeper killed, the supervisor may still be killed without harm."""
    _, supervisor, process = bench

    def keepers() -> list[int]:
        return [one.pid for one in procs.everybody() if one.ppid == supervisor.pid and not one.dead]

    (first,) = keepers()
    os.kill(first, signal.SIGKILL)
    assert poll(lambda: len(keepers()) == 1 and keepers() != [first])
    os.kill(supervisor.pid, signal.SIGKILL)
    assert process.do("write", 50, threads=2) == [2] * 100


def test_who_has_neither_supervisor_nor_keeper_is_told_to_be_started_again(tmp_path: Path) -> None:
    """The kernel fails its filtered calls for good: that is no undo that was verified."""

    async def main(pid: int) -> tuple[Any, int, list[int]]:
        supervisor = await seccomp.supervisor(tmp_path / "fault")
        await supervisor.attach(pid, WRITES)
        return supervisor.undo("x"), supervisor.pid, procs.children(supervisor.pid)

    process = Obedient(tmp_path)
    arguments, supervisor, keepers = asyncio.run(main(process.pid))
    os.kill(supervisor, signal.SIGKILL)
    assert poll(lambda: gone(supervisor))
    assert begin("seccomp", arguments, "-")() == (True, {"supervisor": "gone, and its rules with it"})
    os.kill(keepers[0], signal.SIGKILL)
    assert poll(lambda: gone(keepers[0]))
    verified, evidence = begin("seccomp", arguments, "-")()
    assert (verified, evidence["pids"]) == (False, [process.pid])
    process.popen.kill()
    process.popen.wait()
    assert begin("seccomp", arguments, "-")()[0] is True
    process.close()


def test_without_a_supervisor_no_filter_is_put_in(tmp_path: Path) -> None:
    """It and its keeper were killed just now: the process is as it was, since no filter can be taken out."""

    async def main(pid: int) -> None:
        supervisor = await seccomp.supervisor(tmp_path / "fault")
        for one in (*procs.children(supervisor.pid), supervisor.pid):
            os.kill(one, signal.SIGKILL)
        assert poll(lambda: gone(supervisor.pid))
        with pytest.raises(FaultError, match="supervisor"):
            await supervisor.attach(pid, SYNCS)
        supervisor.close()

    process = Obedient(tmp_path)
    asyncio.run(main(process.pid))
    assert not procs.filtered(process.pid)
    assert process.do("fsync") == [None]
    process.close()


def descriptors(pid: int) -> set[int]:
    """Return the descriptors that a process has."""
    return {int(one) for one in os.listdir(f"/proc/{pid}/fd")}  # noqa: PTH208 - names are numbers


def exhaust(pid: int = 0, spare: int = 0) -> tuple[int, int]:
    """Leave a process no descriptor but so many spare ones; returns what its limits were."""
    taken = descriptors(pid or os.getpid())
    free = [number for number in range(1000) if number not in taken]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[spare], before[1]))
    return before


def test_our_last_descriptor_is_kept_for_the_listener(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is free any more when the filter is in: its calls are answered all the same."""
    install, limits = ptrace._install, resource.getrlimit(resource.RLIMIT_NOFILE)

    def last(*arguments: Any) -> int:
        found = install(*arguments)
        exhaust()
        return found

    async def main(pid: int) -> None:
        supervisor = await seccomp.supervisor(tmp_path / "fault")
        try:
            await supervisor.attach(pid, SYNCS)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        supervisor.close()

    monkeypatch.setattr(ptrace, "_install", last)
    process = Obedient(tmp_path)
    asyncio.run(main(process.pid))
    assert procs.filtered(process.pid)
    assert process.do("fsync") == [None]
    process.close()


def test_who_is_filtered_and_not_answered_is_told_to_be_started_again(tmp_path: Path) -> None:
    """The supervisor has no descriptor free: said with the pid, owed until that has ended, others go on."""

    async def main(pid: int, other: int) -> dict[str, Any]:
        supervisor = await seccomp.supervisor(tmp_path / "fault")
        held = len(descriptors(supervisor.pid))
        await supervisor.attach(other, SYNCS)
        assert poll(lambda: len(descriptors(supervisor.pid)) == held + 1)
        limits = exhaust(supervisor.pid, spare=1)  # for our connection
        with pytest.raises(seccomp.UnansweredError, match=f"pid {pid}: .*ENOSYS") as told:
            await supervisor.attach(pid, SYNCS)
        assert "start this process again" in told.value.hint
        resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, limits)
        supervisor.close()
        return supervisor.undo()

    process, other = Obedient(tmp_path), Obedient(tmp_path)
    undo = asyncio.run(main(process.pid, other.pid))
    assert process.do("fsync") == ["ENOSYS"]
    assert other.do("fsync") == [None]
    verified, evidence = begin("seccomp", undo, "-")()
    assert (verified, evidence["pids"]) == (False, [process.pid])
    process.close()
    assert begin("seccomp", undo, "-")()[0] is True
    other.close()


@pytest.mark.skipif(cgroups.unavailable("freezer") is not None, reason=str(cgroups.unavailable("freezer")))
@pytest.mark.parametrize("ours", [True, False])
def test_who_is_not_ours_keeps_its_keeper_when_our_control_group_is_killed(
    tmp_path: Path, *, ours: bool
) -> None:
    """Whoever ends the job in which Blackstart ran kills what is left in its group."""
    where = cgroups.hierarchy("freezer")
    assert where is not None
    if where.version == 1:
        pytest.skip("managers keep their groups in another hierarchy than the freezer's")
    group = where.mount / f"blackstarttest{os.getpid()}"
    process = Obedient(tmp_path)
    code = OWNER if not ours else OWNER.replace("int(sys.argv[2])", "await own()")
    arguments = [str(tmp_path / "fault"), str(process.pid), str(process.file)]
    owner = subprocess.Popen(
        [sys.executable, "-c", IN_GROUP + code, *arguments, str(group)], stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    try:
        supervisor = int(owner.stdout.readline())
        inside = cgroups.members(group)
        assert owner.pid in inside
        both = {supervisor, *procs.children(supervisor)}
        assert both & set(inside) == (both if ours else set())
    finally:
        for pid in cgroups.members(group):
            os.kill(pid, signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
        assert poll(lambda: not cgroups.members(group))
        group.rmdir()
    if not ours:
        assert process.do("write", 20) == [2] * 20
    process.close()


IN_GROUP = """
import os, sys
from pathlib import Path
group = Path(sys.argv[4])
group.mkdir()
(group / "cgroup.procs").write_text(str(os.getpid()))
async def own():
    import subprocess
    return subprocess.Popen(["sleep", "600"]).pid
"""


def test_the_guardian_takes_rules_out(bench: Bench) -> None:
    """The verb ends a delay and verifies it, twice, and also when the supervisor is gone."""
    runner, supervisor, process = bench
    runner.run(supervisor.put(Rule(id="slow", calls=SYNCS, path=str(process.file), delay_ms=300_000)))
    process.tell("fsync")
    runner.run(supervisor.acted("slow", 10))
    arguments = supervisor.undo("slow")
    assert begin("seccomp", arguments, "-")()[0] is True
    assert process.answer() == "[None]"
    assert begin("seccomp", arguments, "-")() == (True, {"rules_left": []})
    wrong = begin("seccomp", arguments | {"token": "guess"}, "-")()
    assert wrong[0] is False
    os.kill(supervisor.pid, signal.SIGKILL)
    assert poll(lambda: begin("seccomp", arguments, "-")()[0] is True)


OWNER = """
import asyncio, sys
from pathlib import Path
from blackstart.host import seccomp
async def main():
    supervisor = await seccomp.supervisor(Path(sys.argv[1]))
    await supervisor.attach(int(sys.argv[2]), seccomp.WRITES)
    rule = seccomp.Rule(id="x", calls=seccomp.WRITES, path=sys.argv[3], action="errno", errno=5)
    await supervisor.put(rule)
    print(supervisor.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def test_rules_end_with_their_owner(tmp_path: Path) -> None:
    """The owner is killed: the writes of its victim pass at once, and the supervisor ends with the victim."""
    process = Obedient(tmp_path)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), str(process.pid), str(process.file)],
        stdout=subprocess.PIPE,
    )
    try:
        assert owner.stdout is not None
        supervisor = int(owner.stdout.readline())
        assert process.do("write") == ["EIO"]
        owner.kill()
        owner.wait()
        assert poll(lambda: process.do("write") == [2])
        assert procs.stat(supervisor) is not None
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
        process.close()
    assert poll(lambda: gone(supervisor))


def test_a_second_set_of_calls_is_refused_with_the_reason(
    bench: Bench,
) -> None:
    """A filter cannot grow: what it was built without is named."""
    runner, supervisor, process = bench
    runner.run(supervisor.attach(process.pid, {"write"}))
    with pytest.raises(FaultError, match="built without: unlink"):
        runner.run(supervisor.attach(process.pid, {"unlink", "write"}))


@pytest.mark.parametrize("behind", [False, True])
def test_what_is_expected_is_in_every_filter(tmp_path: Path, *, behind: bool) -> None:
    """Two faults that announce their calls share one filter, made for either of them."""
    with asyncio.Runner() as runner:
        supervisor = runner.run(seccomp.supervisor(tmp_path / "fault"))
        prefix = runner.run(supervisor.prefix(WRITES)) if behind else ()
        runner.run(supervisor.expect(SYNCS))
        process = Obedient(tmp_path, prefix)
        runner.run(supervisor.attach(process.pid, WRITES))
        runner.run(supervisor.attach(process.pid, SYNCS))
        rule = Rule(id="full", calls=WRITES, path=str(process.file), action="errno", errno=28)
        runner.run(supervisor.put(rule))
        assert process.do("write", 2) == ["ENOSPC"] * 2
        runner.run(supervisor.drop("full"))
        process.close()
        runner.run(close(supervisor))


def test_who_is_gone_cannot_be_attached_to(tmp_path: Path) -> None:
    """The error names the pid."""
    dead = subprocess.Popen(["true"])
    dead.wait()

    async def main() -> None:
        supervisor = await seccomp.supervisor(tmp_path)
        try:
            with pytest.raises(FaultError, match=f"pid {dead.pid}"):
                await supervisor.attach(dead.pid, WRITES)
            with pytest.raises(FaultError, match="errno"):
                await supervisor.put(Rule(id="x", calls=WRITES, action="errno"))
        finally:
            supervisor.close()

    asyncio.run(main())


AS_USER = """
import asyncio, pathlib, test_seccomp as t
async def main():
    process = t.Obedient(pathlib.Path.cwd())
    supervisor = await t.seccomp.supervisor(pathlib.Path.cwd() / "fault")
    await supervisor.attach(process.pid, t.WRITES)
    await supervisor.put(t.Rule(id="x", calls=t.WRITES, path=str(process.file), action="errno", errno=28))
    print(process.do("write", 2), t.os.geteuid())
    process.close()
    supervisor.close()
asyncio.run(main())
"""


def test_an_ordinary_user_can_do_it_to_its_own_processes() -> None:
    """The same rule bites for a user without any privilege."""
    said = ordinary_user.run(AS_USER, needs="pytest")
    assert said == f"['ENOSPC', 'ENOSPC'] {os.geteuid() or ordinary_user.NOBODY}\n"


def test_a_static_program_is_covered(tmp_path: Path) -> None:
    """No library of the victim is needed: its calls fail all the same."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    source = tmp_path / "w.c"
    source.write_text(
        "#include <unistd.h>\n#include <fcntl.h>\n#include <stdio.h>\n"
        'int main(void){char c; int f=open("file",O_CREAT|O_RDWR,0600); read(0,&c,1);'
        ' printf("%d\\n",(int)write(f,"ab",2)); return 0;}\n'
    )
    subprocess.run(["gcc", "-static", "-o", tmp_path / "w", source], check=True)

    async def main() -> bytes:
        supervisor = await seccomp.supervisor(tmp_path / "fault")
        victim = subprocess.Popen(  # noqa: ASYNC220 - a test may block
            [tmp_path / "w"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            await supervisor.attach(victim.pid, WRITES)
            path = str(tmp_path / "file")
            await supervisor.put(Rule(id="x", calls=WRITES, path=path, action="errno", errno=28))
            return victim.communicate(b"x")[0]
        finally:
            victim.kill()
            victim.wait()
            supervisor.close()

    assert asyncio.run(main()) == b"-1\n"


def test_what_no_system_call_shows_is_named(tmp_path: Path) -> None:
    """A shared writable mapping of a file is a blind spot; a private one is not, and the dead have none."""
    (tmp_path / "ring").write_bytes(bytes(4096))
    code = (
        "import mmap,sys; f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0); print(1,flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "ring"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert seccomp.blind_spots(process.pid) == [f"shared mapping of {tmp_path / 'ring'}"]
    finally:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert seccomp.blind_spots(process.pid) == [], "a zombie"
        process.communicate()
    assert seccomp.blind_spots(process.pid) == []
    assert not any("ring" in one for one in seccomp.blind_spots(os.getpid()))


def test_a_filter_that_was_being_put_in_is_remembered_though_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, midst: Any
) -> None:
    """The trial ends in the midst of it: the thread finishes, and what was done counts, as if waited for."""
    install = seccomp.Supervisor._filter

    def slowly(self: Any, *arguments: Any) -> None:
        midst.stay()
        install(self, *arguments)

    async def main(pid: int) -> bool:
        supervisor = await seccomp.supervisor(tmp_path / "fault")
        await midst.cancel(supervisor.attach(pid, SYNCS))
        known = any(ref[0] == pid for ref in supervisor._calls)
        supervisor.close()
        return known

    monkeypatch.setattr(seccomp.Supervisor, "_filter", slowly)
    process = Obedient(tmp_path)
    try:
        assert asyncio.run(main(process.pid))
        assert procs.filtered(process.pid)
        assert process.do("fsync") == [None]
    finally:
        process.close()
