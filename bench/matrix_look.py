"""What the guardian matrix finds by looking for itself: on the host, among the processes, in the journals."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from pyroute2.nftables.main import NFTables

from blackstart.engine import journal
from blackstart.host import procs

MARK = "BLACKSTART_MATRIX"
"""In the environment of everything that a cell starts, helpers and guardian included: the cell's folder."""

_LOOK_S, _GRACE_S = 0.01, 5.0


class Host(NamedTuple):
    """What faults may leave behind on the host, outside any process."""

    mounts: frozenset[str]
    tables: frozenset[str]
    groups: frozenset[str]
    shared: frozenset[str]

    def beyond(self, before: Host) -> list[str]:
        """Name what was not there before."""
        return [
            f"{name}: {one}"
            for name in Host._fields
            for one in sorted(getattr(self, name) - getattr(before, name))
        ]


def host() -> Host:
    """Look at the host itself, not at what anybody says was taken back."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    groups = [str(path) for path in Path("/sys/fs/cgroup").rglob("blackstart-*")]
    shared = [path.name for path in Path("/dev/shm").iterdir() if "blackstart" in path.name]
    return Host(
        frozenset(line.split()[4] for line in mounts), _tables(), frozenset(groups), frozenset(shared)
    )


def _tables() -> frozenset[str]:
    if os.geteuid() != 0:
        return frozenset()
    with NFTables() as filters:
        return frozenset(str(table.get_attr("NFTA_TABLE_NAME")) for table in filters.get_tables())


def settled(before: Host) -> list[str]:
    """Name what the host has more than before; it gets a moment: the kernel removes namespaces by and by."""
    end = time.monotonic() + _GRACE_S
    while (found := host().beyond(before)) and time.monotonic() < end:
        time.sleep(_LOOK_S)
    return found


def still_owed(runs: Path) -> list[str]:
    """Name every undo that nobody carried out, or that failed, with what was found."""
    left = []
    for folder in sorted({str(path.parent) for path in runs.rglob(journal.OWED)}):
        said = {journal.key(one): one for one in journal.read(folder, journal.PAID)}
        for entry in journal.owed(folder):
            outcome = said.get(journal.key(entry))
            left.append(f"owed: {entry['id']} {'' if outcome is None else outcome['evidence']}".strip())
    return left


def survivors(runs: Path) -> list[str]:
    """Find processes that a cell started, in whatever way; they get a moment to end."""
    end = time.monotonic() + _GRACE_S
    while found := [pid for pid in _pids() if _belongs(pid, runs)]:
        if time.monotonic() > end:
            return [f"process {pid}: {_words(pid)}" for pid in found]
        time.sleep(_LOOK_S)
    return []


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _belongs(pid: int, runs: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    ours = any(f"{name}={runs}".encode() in environment for name in (MARK, procs.MARKER))
    found = procs.stat(pid)
    return ours and found is not None and not found.dead


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return "?"
