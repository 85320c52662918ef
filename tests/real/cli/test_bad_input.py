"""What goes wrong on the user's or the disk's side, by the command line: told in words, nothing left."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blackstart.engine import journal, locks
from blackstart.testing import examples

if TYPE_CHECKING:
    from collections.abc import Callable

SCENARIO = """\
id = "X"
title = "two faults"
requirement = "R77"
degrades = true
[load]
minimum_per_s = 1
[steady]
hold_s = 0.2
limit_s = 60
[fault]
{first}
[objectives]
rto_ms = 60_000
[observe]
limit_s = 8
after_s = 0.1
quiesce_s = 1
"""
THEN = """\
[[then]]
{second}
trigger = {{ at = "delay", delay_s = {delay_s} }}
"""
DAMAGE = 'kind = "flip_file_bits"\nparameters = { data = "table" }'


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with the small target, and a table of its that can be damaged."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    manifest = Path(examples.SMALL)
    for path in manifest.parent.glob("*.py"):
        shutil.copy(path, tmp_path)
    text = manifest.read_text(encoding="utf-8")
    data = '[data.table]\nfiles = "{here}/table"\n\n[groups]'
    (tmp_path / "small.toml").write_text(text.replace("[groups]", data), encoding="utf-8")
    (tmp_path / "table").write_bytes(bytes(range(256)) * 16)
    return tmp_path


def begin(folder: Path, first: str, *then: tuple[str, float]) -> subprocess.Popen[str]:
    """Start a run of one trial: a fault, and others so many seconds after the one before."""
    text = SCENARIO.format(first=first) + "".join(THEN.format(second=s, delay_s=d) for s, d in then)
    (folder / "x.toml").write_text(text, encoding="utf-8")
    return command(folder, "run", "x.toml", "-t", "small.toml")


def command(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command line in a folder."""
    words = [sys.executable, "-m", "blackstart.cli.main", *arguments]
    return subprocess.Popen(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for its end; returns its status and all that it said."""
    out, errors = process.communicate(timeout=100)
    return process.returncode, out + errors


def poll(test: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Look until `test` holds."""
    deadline = time.monotonic() + limit_s
    while not test():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def histories(folder: Path) -> str:
    """Return all that was recorded so far."""
    return "".join(path.read_text(errors="replace") for path in folder.glob("runs/2*/*/history.jsonl"))


def reasons(folder: Path) -> str:
    """Return the reasons of the verdict, and the verdict."""
    (path,) = folder.glob("runs/2*/results.json")
    (trial,) = json.loads(path.read_text(encoding="utf-8"))["trials"]
    return " ".join([trial["verdict"], *trial["reasons"]])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ('kind = "kill"\ncomponents = ["nobody"]', "nobody"),
        ('kind = "pause"\ncomponents = ["@nobodies"]', "nobodies"),
        ('kind = "partition"\nlinks = ["nowhere"]', "nowhere"),
        ('kind = "fly"\ncomponents = ["server"]', "fly"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_starts(small: Path, fault: str, said: str) -> None:
    """A component, a group, a link or a fault that is not there: status 64, its name, and no run."""
    status, text = end(begin(small, fault))
    assert status == 64, text
    assert said in text
    assert "Traceback" not in text
    assert not list(small.glob("runs/2*"))


@pytest.mark.parametrize(
    "fault",
    ['"pause"', '"kill"', '"cpu_quota"', '"clock_skew"', '"pause"\nparameters = { mechanism = "freezer" }'],
)
def test_a_fault_on_a_component_that_is_down_is_told(small: Path, fault: str) -> None:
    """It ended by the first fault and does not come up again: the second finds nobody, and that is said."""
    server = small / "server.py"
    once = "import os, sys\nif os.path.exists(sys.argv[2] + '/state/lines'): sys.exit('once is enough')\n"
    future, rest = server.read_text(encoding="utf-8").split("from __future__ import annotations\n")
    server.write_text(f"{future}from __future__ import annotations\n{once}{rest}", encoding="utf-8")
    component = '\ncomponents = ["server"]'
    status, text = end(begin(small, f'kind = "kill"{component}', (f"kind = {fault}{component}", 0.5)))
    why = reasons(small)
    if "fault-unavailable" in why:
        pytest.skip(why)
    assert status in {1, 2}, text
    assert "fault-failed: server" in why
    assert "the fault that was to follow" in why
    assert owed(small) == []


@pytest.mark.parametrize("kind", ["pause", "clock_skew", "cpu_quota"])
def test_a_fault_where_the_same_is_in_place_is_refused(small: Path, kind: str) -> None:
    """The end of one would be the end of both: UNKNOWN, saying so, and the first is taken back."""
    fault = f'kind = "{kind}"\ncomponents = ["server"]\nduration_s = 2'
    status, text = end(begin(small, fault, (fault, 0.2)))
    why = reasons(small)
    if "fault-unavailable" in why:
        pytest.skip(why)
    assert status == 2, text
    assert f"fault-overlaps: {kind} of server is still in place" in why
    assert owed(small) == []


def test_data_damaged_twice_are_put_back_whole(small: Path) -> None:
    """Each damage keeps what it found; they are put back in the opposite order."""
    before = (small / "table").read_bytes()
    end(
        begin(
            small,
            DAMAGE,
            (DAMAGE, 0.2),
            ('kind = "truncate_file"\nparameters = { data = "table", bytes = 9 }', 0.2),
        )
    )
    assert histories(small).count('"type":"injected"') == 3, "all of them"
    assert (small / "table").read_bytes() == before
    assert owed(small) == []


def owed(folder: Path) -> list[str]:
    """Return what any trial still owes."""
    return [
        entry["id"]
        for path in folder.glob("runs/2*/*/undo.jsonl")
        for entry in journal.owed(str(path.parent))
    ]


def test_an_undo_that_fails_is_the_loudest_event_and_names_the_command(small: Path) -> None:
    """FAIL, status 1, and a command that an operator can copy: it does what the undo could not."""
    before = (small / "table").read_bytes()
    process = begin(small, DAMAGE, ('kind = "kill"\ncomponents = ["server"]', 0.5))
    poll(lambda: '"injected"' in histories(small))
    (small / "table").rename(small / "aside")
    (small / "table").mkdir()  # no bytes can be written there
    status, text = end(process)
    assert status == 1, text
    (line,) = (line for line in text.splitlines() if "LEFT IN PLACE" in line)
    assert reasons(small).startswith("FAIL left-in-place: restore:")
    (small / "table").rmdir()
    (small / "aside").rename(small / "table")
    assert (small / "table").read_bytes() != before
    subprocess.run(line.split("by hand:")[1], shell=True, check=True, capture_output=True)
    assert (small / "table").read_bytes() == before


def test_what_an_earlier_run_left_in_place_keeps_the_next_from_starting(small: Path) -> None:
    """Killed, and its guardian failed: start and kill switch say so by their status, until it is mended."""
    before = (small / "table").read_bytes()
    process = begin(small, DAMAGE, ('kind = "pause"\ncomponents = ["server"]', 30.0))
    poll(lambda: '"injected"' in histories(small))
    damaged = (small / "table").read_bytes()
    (small / "table").unlink()
    (small / "table").mkdir()
    process.kill()
    end(process)
    (folder,) = (path.parent for path in small.glob("runs/2*/*/undo.jsonl"))
    lock = locks.wait_for(str(folder), locks.GUARDIAN_LOCK, 30.0)
    assert lock is not None
    locks.release(lock)
    for arguments in (("run", "x.toml", "-t", "small.toml"), ("up", "-t", "small.toml"), ("halt",)):
        status, text = end(command(small, *arguments))
        assert status == 2, text
        assert "IN PLACE" in text
        assert "dd if=" in text
    assert len(list(small.glob("runs/2*"))) == 1, "nothing was started"
    (small / "table").rmdir()
    (small / "table").write_bytes(damaged)
    status, text = end(command(small, "halt"))
    assert status == 0, text
    assert (small / "table").read_bytes() == before


def test_no_fault_is_injected_when_its_undo_cannot_be_written(small: Path) -> None:
    """The disk is full at that very moment: UNKNOWN `disk-full`, and not a byte of the target was touched."""
    table = small / "table"
    before, touched = table.read_bytes(), table.stat().st_mtime_ns
    process = begin(small, 'kind = "pause"\ncomponents = ["server"]\nduration_s = 1.5', (DAMAGE, 2.0))
    poll(lambda: '"injected"' in histories(small))
    (undo,) = small.glob("runs/2*/*/undo.jsonl")
    undo.rename(undo.with_suffix(".kept"))
    undo.symlink_to("/dev/full")  # every write there: no space left on device
    status, text = end(process)
    assert status == 2, text
    assert "disk-full" in reasons(small)
    assert histories(small).count('"type":"injected"') == 1
    assert table.read_bytes() == before
    assert table.stat().st_mtime_ns == touched
