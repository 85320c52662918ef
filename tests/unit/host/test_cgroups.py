"""Control groups of both versions, on trees of plain files: what no one machine has both of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blackstart.engine import verbs
from blackstart.errors import FaultError
from blackstart.faults.company import Company
from blackstart.host import cgroups
from blackstart.host.cgroups import Hierarchy
from blackstart.model.fault import ProcessRef

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


def test_limits_are_lifted_in_the_words_of_each_version(tmp_path: Path) -> None:
    """Whatever a fault may have limited, and no file that the group does not have."""
    for file in ("cpu.max", "memory.max", "memory.swap.max", "cpu.cfs_quota_us", "memory.limit_in_bytes"):
        (tmp_path / file).write_text("5")
    cgroups.lift(tmp_path)
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {
        "cpu.max": "max",
        "memory.max": "max",
        "memory.swap.max": "max",
        "cpu.cfs_quota_us": "-1",
        "memory.limit_in_bytes": "-1",
    }


def test_who_cannot_leave_a_group_is_limited_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits go first: that needs no way home."""
    (tmp_path / "cpu.max").write_text("5000 100000")
    (tmp_path / "cgroup.procs").write_text("7\n")

    def stuck(_folder: Path, _pid: int) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(cgroups, "join", stuck)
    assert cgroups.dissolve(tmp_path, tmp_path.parent, limit_s=0.01) is False
    assert (tmp_path / "cpu.max").read_text().startswith("max")


def test_a_home_that_went_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above it there may be no processes in version 2: systemd ends a scope that is empty, and removes it."""
    group, home = tmp_path / "slice" / "group", tmp_path / "slice" / "docker-1.scope"
    group.mkdir(parents=True)
    inside, moved = [7], []

    def join(folder: Path, pid: int) -> None:
        if folder == tmp_path / "slice":
            raise OSError(16, "Device or resource busy")
        assert folder.is_dir()
        moved.append((folder, pid))
        inside.remove(pid)

    monkeypatch.setattr(cgroups, "join", join)
    monkeypatch.setattr(cgroups, "members", lambda _folder: list(inside))
    assert verbs.begin("cgroup", {"path": str(group), "home": str(home)}, "/")() == (
        True,
        {"removed": str(group), "home": f"{home} had gone: made again, without limits of its own"},
    )
    assert moved == [(home, 7)]


@pytest.mark.parametrize(
    ("inside", "found"),
    [
        ({"": "7\n"}, "docker-1.scope"),
        ({"": "7\n8\n"}, None),
        ({"": "7\n", "inner": "9\n"}, None),
        ({"": ""}, "docker-1.scope"),
    ],
)
def test_a_scope_that_would_be_left_empty_is_named(
    tmp_path: Path, inside: dict[str, str], found: str | None
) -> None:
    """All groups below it count; what is in no scope is nobody's who would end it."""
    scope, service = tmp_path / "docker-1.scope", tmp_path / "x.service"
    for folder, pids in {scope / name: text for name, text in inside.items()}.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text(pids)
    service.mkdir()
    (service / "cgroup.procs").write_text("7\n")
    assert cgroups.left_empty(scope, 7) == found
    assert cgroups.left_empty(service, 7) is None


@pytest.mark.parametrize(
    ("home", "why"),
    [
        ("docker-1.scope", "alone in docker-1.scope"),
        ("blackstart-12-00ff00-server", "control group of another fault"),
    ],
)
def test_who_could_not_be_sent_home_is_not_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, why: str
) -> None:
    """It is refused before anything is protected, made or moved."""
    (tmp_path / home).mkdir()
    (tmp_path / home / "cgroup.procs").write_text("7\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    monkeypatch.setattr(cgroups, "home", lambda _where, _pid: tmp_path / home)
    company, where = Company(), Hierarchy("cpu", 2, tmp_path, "/")
    with pytest.raises(FaultError, match=why):
        company.group(where, "server", ProcessRef(7, 1))
    assert (company.undos, company.groups) == ([], {})
