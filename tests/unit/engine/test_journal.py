"""The undo journal on disks that fill up, and the order in which it is paid."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.engine import journal, verbs
from blackstart.faults.company import Company
from blackstart.host import duty, procs
from blackstart.model.fault import Undo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def entry(number: int, size: int = 0) -> dict[str, Any]:
    """Make an undo of about that size."""
    arguments = {"path": f"{number}{'x' * size}"}
    return {"id": f"undo-{number}", "action": "unlink", "arguments": arguments, "serial": number}


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Let no file of ours grow beyond that: a write across the border is cut short, the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_written_wholly_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """A write that is cut short is no undo: it is told, and what is written later is not glued to it."""
    run, file = str(tmp_path), tmp_path / journal.OWED
    journal.append(run, journal.OWED, [entry(0)])
    whole = file.read_bytes()
    with files_end_at(len(whole) + 40), pytest.raises(OSError, match="File too large"):
        journal.append(run, journal.OWED, [entry(1), entry(2)])
    assert file.read_bytes() == whole
    journal.append(run, journal.OWED, [entry(3)])
    assert [one["id"] for one in journal.owed(run)] == ["undo-0", "undo-3"]


def test_a_torn_line_costs_no_later_one(tmp_path: Path) -> None:
    """Its writer died in the midst of it; whoever goes on writes a line of his own."""
    run, line = str(tmp_path), json.dumps(entry(0)).encode() + b"\n"
    for size in range(1, len(line)):
        (tmp_path / journal.OWED).write_bytes(line + line[:size])
        journal.append(run, journal.OWED, [entry(7)])
        assert [one["id"] for one in journal.read(run, journal.OWED)][-1] == "undo-7"
        assert {one["id"] for one in journal.owed(run)} == {"undo-0", "undo-7"}


def test_who_stops_others_by_turns_ends_before_they_run_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it might stop one of them once more, after that was seen to run."""
    company = Company()
    helper = company.helper(duty, 1, 1)
    company.others += [
        Undo(id=f"pause:{pid}", action="continue", arguments={"pid": pid, "start_ticks": 1}) for pid in (7, 8)
    ]
    begun: list[str] = []

    def begin(action: str, arguments: Any, _run: str) -> Any:
        begun.append(f"{action} {arguments['pid']}")
        return lambda: (True, {})

    monkeypatch.setattr(verbs, "begin", begin)
    try:
        owed = [{"id": one.id, "action": one.action, "arguments": one.arguments} for one in company.undos]
        journal.pay(str(tmp_path), owed, by="test")
    finally:
        helper.end()
    assert begun == [f"kill {helper.ref.pid}", "continue 8", "continue 7"]


def test_a_process_of_an_earlier_start_of_the_machine_is_nobodys_now(tmp_path: Path) -> None:
    """Its number is another's: that one is not ended, and the undo is settled."""
    other = subprocess.Popen(["sleep", "600"])
    found = procs.stat(other.pid)
    assert found is not None
    arguments = {"pid": found.pid, "start_ticks": found.start_ticks}
    owed = {"id": "it", "action": "kill", "arguments": arguments, "boot": "another"}
    try:
        (past,) = journal.pay(str(tmp_path), [owed], by="test")
        assert (past["verified"], past["evidence"]["gone"]) == (True, True)
        assert other.poll() is None
        journal.pay(str(tmp_path), [{**owed, "boot": journal.boot()}], by="test")
        assert other.wait(10) == -signal.SIGKILL
    finally:
        other.kill()
        other.wait()


def test_a_file_is_put_back_after_a_new_start_of_the_machine_too(tmp_path: Path) -> None:
    """Files outlast it."""
    file = tmp_path / "left"
    file.touch()
    owed = {"id": "it", "action": "unlink", "arguments": {"path": str(file)}, "boot": "another"}
    (done,) = journal.pay(str(tmp_path), [owed], by="test")
    assert done["verified"] is True
    assert not file.exists()
