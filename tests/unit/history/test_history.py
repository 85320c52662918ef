"""Writing, reading, tearing and corrupting histories."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from blackstart.errors import HistoryError
from blackstart.history.view import History, load, parse
from blackstart.history.writer import HistoryWriter
from blackstart.model.record import Ended, Problem, ServiceBatch, StageReached

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = (
    StageReached(stage="open", mono_ns=1, detail={"note": "héllo"}),
    ServiceBatch(service="orders", events=[(2, "1-C1", 0), (3, "1-C2", 5)]),
    Problem(code="no-load", text="211/s", mono_ns=4),
    Ended(mono_ns=5, how="complete"),
)


def _write(folder: Path) -> bytes:
    writer = HistoryWriter(folder)
    for record in RECORDS:
        writer.append(record)
    writer.close()
    return writer.path.read_bytes()


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    """A closed history gives back each record, typed, and leaves no reserve file behind."""
    _write(tmp_path)
    history = load(tmp_path)
    assert tuple(history.records()) == RECORDS
    assert history.torn_bytes == 0
    assert history.ended == RECORDS[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history.jsonl"]


def test_cut_at_every_byte_reads_up_to_the_last_complete_record(tmp_path: Path) -> None:
    """A history torn at any byte yields exactly the whole records, and says how much was cut."""
    data = _write(tmp_path)
    for size in range(len(data) + 1):
        history = parse(data[:size], tmp_path)
        whole = data[:size].count(b"\n")
        assert tuple(history.records()) == RECORDS[:whole]
        assert history.torn_bytes == size - (data[:size].rfind(b"\n") + 1)


def test_any_changed_byte_is_found_and_placed(tmp_path: Path) -> None:
    """Each changed byte is an error that names its line; only the very last one makes a torn tail."""
    data = _write(tmp_path)
    for place in range(len(data) - 1):
        damaged = bytearray(data)
        damaged[place] ^= 0x01
        line = data[:place].count(b"\n") + 1
        start = data[:place].rfind(b"\n") + 1
        with pytest.raises(HistoryError, match=f"line {line}, byte {start}:"):
            parse(bytes(damaged), tmp_path)
    assert tuple(parse(data[:-1] + b"\x0b", tmp_path).records()) == RECORDS[:-1]


def test_removed_and_swapped_lines_break_the_chain(tmp_path: Path) -> None:
    """Nobody can take a line out or change the order of two without the reader noticing where."""
    lines = _write(tmp_path).splitlines(keepends=True)
    with pytest.raises(HistoryError, match="line 2"):
        parse(b"".join(lines[:1] + lines[2:]), tmp_path)
    with pytest.raises(HistoryError, match="line 1"):
        parse(b"".join([lines[1], lines[0], *lines[2:]]), tmp_path)


def test_a_missing_history_says_so(tmp_path: Path) -> None:
    """A folder without a history, and a history without a header, are errors that say what is missing."""
    with pytest.raises(HistoryError, match="cannot be read"):
        load(tmp_path)
    with pytest.raises(HistoryError, match="no header"):
        _ = History.of([]).header


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """Two writers never share one history."""
    _write(tmp_path)
    with pytest.raises(FileExistsError):
        HistoryWriter(tmp_path)


def test_a_full_disk_is_a_state_and_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk records count as dropped, the file stays whole, and last words fit in the end."""
    writer = HistoryWriter(tmp_path)
    writer.append(RECORDS[0])
    writer.flush()
    real = os.write

    def full(fd: int, data: memoryview) -> int:
        if len(data) > 10:
            return real(fd, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    writer.append(RECORDS[1])
    writer.flush()
    writer.append(RECORDS[2])
    assert writer.error is not None
    assert writer.dropped == 2
    monkeypatch.undo()
    assert writer.last_words(RECORDS[2], RECORDS[3])
    writer.close()
    assert tuple(load(tmp_path).records()) == (RECORDS[0], RECORDS[2], RECORDS[3])
