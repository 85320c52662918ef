from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperfirm.router.inbound import InboundLog, InboundLogError
from paperfirm.wire import Report


def report(number: int) -> Report:
    """Return a report that differs from every other."""
    return Report(
        "execution",
        "F",
        "1",
        f"1-C{number}",
        "",
        "O",
        f"E{number}",
        "",
        "ALFA",
        "buy",
        9,
        1,
        1,
        1,
        1,
        8,
        "x" * (number % 40),
    )


def filled(folder: Path, count: int, **options: int) -> InboundLog:
    """Return an open log with so many reports, synced here and there."""
    log = InboundLog(folder, **options)
    for number in range(1, count + 1):
        log.append(fix_seq=number, wall_ns=number, resent=False, report=report(number))
        if number % 3 == 0:
            log.sync()
    log.sync()
    return log


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 60),
    since=st.integers(0, 70),
    segment=st.integers(50, 4000),
    recent=st.integers(1, 80),
)
def test_replay_gives_exactly_what_came_after(count: int, since: int, segment: int, recent: int) -> None:
    """A replay is complete, in order and without repeats, however it is cut into segments."""
    with tempfile.TemporaryDirectory() as name:
        log = filled(Path(name), count, segment_bytes=segment, recent=recent)
        expected = list(range(since + 1, count + 1))
        assert [entry.router_seq for entry in log.since(since)] == expected
        log.close()
        again = InboundLog(Path(name), segment_bytes=segment, recent=recent)
        assert again.last_seq == count
        assert [entry.report for entry in again.since(since)] == [report(number) for number in expected]
        assert again.log_id == log.log_id
        again.close()


def test_a_tail_torn_at_any_byte_loses_only_the_last_record(tmp_path: Path) -> None:
    """Cut after any byte, the log opens with all whole records and goes on from there."""
    log = filled(tmp_path / "whole", 4)
    log.close()
    (segment,) = (tmp_path / "whole").glob("*.seg")
    data = segment.read_bytes()
    ends = [0]
    while ends[-1] < len(data):
        ends.append(ends[-1] + 8 + int.from_bytes(data[ends[-1] : ends[-1] + 4], "big"))
    for cut in range(len(data) + 1):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / segment.name).write_bytes(data[:cut])
        torn = InboundLog(folder)
        whole = sum(end <= cut for end in ends[1:])
        assert torn.last_seq == whole
        assert torn.torn_bytes == cut - ends[whole]
        entry = torn.append(fix_seq=9, wall_ns=9, resent=True, report=report(9))
        torn.sync()
        assert [found.router_seq for found in torn.since(0)] == list(range(1, whole + 2))
        assert entry.router_seq == whole + 1
        torn.close()


def test_damage_before_whole_records_is_named(tmp_path: Path) -> None:
    """A flipped bit in the middle is no torn tail: segment and offset are in the error."""
    filled(tmp_path, 6).close()
    (segment,) = tmp_path.glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[12] ^= 4
    segment.write_bytes(data)
    with pytest.raises(InboundLogError, match=r"\.seg is damaged at offset 0"):
        InboundLog(tmp_path)


def test_damage_in_an_older_segment_is_named_when_it_is_read(tmp_path: Path) -> None:
    """A replay over a damaged segment stops with its name instead of leaving records out."""
    filled(tmp_path, 30, segment_bytes=400).close()
    first = min(tmp_path.glob("*.seg"))
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    log = InboundLog(tmp_path, recent=2)
    with pytest.raises(InboundLogError, match=first.name):
        list(log.since(0))
    log.close()
