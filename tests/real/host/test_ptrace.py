"""System calls made in a process' name: it goes on as if nothing had been, however long they take."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from blackstart.errors import FaultError
from blackstart.host import procs, ptrace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(ptrace.unavailable() is not None, reason=str(ptrace.unavailable()))

POLL, MMAP, MUNMAP = 7, 9, 11
READ_WRITE, PRIVATE_ANONYMOUS, POPULATE = 3, 0x22, 0x8000
LARGE = 512 << 20
"""So much memory takes the kernel a while, and nothing but SIGKILL breaks it off."""

# Counts, waiting in a system call or not, and tells of SIGUSR1: unbuffered, for that may come amid a number.
COUNTS = """
import os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"signal\\n"))
number = 0
while True:
    number += 1
    os.write(1, b"%d\\n" % number)
    end = time.monotonic() + 0.02
    if sys.argv[1] == "waits": time.sleep(0.02)
    while time.monotonic() < end: pass
"""


class Counting:
    """A process that counts."""

    def __init__(self, how: str) -> None:
        self.popen = subprocess.Popen([sys.executable, "-c", COUNTS, how], stdout=subprocess.PIPE, text=True)
        self.pid = self.popen.pid
        self.told = [self.line()]

    def line(self) -> str:
        """Read what it tells."""
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def goes_on(self) -> bool:
        """Say whether it counts on, number by number, and hears a signal: nothing of ours is left in it."""
        self.popen.send_signal(signal.SIGUSR1)
        more = [self.line() for _ in range(100)]
        while more[-1] and "signal" not in more:
            more.append(self.line())
        self.told += more
        numbers = [one for one in self.told if one != "signal"]
        return numbers == [str(one) for one in range(1, len(numbers) + 1)] and "signal" in more


@pytest.fixture(params=["waits", "computes"])
def counting(request: pytest.FixtureRequest) -> Iterator[Counting]:
    """Start one that is found in a system call, and one that is not."""
    found = Counting(request.param)
    with found.popen:
        yield found
        found.popen.kill()


def inside(pid: int, work: Callable[[ptrace.Entered], int]) -> int:
    """Do something in its name."""

    def enter() -> int:
        with ptrace.Entered(pid) as process:
            return work(process)

    return ptrace.alone(enter)


def test_a_call_that_waits_is_broken_off(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as an error, soon, and the process goes on with its own registers and signals."""
    monkeypatch.setattr(ptrace, "_STOP_LIMIT_S", 0.1)
    began = time.monotonic()
    with pytest.raises(FaultError, match="did not come back"):
        inside(counting.pid, lambda process: process.call(POLL, 0, 0, 9_000))
    assert time.monotonic() - began < 5
    assert counting.goes_on()


def test_code_that_does_not_end_is_broken_off(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of ours that turns in a circle: told as an error, and the process goes on."""
    monkeypatch.setattr(ptrace, "_STOP_LIMIT_S", 0.1)

    def work(process: ptrace.Entered) -> NoReturn:
        page = process.call(MMAP, 0, 4096, 7, PRIVATE_ANONYMOUS, -1, 0)
        process.write(page, b"\xeb\xfe")  # jmp .
        process.run(page, 0, 0, 0)
        raise AssertionError

    with pytest.raises(FaultError, match="did not come to its end"):
        inside(counting.pid, work)
    assert counting.goes_on()


def test_a_call_that_nothing_breaks_off_is_waited_for(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer counts, late as it is, further calls are made as ever, and the process goes on."""
    monkeypatch.setattr(ptrace, "_STOP_LIMIT_S", 0.01)

    def work(process: ptrace.Entered) -> int:
        began = time.monotonic()
        area = process.call(MMAP, 0, LARGE, READ_WRITE, PRIVATE_ANONYMOUS | POPULATE, -1, 0)
        assert area > 0
        assert time.monotonic() - began > 0.02
        monkeypatch.setattr(ptrace, "_STOP_LIMIT_S", 5.0)
        return process.call(MUNMAP, area, LARGE)

    assert inside(counting.pid, work) == 0
    assert counting.goes_on()


def test_who_is_given_up_is_told_in_what_state_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thread, registers and signals are named, and that error is not hidden by what follows from it."""
    monkeypatch.setattr(ptrace, "_STOP_LIMIT_S", 0.01)
    monkeypatch.setattr(ptrace, "_STUCK_LIMIT_S", 0.0)
    counting = Counting("waits")

    def work(process: ptrace.Entered) -> int:
        try:
            return process.call(MMAP, 0, LARGE, READ_WRITE, PRIVATE_ANONYMOUS | POPULATE, -1, 0)
        finally:
            process.call(MUNMAP, 0, 4096)

    with counting.popen:
        with pytest.raises(
            FaultError, match=f"thread {counting.pid} .* registers of ours .* signals"
        ) as told:
            inside(counting.pid, work)
        counting.popen.kill()
    assert told.value.where == f"pid {counting.pid}"


def test_a_stop_meanwhile_is_kept(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP while we are in it: our calls are made, and then it stands still until it is told to go on."""
    monkeypatch.setattr(ptrace, "_STOP_LIMIT_S", 0.5)

    def work(process: ptrace.Entered) -> int:
        counting.popen.send_signal(signal.SIGSTOP)
        area = process.call(MMAP, 0, 4096, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0)
        return process.call(MUNMAP, area, 4096)

    assert inside(counting.pid, work) == 0
    end = time.monotonic() + 5
    while (found := procs.stat(counting.pid)) is None or not found.stopped:
        assert time.monotonic() < end, Path(f"/proc/{counting.pid}/status").read_text(encoding="utf-8")
    counting.popen.send_signal(signal.SIGCONT)
    assert counting.goes_on()
