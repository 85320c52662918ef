"""What the supervisor can say of a component's memory (R27)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import pytest

from paperfirm.supervisor import memory
from paperfirm.supervisor.memory import Sample, examine, host_kills, kills

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def samples(*sizes_mib: float, every_s: float = 0.5) -> deque[Sample]:
    """Take samples of these sizes."""
    return deque(Sample(round(k * every_s * 1e9), round(size * MIB)) for k, size in enumerate(sizes_mib))


@pytest.mark.parametrize(
    ("taken", "verdict"),
    [
        (samples(*(100 + k for k in range(40))), "grew"),
        (samples(*(100 + k % 3 for k in range(40))), "did not grow"),
        (samples(*[100.0] * 39, 400), "did not grow"),
        (samples(*(1 + 0.05 * k for k in range(40))), "did not grow"),
        (samples(*(100 + 30 * k for k in range(20))), "too short to tell"),
        (samples(), "too short to tell"),
    ],
    ids=["steadily", "to and fro", "one jump at the end", "by 2 MiB of 1", "in 9.5 s", "never looked"],
)
def test_a_leak_is_growth_over_a_while(taken: deque[Sample], verdict: str) -> None:
    """Steady growth of more than a tenth and 4 MiB in 10 s or more; one large sample at the end is none."""
    assert examine(taken).verdict == verdict


def test_the_figures_are_those_of_the_samples() -> None:
    """First, last, largest, and the rate from the first quarter to the last."""
    found = examine(samples(10, 11, 14, 13, every_s=1.0))
    assert (found.samples, found.span_s) == (4, 3.0)
    assert (found.first_bytes, found.last_bytes, found.max_bytes) == (10 * MIB, 13 * MIB, 14 * MIB)
    assert found.growth_bytes_per_s == MIB


def group(root: Path, version: int, number: int) -> Path:
    """Make the files of process 7's memory group as the kernel shows them; returns the folder for `/proc`."""
    folder = root / ("memory/firm/risk" if version == 1 else "firm/risk")
    folder.mkdir(parents=True, exist_ok=True)
    if version == 1:
        (folder / "memory.oom_control").write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {number}\n")
        (folder / "memory.limit_in_bytes").write_text("67108864\n")
    else:
        (root / "cgroup.controllers").write_text("memory")
        (folder / "memory.events").write_text(f"low 0\noom 9\noom_kill {number}\noom_group_kill 0\n")
        (folder / "memory.max").write_text("max\n")
    proc = root / "proc"
    (proc / "7").mkdir(parents=True, exist_ok=True)
    (proc / "7" / "cgroup").write_text(
        "5:cpu:/\n4:memory:/firm/risk\n" if version == 1 else "0::/firm/risk\n"
    )
    return proc


@pytest.mark.parametrize(("version", "limit"), [(1, 64 * MIB), (2, None)])
def test_the_kernels_count_is_read_in_both_forms(tmp_path: Path, version: int, limit: int | None) -> None:
    """Control groups of version 1 and 2 tell it in different files; version 2 without a limit says `max`."""
    found = kills(7, proc=group(tmp_path, version, 2), root=tmp_path)
    assert found is not None
    assert (found.number, found.limit_bytes) == (2, limit)
    assert found.group.endswith("firm/risk")


def test_who_does_not_tell_is_not_believed_to_count_nothing(tmp_path: Path) -> None:
    """No such process, or no such file: None, and not 0."""
    proc = group(tmp_path, 2, 0)
    assert kills(8, proc=proc, root=tmp_path) is None
    (tmp_path / "firm/risk/memory.events").unlink()
    assert kills(7, proc=proc, root=tmp_path) is None


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the kernel of a record be a folder of files, whose host counts 9 kills."""
    monkeypatch.setattr(memory, "kills", lambda pid: kills(pid, proc=tmp_path / "proc", root=tmp_path))
    monkeypatch.setattr(memory, "host_kills", lambda: host_kills(tmp_path / "proc"))
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/vmstat").write_text("pgfault 1\noom_kill 9\nthp_fault 2\n")
    return tmp_path


@pytest.mark.parametrize("version", [1, 2])
def test_only_a_kill_more_than_before_is_one_of_this_process(here: Path, version: int) -> None:
    """What its group had counted before it began, or before the last look, killed somebody else."""
    group(here, version, 3)
    record = memory.Record()
    record.begin(7)
    assert record.killed(7).known_by is None
    group(here, version, 4)
    dead = here / "proc/7/cgroup"
    dead.write_text("4:memory:/\n" if version == 1 else "0::/firm/risk (deleted)\n")  # as of a zombie
    cause = record.killed(7)
    assert cause.known_by == "group"
    assert cause.group is not None
    assert cause.group.group.endswith("firm/risk")
    group(here, version, 4)
    record.look(7, 1, MIB, 9)
    assert record.killed(7).known_by is None


def test_a_group_that_is_new_counts_from_nothing(here: Path) -> None:
    """A component that was moved to a group of its own since the last look, and killed in it."""
    group(here, 1, 3)
    record = memory.Record()
    record.begin(7)
    (here / "proc/7/cgroup").write_text("4:memory:/new\n")
    (here / "memory/new").mkdir()
    (here / "memory/new/memory.oom_control").write_text("oom_kill 1\n")
    assert record.killed(7).known_by == "group"


def test_where_the_group_is_not_told_the_hosts_count_hints(here: Path) -> None:
    """A kill more on the whole host since the last look: likely, and said to be no more than that."""
    record = memory.Record()
    record.begin(7)
    assert record.killed(7) == (None, None)
    (here / "proc/vmstat").write_text("pgfault 1\noom_kill 10\n")
    assert record.killed(7) == (None, "host")
    record.look(7, 1, MIB, 10)
    assert record.killed(7).known_by is None
    (here / "proc/vmstat").unlink()
    assert record.killed(7).known_by is None
