"""Processes by `/proc`: who is it, who belongs to it, is it gone.

Standard library only: the guardian imports this, and the helper on another host (Python 3.9).

A process is named by its pid and its start time in clock ticks. A pid in use as a session id is never given
to a new process, so members of a session whose leader died can still be found without mistake.
"""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MARKER = "BLACKSTART_PROCESS"
"""Environment variable of every started process and its descendants: `RUN_FOLDER:NAME`."""

LAUNCHER = "/blackstart/target/launcher.py "
"""What stands on the command line of every process of ours that is not yet the real one."""


class Stat(NamedTuple):
    """The fields of `/proc/PID/stat` that matter here."""

    pid: int
    state: str
    ppid: int
    sid: int
    start_ticks: int

    @property
    def dead(self) -> bool:
        """Zombies are dead: `kill(pid, 0)` would call them alive."""
        return self.state in "ZX"

    @property
    def stopped(self) -> bool:
        """By SIGSTOP, or by a debugger."""
        return self.state in "Tt"


def stat(pid: int) -> Stat | None:
    """Read the process's state, or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib would double the guardian's start time
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold spaces and brackets; the last bracket ends it.
    fields = text[text.rindex(b")") + 2 :].split()
    return Stat(pid, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def thread_states(pid: int) -> dict[str, int]:
    """Count a process's threads by state letter (`S`, `D`, `T`, …); empty when it is gone."""
    found: dict[str, int] = {}
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - start time, too
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:  # noqa: PTH123 - as above
                letter = file.read().rpartition(b")")[2].split(None, 1)[0].decode()
        except (OSError, IndexError):
            continue  # it ended meanwhile
        found[letter] = found.get(letter, 0) + 1
    return found


def filtered(pid: int) -> bool:
    """Whether a filter stands before the process's system calls (seccomp)."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123 - see above
            return b"\nSeccomp:\t2\n" in file.read()
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_alive(pid: int, start_ticks: int) -> bool:
    """Whether this very process still runs."""
    found = stat(pid)
    return found is not None and found.start_ticks == start_ticks and not found.dead


def everybody(since: int | None = None) -> Iterator[Stat]:
    """Yield all processes that we may see; with `since`, that process and those that were born after it.

    The kernel hands pids out in a circle, so these lie between it and the newest one. That does not hold for
    a process that is as old as the circle is long: ask without `since` when completeness matters most.
    """
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - see above
    if since is not None:
        newest = _newest()
        circle = newest < since
        pids = [pid for pid in pids if (pid >= since or pid <= newest if circle else since <= pid <= newest)]
    for pid in pids:
        if (found := stat(pid)) is not None:
            yield found


def ticks() -> int:
    """Return the present moment as processes' start times are told: in clock ticks since the boot."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def _newest() -> int:
    with open("/proc/loadavg", "rb") as file:  # noqa: PTH123 - see above
        return int(file.read().split()[-1])


class Census:
    """One look at all live processes, which may serve several questions; `since`: see `everybody`."""

    def __init__(self, since: int | None = None) -> None:
        self.taken_s = time.monotonic()
        self.table = [one for one in everybody(since) if not one.dead]
        self._markers: dict[int, bytes] = {}

    def carries(self, pid: int, marker: str) -> bool:
        """Whether that process was started with that marker, or by one that was."""
        if pid not in self._markers:
            self._markers[pid] = _marker(pid)
        return self._markers[pid] == marker.encode()


def family(
    pid: int,
    start_ticks: int,
    marker: str | None = None,
    *,
    young: bool = False,
    census: Census | None = None,
) -> list[Stat]:
    """Find the live process, its descendants, the session it leads or led, and whoever carries its marker.

    `young` looks only at those born after it, which takes a fraction of the time: see `everybody`.
    """
    census = census or Census(pid if young else None)
    table = census.table
    leader = next((one for one in table if one.pid == pid), None)
    ours = leader is None or leader.start_ticks == start_ticks
    members = {
        one.pid for one in table if ours and one.start_ticks >= start_ticks and pid in (one.pid, one.sid)
    }
    members |= {
        one.pid
        for one in table
        if marker and one.start_ticks >= start_ticks and census.carries(one.pid, marker)
    }
    while more := {one.pid for one in table if one.ppid in members} - members:
        members |= more
    return [one for one in table if one.pid in members and one.pid != os.getpid()]


def children(pid: int) -> list[int]:
    """Return the live children of a process."""
    return [one.pid for one in everybody() if one.ppid == pid and not one.dead]


def carriers(marker: str) -> list[Stat]:
    """Find the live processes that carry a marker."""
    census = Census()
    return [one for one in census.table if census.carries(one.pid, marker)]


def started_in(folder: str) -> list[Stat]:
    """Find the live processes that carry a marker of this run folder, or of one below it."""
    ends = (f"{folder.rstrip('/')}:".encode(), f"{folder.rstrip('/')}/".encode())
    return [one for one in everybody() if not one.dead and _marker(one.pid).startswith(ends)]


def matching(pattern: str) -> list[tuple[Stat, str]]:
    """Find the live processes on whose command line a regular expression is found.

    Never ourselves, nor a launcher that still waits to become the program that its command line names.
    """
    compiled = re.compile(pattern)
    lines = ((one, command_line(one.pid)) for one in everybody() if not one.dead and one.pid != os.getpid())
    return [(one, line) for one, line in lines if line and compiled.search(line) and LAUNCHER not in line]


def command_line(pid: int) -> str:
    """Return a process's command line with spaces between its words; empty when it has none or is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - see above
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _marker(pid: int) -> bytes:
    prefix = f"{MARKER}=".encode()
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - see above
            entries = file.read().split(b"\0")
    except OSError:
        return b""
    return next((one[len(prefix) :] for one in entries if one.startswith(prefix)), b"")


def send(one: Stat, number: int) -> bool:
    """Signal exactly this process, never a later owner of its pid; says whether it got the signal.

    It does not where it has gone, or may not be signalled by us: one of these keeps nobody from the others.
    """
    try:
        handle = os.pidfd_open(one.pid)
    except ProcessLookupError:
        return False
    try:
        now = stat(one.pid)
        if now is None or now.start_ticks != one.start_ticks:
            return False
        signal.pidfd_send_signal(handle, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(handle)
    return True


def wait_gone(members: Iterable[Stat], limit_s: float) -> list[int]:
    """Wait until all are dead; returns the pids that are not after `limit_s`."""
    left = list(members)
    end = time.monotonic() + limit_s
    while left := [one for one in left if is_alive(one.pid, one.start_ticks)]:
        if time.monotonic() > end:
            break
        time.sleep(0.001)
    return [one.pid for one in left]
