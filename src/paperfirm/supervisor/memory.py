"""How much memory a component had, and what is known when the kernel may have ended it for want of it (R27).

Samples and judgement are pure; reading the kernel's own count of OOM kills is not.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

KEPT = 240
"""Two minutes, looked at twice a second."""
SPAN_S = 10.0
SHARE = 0.1
LEAST_BYTES = 4 << 20

Verdict = Literal["grew", "did not grow", "too short to tell"]


class Sample(NamedTuple):
    """Memory in use (RSS) at an instant."""

    mono_ns: int
    rss_bytes: int


class Examined(NamedTuple):
    """What the samples of one life say. `growth_bytes_per_s` is from the first quarter to the last."""

    samples: int
    span_s: float
    first_bytes: int
    last_bytes: int
    max_bytes: int
    growth_bytes_per_s: int
    verdict: Verdict


class Kills(NamedTuple):
    """How many OOM kills the kernel counts in a memory control group; `limit_bytes` None: it has no limit."""

    group: str
    number: int
    limit_bytes: int | None


def examine(samples: deque[Sample]) -> Examined:
    """Say whether it grew: by more than a tenth and 4 MiB, in the 10 s at least that this needs."""
    if not samples:
        return Examined(0, 0.0, 0, 0, 0, 0, "too short to tell")
    sizes = [one.rss_bytes for one in samples]
    span_s = (samples[-1].mono_ns - samples[0].mono_ns) / 1e9
    rate = _rate(samples)
    verdict: Verdict = "did not grow"
    if span_s < SPAN_S:
        verdict = "too short to tell"
    elif rate * span_s > max(SHARE * sizes[0], LEAST_BYTES):
        verdict = "grew"
    return Examined(len(sizes), round(span_s, 3), sizes[0], sizes[-1], max(sizes), round(rate), verdict)


def _rate(samples: deque[Sample]) -> float:
    """Return bytes a second between the medians of the first and the last quarter.

    One large sample, at whichever end, decides nothing.
    """
    quarter = max(len(samples) // 4, 1)
    ends = list(samples)[:quarter], list(samples)[-quarter:]
    first, last = (median(one.rss_bytes for one in end) for end in ends)
    began, ended = (median(one.mono_ns for one in end) for end in ends)
    return (last - first) / ((ended - began) / 1e9) if ended > began else 0.0


def kills(pid: int, *, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> Kills | None:
    """Read the count of the group that a process is in, or was when it died and nobody has waited for it.

    None where the kernel does not tell it, as for a process in no group of its own.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        number, controllers, path = line.split(":", 2)
        inside = path.removesuffix(" (deleted)").lstrip("/")
        if "memory" in controllers.split(","):
            return _read(root / "memory" / inside, ("memory.oom_control",), "memory.limit_in_bytes")
        if number == "0" and (root / "cgroup.controllers").exists():
            files = ("memory.events.local", "memory.events")
            return _read(root / inside, files, "memory.max")
    return None


def _read(folder: Path, files: tuple[str, ...], limit: str) -> Kills | None:
    for name in files:
        try:
            lines = (folder / name).read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return Kills(str(folder), int(value), _limit(folder / limit))
    return None


def _limit(file: Path) -> int | None:
    """Return a limit; version 1 writes a huge number for none."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < 1 << 60 else None


def host_kills(proc: Path = Path("/proc")) -> int | None:
    """Read how many OOM kills the kernel counts on the whole host; None where it does not tell."""
    try:
        text = (proc / "vmstat").read_text(encoding="ascii")
    except OSError:
        return None
    found = text.partition("\noom_kill ")[2].partition("\n")[0]
    return int(found) if found.isdigit() else None


class Cause(NamedTuple):
    """What is known of a death by SIGKILL: the process's group, and whose count tells of a kill.

    `host`: somebody was killed for want of memory since the last look; that it was this process is likely.
    """

    group: Kills | None
    known_by: Literal["group", "host"] | None


class Record:
    """The samples of a component's present life, and the counts of OOM kills at the last look."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self._group: Kills | None = None
        self._host: int | None = None

    def begin(self, pid: int) -> None:
        """Begin with a new process; of the kills that are counted already, none was of it."""
        self.samples = deque(maxlen=KEPT)
        self._group, self._host = kills(pid), host_kills()

    def look(self, pid: int, mono_ns: int, rss_bytes: int, host: int | None) -> None:
        """Take a sample; `rss_bytes` 0 means that the process has gone. `host` are the host's kills now."""
        if rss_bytes:
            self.samples.append(Sample(mono_ns, rss_bytes))
            self._group, self._host = kills(pid) or self._group, host

    def killed(self, pid: int) -> Cause:
        """Ask of a dead process that nobody has waited for: version 2 still tells its group, version 1 not.

        A group that was not there at the last look counts from 0.
        """
        before, found = self._group, kills(pid)
        if before is not None and (found is None or before.group.startswith(found.group)):
            found = again(before)  # version 1 has moved it to the top by now
        counted = before.number if before and found and before.group == found.group else 0
        if found is not None and found.number > counted:
            return Cause(found, "group")
        host = host_kills()
        more = host is not None and self._host is not None and host > self._host
        return Cause(found, "host" if more else None)


def again(group: Kills) -> Kills:
    """Read a group's count anew; as it was, where the group has gone."""
    files = ("memory.events.local", "memory.events", "memory.oom_control")
    found = _read(Path(group.group), files, "")
    return group if found is None else group._replace(number=found.number)
