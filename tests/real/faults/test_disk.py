"""A full disk in mounts of its own, as root and as an ordinary user; files that fail, lie and come late."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from blackstart.faults import registry
from blackstart.host import mounts, namespaces, procs
from blackstart.model.manifest import Component, Manifest, Process
from blackstart.model.scenario import FaultStep

BENCH = Path(__file__).parent / "disk_program.py"


@pytest.fixture(params=["root", "user namespace"])
def how(request: Any) -> tuple[str, ...]:
    """Each way to mounts of its own; a host that does not allow one skips, and says so."""
    if request.param == "root":
        if os.geteuid() != 0:
            pytest.skip("needs root")
        return ()
    tried = subprocess.run(("unshare", "-Ur", "true"), capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no user namespaces here: {tried.stderr.strip()}")
    return ("unshare", "-Ur")


def start(how: tuple[str, ...], run: Path, **told: Any) -> subprocess.Popen[str]:
    """Fill a disk below `run` in a process of its own."""
    environment = {**os.environ, "XDG_STATE_HOME": str(run.parent / "index")}
    return subprocess.Popen(
        (*how, sys.executable, str(BENCH), json.dumps({"run": str(run), **told})),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.parametrize("who", ["we", "the guardian"])
def test_a_full_disk_takes_nothing_until_it_is_given_back(
    how: tuple[str, ...], tmp_path: Path, who: str
) -> None:
    """The writer works, gets ENOSPC though it frees what it can, and works again; nothing stays mounted."""
    run = tmp_path / "run"
    run.mkdir()
    process = start(how, run, who=who)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    found = json.loads(out)
    assert found["unavailable"] is None
    assert found["before"] is True
    assert found["during"] == "28"
    assert found["free"] == 0
    assert found["witness"]["bit"] is True, found
    assert found["receipt"]["mechanism"].startswith("tmpfs")
    assert found["receipt"]["data"]["folders"] == [str(run / "state")]
    assert found["after"] is True
    assert found["late"] is False, "it is not the witness of what is over"
    assert found["mounted"] is False
    assert str(run) not in Path("/proc/self/mountinfo").read_text()


def test_a_disk_that_is_there_already_is_used_again(how: tuple[str, ...], tmp_path: Path) -> None:
    """Prepared again while the writer runs, it is not hidden by a second one; another size is refused."""
    run = tmp_path / "run"
    run.mkdir()
    process = start(how, run, who="we", again=True)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    found = json.loads(out)
    assert found["other"] == "has a small file system already, of 64 MB"
    assert (found["during"], found["free"], found["after"]) == ("28", 0, True)
    assert found["witness"]["bit"] is True, found
    assert found["mounted"] is False


def test_the_disk_of_the_host_is_never_filled(how: tuple[str, ...], tmp_path: Path) -> None:
    """Where the small file system is there no longer, the folder's name leads to another: refused."""
    run = tmp_path / "run"
    run.mkdir()
    process = start(how, run, without=True)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    found = json.loads(out)
    assert found["refused"] == "its small file system is there no longer"
    assert found["taken"] < 2**20


def test_when_the_injector_is_killed_the_writer_has_room_again(how: tuple[str, ...], tmp_path: Path) -> None:
    """SIGKILL while the disk is full: the kernel frees the ballast, the guardian sees to it and unmounts."""
    run = tmp_path / "run"
    run.mkdir()
    process = start(how, run, kill=True)
    assert process.stdout is not None
    found = json.loads(process.stdout.readline())
    pid, ticks = found["writer"]
    try:
        assert found["during"] == "28"
        namespace = namespaces.identity(namespaces.FILES, pid)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert poll(lambda: (run / "said").read_text().endswith("written"))
        assert poll(lambda: str(run / "state") not in Path(f"/proc/{pid}/mountinfo").read_text())
        assert poll(lambda: verified(run) == [True, True])
    finally:
        if procs.is_alive(pid, ticks):
            os.kill(pid, signal.SIGKILL)
    assert poll(lambda: namespaces.member(namespaces.FILES, namespace) is None)


def verified(run: Path) -> list[bool]:
    """Read what the guardian wrote of each undo in the end: it acts again when the dead is wholly gone."""
    file = run / "undone.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    outcomes = [json.loads(line) for line in lines]
    return list({one["id"]: one["verified"] for one in outcomes if "verified" in one}.values())


def poll(test: Any) -> bool:
    """Look until it holds."""
    deadline = time.monotonic() + 20
    while not test():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


MANIFEST = Manifest(
    schema=1,
    name="x",
    processes={"v": Process(command=("x",), state=("/x",))},
    components={"v": Component(process="v")},
)


@pytest.mark.parametrize(
    ("kind", "parameters", "word"),
    [
        ("disk_full", {"size_mb": 0}, "size_mb"),
        ("disk_full", {"mechanism": "magic"}, "magic"),
        ("disk_full", {"size": 1}, "size"),
        ("disk_full", {"mechanism": "tmpfs"}, 'isolation = ["files"]'),
        ("disk_error", {"error": "EWHATEVER"}, "EWHATEVER"),
        ("disk_error", {"first": 5, "last": 4}, "from 5 to 4"),
        ("disk_error", {"call": "nanosleep"}, "nanosleep"),
        ("fsync_lie", {"error": "EIO"}, "error"),
        ("disk_slow", {"mechanism": "magic"}, "magic"),
    ],
)
def test_nonsense_is_refused_before_the_trial(kind: str, parameters: dict[str, Any], word: str) -> None:
    """Parameters that mean nothing are an answer of `unavailable`, not a surprise at the injection."""
    step = FaultStep(kind=kind, components=("v",), parameters=parameters)
    assert word in str(registry.make(kind).unavailable(MANIFEST, step))


def test_ballast_knows_only_its_own_file_system(tmp_path: Path) -> None:
    """Where its folder's name leads by now does not matter: after an unmount, to the disk of the host."""
    ballast = mounts.Ballast(str(tmp_path))
    ballast.folder = "/nowhere"
    room = mounts.free_bytes(ballast.descriptor)
    assert ballast.fill(leave=room - 2**20) <= 2**20
    assert os.fstat(ballast.descriptor).st_size > 0
    ballast.close()


def test_a_target_without_any_state_folder_is_told_so() -> None:
    """Neither the manifest nor the step says where the disk is."""
    bare = Manifest(
        schema=1,
        name="x",
        processes={"v": Process(command=("x",))},
        components={"v": Component(process="v")},
    )
    for kind in ("disk_full", "disk_error", "fsync_fail", "fsync_lie", "disk_slow"):
        reason = registry.make(kind).unavailable(bare, FaultStep(kind=kind, components=("v",)))
        assert "no folder" in str(reason)
