"""The lifeline with real processes: death is told at once, letting go is told as such."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest

from blackstart.host import lifeline

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLDER = textwrap.dedent(
    """
    import os, subprocess, sys
    from blackstart.host.lifeline import Lifeline
    line = Lifeline()
    print(os.getpid(), line.fd, flush=True)
    child = subprocess.Popen(["sleep", "600"], pass_fds=(1,)) if sys.argv[1:] else None
    print(child.pid if child else 0, flush=True)
    sys.stdin.readline()
    line.let_go()
    sys.stdin.readline()
    """
)


@pytest.fixture
def holder(request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a holder; yields it with a descriptor of its lifeline. With a parameter a child outlives it."""
    with_child = bool(getattr(request, "param", False))
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *(["child"] if with_child else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pid, fd = map(int, process.stdout.readline().split())
    child = int(process.stdout.readline())
    mine = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    yield process, mine
    os.close(mine)
    if child:
        os.kill(child, signal.SIGKILL)
    process.kill()
    process.communicate()


def waited(fd: int) -> tuple[threading.Thread, list[bool]]:
    """Wait in a thread of its own; the list gets the answer."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(lifeline.died(fd)), daemon=True)
    thread.start()
    return thread, answers


@pytest.mark.parametrize("holder", [True], indirect=True)
def test_a_death_is_told_although_what_the_dead_had_open_is_not_closed(
    holder: tuple[subprocess.Popen[str], int],
) -> None:
    """It is the kernel's word about the holder itself: a child that keeps its files open changes nothing."""
    process, fd = holder
    thread, answers = waited(fd)
    process.kill()
    thread.join(timeout=20)
    assert answers == [True]


def test_a_death_before_anybody_waits_is_told_as_well(holder: tuple[subprocess.Popen[str], int]) -> None:
    """Who comes late hears at once."""
    process, fd = holder
    process.kill()
    process.wait()
    thread, answers = waited(fd)
    thread.join(timeout=20)
    assert answers == [True]


def test_letting_go_is_no_death(holder: tuple[subprocess.Popen[str], int]) -> None:
    """While the holder lives nothing is told; when it lets go, that is told."""
    process, fd = holder
    thread, answers = waited(fd)
    thread.join(timeout=0.2)
    assert answers == []
    assert process.stdin is not None
    process.stdin.write("let go\n")
    process.stdin.flush()
    thread.join(timeout=20)
    assert answers == [False]


def test_the_end_of_the_thread_that_holds_it_is_a_death() -> None:
    """A process may live on without the thread whose work was watched."""
    made: list[lifeline.Lifeline] = []
    thread = threading.Thread(target=lambda: made.append(lifeline.Lifeline()))
    thread.start()
    thread.join()
    waiting, answers = waited(made[0].fd)
    waiting.join(timeout=20)
    assert answers == [True]
    os.close(made[0].fd)


def test_letting_go_twice_is_harmless() -> None:
    """The second time there is nothing left to let go of."""
    line = lifeline.Lifeline()
    mine = os.dup(line.fd)
    line.let_go()
    line.let_go()
    assert lifeline.died(mine) is False
    os.close(mine)
