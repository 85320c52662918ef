from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paperfirm.engine import checkpoint, journal
from paperfirm.engine import events as ev
from paperfirm.engine.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 5


def record(seq: int) -> ev.Record:
    """Build a small record of varying size."""
    return ev.Record(seq, seq * 10, seq * 100, ev.ClientRefused(f"c{seq}", "x" * (seq % 7)))


def write(folder: Path, first: int, count: int) -> list[int]:
    """Write records and return the offset after each."""
    ends, size = [], 0
    writer = journal.Journal(folder, last_seq=first - 1)
    for seq in range(first, first + count):
        data = journal.frame(record(seq))
        writer.write(data, last=seq, last_crc=0)
        size += len(data)
        ends.append(size)
    writer.close()
    return ends


def seqs(folder: Path) -> list[int]:
    """Read all sequence numbers back."""
    return [one.seq for one, _ in journal.read(folder, after=0)]


def test_torn_at_each_byte(tmp_path: Path) -> None:
    """A last segment cut at any byte yields exactly the records that were whole, and is writable again."""
    ends = write(tmp_path, 1, COUNT)
    segment = journal.segments(tmp_path)[0]
    whole = segment.read_bytes()
    for cut in range(len(whole) + 1):
        segment.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends)
        assert seqs(tmp_path) == list(range(1, kept + 1))
        torn = whole[ends[kept - 1] if kept else 0 : cut]
        assert journal.cut_torn_tail(tmp_path)[0] == len(torn.rstrip(b"\0"))
        writer = journal.Journal(tmp_path, last_seq=kept)
        writer.write(journal.frame(record(kept + 1)), last=kept + 1, last_crc=0)
        writer.close()
        assert seqs(tmp_path) == list(range(1, kept + 2))


def test_flipped_anywhere_but_in_the_last_record_is_named(tmp_path: Path) -> None:
    """A flipped byte before the last record is damage that names segment and the offset of its record."""
    ends = write(tmp_path, 1, COUNT)
    segment = journal.segments(tmp_path)[0]
    whole = segment.read_bytes()
    for at in range(ends[-2]):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        segment.write_bytes(damaged)
        with pytest.raises(journal.JournalDamageError) as caught:
            seqs(tmp_path)
        begin = max([0, *(end for end in ends if end <= at)])
        assert (caught.value.segment, caught.value.offset) == (str(segment), begin)


def test_torn_earlier_segment_is_damage(tmp_path: Path) -> None:
    """Only the last segment may end early; a hole between segments is never skipped."""
    write(tmp_path, 1, COUNT)
    (tmp_path / f"{COUNT + 1:016d}.seg").write_bytes(journal.frame(record(COUNT + 1)))
    first = journal.segments(tmp_path)[0]
    first.write_bytes(first.read_bytes()[:-3])
    with pytest.raises(journal.JournalDamageError):
        seqs(tmp_path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8), after=st.integers(0, 80))
def test_segments_read_as_one(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], after: int) -> None:
    """However the records are spread over segments, reading after any number gives the rest in order."""
    folder = tmp_path_factory.mktemp("journal")
    seq = 1
    for size in sizes:
        write(folder / "x", seq, 0)
        data = b"".join(journal.frame(record(one)) for one in range(seq, seq + size))
        (folder / f"{seq:016d}.seg").write_bytes(data)
        seq += size
    assert [one.seq for one, _ in journal.read(folder, after=after)] == list(range(after + 1, seq))


def test_checkpoint_damaged_at_each_byte(tmp_path: Path) -> None:
    """Whatever byte of the newest checkpoint is damaged, the previous one is used and the damage is said."""
    checkpoint.write(tmp_path, b"the older state", seq=7, wall_ns=1)
    newest = checkpoint.write(tmp_path, b"the newer state", seq=9, wall_ns=2)
    whole = newest.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x01
        newest.write_bytes(damaged)
        found, refused = checkpoint.newest_valid(tmp_path)
        assert found is not None
        assert (found.seq, found.payload) == (7, b"the older state")
        assert list(refused) == [newest]
    newest.write_bytes(whole)
    found, refused = checkpoint.newest_valid(tmp_path)
    assert found is not None
    assert (found.seq, refused) == (9, {})


def test_checkpoint_cut_at_each_byte(tmp_path: Path) -> None:
    """A checkpoint cut short at any byte is refused, never half used."""
    path = checkpoint.write(tmp_path, b"state", seq=1, wall_ns=1)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(EngineError):
            checkpoint.read(path)


def test_kept_checkpoints(tmp_path: Path) -> None:
    """Pruning keeps the newest ones and knows after which record the journal is still needed."""
    for seq in (10, 20, 30, 40, 50):
        checkpoint.write(tmp_path, b"s", seq=seq, wall_ns=0)
    assert checkpoint.prune(tmp_path, keep=3) == 2
    assert checkpoint.oldest_seq(tmp_path) == 30


def test_room_made_in_advance_is_no_record(tmp_path: Path) -> None:
    """A killed writer leaves zeros behind its records; a record torn within them is cut like any other."""
    writer = journal.Journal(tmp_path, last_seq=0)
    data = journal.frame(record(1))
    writer.write(data, last=1, last_crc=0)
    segment = journal.segments(tmp_path)[0]
    left = segment.read_bytes()
    assert len(left) > len(data)
    assert seqs(tmp_path) == [1]
    second = journal.frame(record(2))
    for cut in range(len(second)):
        segment.write_bytes(data + second[:cut] + bytes(len(left) - len(data) - cut))
        assert seqs(tmp_path) == [1]
        assert journal.cut_torn_tail(tmp_path)[0] == len(second[:cut].rstrip(b"\0"))
        assert segment.stat().st_size == len(data)
    writer.close()
