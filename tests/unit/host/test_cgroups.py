"""Control groups of both versions, on trees of plain files: what no one machine has both of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blackstart.host import cgroups
from blackstart.host.cgroups import Hierarchy

if TYPE_CHECKING:
    from pathlib import Path

MOUNTS = (
    "25 20 0:22 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "26 20 0:23 /box /sys/fs/my\\040groups rw - cgroup2 cgroup2 rw\n"
)


def test_mounts_are_read_with_their_root_and_spaces() -> None:
    """Root, place, kind and options of each line; a space in a path is written as an octal number."""
    first, second = cgroups._mounts(MOUNTS)
    assert (first[0], str(first[1]), first[2], first[3].split(",")[-1]) == (
        "/",
        "/sys/fs/cgroup/memory",
        "cgroup",
        "memory",
    )
    assert (second[0], str(second[1]), second[2]) == ("/box", "/sys/fs/my groups", "cgroup2")


def test_a_group_seen_through_a_container_is_found_below_the_mount(tmp_path: Path) -> None:
    """The path that the kernel tells begins with the root of the mount; one from elsewhere is the mount."""
    (tmp_path / "service").mkdir()
    where = Hierarchy("memory", 1, tmp_path, "/box")
    assert cgroups._below(where, "/box/service") == tmp_path / "service"
    assert cgroups._below(where, "/elsewhere") == tmp_path


def test_in_version_2_a_group_is_made_where_the_controller_is_handed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group with processes cannot hand out controllers: up to the first that does; freezing needs none."""
    inner = tmp_path / "slice" / "service"
    inner.mkdir(parents=True)
    for folder, handed in ((tmp_path, "cpu memory"), (tmp_path / "slice", "memory"), (inner, "")):
        (folder / "cgroup.subtree_control").write_text(handed + "\n")
    monkeypatch.setattr(cgroups, "home", lambda _where, _pid: inner)
    found = {
        one: cgroups.nursery(Hierarchy(one, 2, tmp_path, "/"), 1) for one in ("memory", "cpu", "freezer")
    }
    assert found == {"memory": tmp_path / "slice", "cpu": tmp_path, "freezer": inner}
    assert cgroups.nursery(Hierarchy("memory", 1, tmp_path, "/"), 1) == inner


def test_counters_of_both_versions_are_read(tmp_path: Path) -> None:
    """Lines of a name and a number; a file that is not there counts nothing."""
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    assert cgroups.values(tmp_path, "memory.events") == {"low": 0, "oom": 2, "oom_kill": 1}
    assert cgroups.values(tmp_path, "memory.oom_control") == {}


@pytest.mark.parametrize(
    ("file", "frozen", "thawed"),
    [("cgroup.freeze", "1", "0"), ("freezer.state", "FROZEN", "THAWED")],
)
def test_each_version_is_frozen_in_its_words(tmp_path: Path, file: str, frozen: str, thawed: str) -> None:
    """Version 2 takes a number, version 1 a word."""
    (tmp_path / file).write_text("")
    cgroups.freeze(tmp_path, frozen=True)
    assert (tmp_path / file).read_text() == frozen
    (tmp_path / file).write_text("")
    cgroups.freeze(tmp_path, frozen=False)
    assert (tmp_path / file).read_text() == thawed


def test_what_does_not_go_is_told(tmp_path: Path) -> None:
    """A group that cannot be removed within the limit is left, and said to be."""
    group = tmp_path / "group"
    group.mkdir()
    (group / "child").mkdir()
    assert cgroups.dissolve(group, tmp_path, limit_s=0.01) is False
    (group / "child").rmdir()
    assert cgroups.dissolve(group, tmp_path) is True
    assert cgroups.dissolve(group, tmp_path) is True
