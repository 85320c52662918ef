from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from paperfirm.config import EngineSettings
from paperfirm.engine import checkpoint, journal, replication
from paperfirm.engine import events as ev
from paperfirm.engine.errors import EngineError
from paperfirm.engine.replication import Tail, next_crc
from paperfirm.engine.sharedmem import SharedMemory
from paperfirm.engine.state import State
from paperfirm.engine.store import Store

if TYPE_CHECKING:
    from pathlib import Path


class Log:
    """Remembers events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **detail: Any) -> int:
        """Take an event."""
        self.events.append((event, detail))
        return 0

    def names(self) -> list[str]:
        """Return the names in order."""
        return [name for name, _ in self.events]


def open_store(folder: Path, log: Log, *, segment_bytes: int = 1 << 20) -> Store:
    """Open and load."""
    settings = EngineSettings(segment_bytes=segment_bytes, checkpoints_kept=2)
    store = Store(folder, settings, clock=(lambda: 1, lambda: 2), emit=log)
    store.load()
    return store


def write(store: Store, count: int) -> None:
    """Journal and apply some fills."""
    for _ in range(count):
        seq = store.state.seq + 1
        event = ev.Executed(seq, f"E{seq}", "1-C1", "O", "ALFA", "buy", 1, 10, late=False)
        record = ev.Record(seq, 1, 2, event)
        store.state.apply(record)
        data = journal.frame(record)
        store.journal.write(data, last=seq, last_crc=journal.HEAD.unpack_from(data)[1])


def test_checkpoint_by_child_then_tail(tmp_path: Path) -> None:
    """A checkpoint written by the forked child plus the journal after it rebuild the state exactly."""
    log = Log()

    async def work() -> bytes:
        store = open_store(tmp_path, log)
        write(store, 50)
        store.checkpoint_in_child()
        write(store, 7)
        while "checkpoint_written" not in log.names():
            assert "checkpoint_failed" not in log.names()
            await asyncio.sleep(0.005)
        store.close()
        return store.state.dump()

    live = asyncio.run(work())
    again = open_store(tmp_path, log)
    assert (again.loaded.checkpoint_seq, again.loaded.replayed) == (50, 7)
    assert again.state.dump() == live
    again.close()


def test_a_damaged_journal_is_set_aside(tmp_path: Path) -> None:
    """Damage in the middle keeps the sound part, says so, keeps the files, and the store works on."""
    log = Log()
    store = open_store(tmp_path, log)
    write(store, 10)
    store.close()
    segment = journal.segments(tmp_path / "journal")[0]
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    again = open_store(tmp_path, log)
    assert 0 < again.state.seq < 10
    assert again.loaded.damage
    assert again.state.seq == again.loaded.replayed
    assert "journal_damaged" in log.names()
    kept = again.state.seq
    again.found_again("exchange")
    write(again, 3)
    again.close()
    third = open_store(tmp_path, log)
    assert (third.state.seq, third.loaded.damage) == (kept + 3, [])
    third.close()


def test_a_reset_replaces_everything(tmp_path: Path) -> None:
    """A peer's image takes the place of what was there, survives a restart.

    And must be of the record it claims.
    """
    log = Log()
    peer = open_store(tmp_path / "peer", log)
    write(peer, 20)
    store = open_store(tmp_path / "own", log)
    write(store, 5)
    with pytest.raises(EngineError):
        store.reset(peer.state.dump(), 19)
    store.reset(peer.state.dump(), 20)
    write(store, 2)
    store.close()
    again = open_store(tmp_path / "own", log)
    assert (again.state.seq, again.loaded.checkpoint_seq) == (22, 20)
    again.close()
    peer.close()


def test_old_segments_go_only_with_their_checkpoints(tmp_path: Path) -> None:
    """Segments are kept from the oldest kept checkpoint on, so that each of them can still be used."""
    log = Log()
    store = open_store(tmp_path, log, segment_bytes=200)
    for _ in range(4):
        write(store, 20)
        store.checkpoint_now()
    store.close()
    assert checkpoint.oldest_seq(tmp_path / "checkpoint") == 60
    assert journal.first_seq(journal.segments(tmp_path / "journal")[0]) <= 61
    newest = max((tmp_path / "checkpoint").glob("*.ckpt"))
    newest.write_bytes(b"spoiled")
    again = open_store(tmp_path, log)
    assert (again.state.seq, again.loaded.checkpoint_seq) == (80, 60)
    assert "checkpoint_rejected" in log.names()
    again.close()


def test_chunks_give_any_stretch(tmp_path: Path) -> None:
    """Every stretch of the journal comes out whole, over segment borders; a missing one is refused."""
    store = open_store(tmp_path, Log(), segment_bytes=150)
    write(store, 30)
    folder = tmp_path / "journal"
    for after in range(30):
        for upto in range(after + 1, 31):
            pieces = list(Tail(folder, after=after).chunks(upto))
            data = b"".join(piece.data for piece in pieces)
            seqs = [journal.decode(raw.payload).seq for raw in journal.scan(data, name="x", last=False)]
            assert seqs == list(range(after + 1, upto + 1))
            assert pieces[0].first == after + 1
    assert next_crc(Tail(folder, after=29)) == store.journal.last_crc
    journal.segments(folder)[0].unlink()
    with pytest.raises(EngineError):
        list(Tail(folder, after=0).chunks(30))
    assert next_crc(Tail(folder, after=0)) is None
    with pytest.raises(EngineError):
        list(Tail(folder, after=29).chunks(31))
    store.close()


@pytest.mark.parametrize("segment_bytes", [150, 1 << 20])
def test_a_reader_of_the_tail_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment_bytes: int
) -> None:
    """What was read is not gone through again: else a standby never catches up behind a long segment."""
    store = open_store(tmp_path, Log(), segment_bytes=segment_bytes)
    write(store, 300)
    tail, looked = Tail(tmp_path / "journal", after=0), 0
    assert [one.last for one in tail.chunks(300)][-1] == tail.position == 300
    width = replication._width

    def counting(data: bytes, offset: int) -> int:
        nonlocal looked
        looked += 1
        return width(data, offset)

    monkeypatch.setattr(replication, "_width", counting)
    for number in range(301, 321):
        write(store, 1)
        (piece,) = tail.chunks(number)
        assert (piece.first, piece.last) == (number, number)
        assert [
            journal.decode(raw.payload).seq for raw in journal.scan(piece.data, name="x", last=False)
        ] == [number]
    assert looked <= 20 * 2
    assert list(tail.chunks(320)) == []
    store.close()


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that cannot be written raises, with the folder and what to do."""
    store = open_store(tmp_path, Log())

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(EngineError, match="make room"):
        write(store, 1)


def test_shared_memory_follows_and_tells_damage(tmp_path: Path) -> None:
    """Rows follow the state, survive growth, and a damaged byte is found within eight looks."""
    state = State()
    memory = SharedMemory(tmp_path, state)
    for number in range(1, 3001):
        name = f"1-C{number:07d}"
        event = ev.OrderEntered(name, "", "client", "ALFA", "buy", "day", 5, 10)
        state.apply(ev.Record(number, 1, 2, event))
        memory.touch({"ALFA"}, {name})
    assert [one for _ in range(16) for one in memory.check_orders()] == []
    path = tmp_path / "orders"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4)
        file.write(b"\x07")
    (damage,) = [one for _ in range(8) for one in memory.check_orders()]
    assert damage.where == "checksum"
    memory.load_orders()
    assert [one for _ in range(16) for one in memory.check_orders()] == []
    healed = [damage.key]
    state.apply(ev.Record(3001, 1, 2, ev.OrderClosed(healed[0], "rejected", "x")))
    memory.touch(set(), {healed[0]})
    assert healed[0].encode() not in path.read_bytes()
    memory.close()


def test_damage_is_not_healed_unseen_by_the_next_write(tmp_path: Path) -> None:
    """A row that is written over, or freed, before anybody looked is told all the same, and once."""
    state = State()
    memory = SharedMemory(tmp_path, state)
    for number, name in enumerate(("1-C1", "1-C2"), 1):
        event = ev.OrderEntered(name, "", "client", "ALFA", "buy", "day", 5, 10)
        state.apply(ev.Record(number, 1, 2, event))
        memory.touch(set(), {name})
    path = tmp_path / "orders"
    content = path.read_bytes()
    for name in (b"1-C1", b"1-C2"):
        with path.open("r+b") as file:
            file.seek(content.index(name) + 63)
            file.write(b"\x01")
    state.apply(ev.Record(3, 1, 2, ev.OrderClosed("1-C2", "rejected", "x")))
    memory.touch(set(), {"1-C1", "1-C2"})
    looks = [one for _ in range(16) for one in memory.check_orders()]
    assert sorted(looks) == [("1-C1", "checksum"), ("1-C2", "checksum")]
    memory.close()


def test_no_checkpoint_ahead_of_the_journal(tmp_path: Path) -> None:
    """A checkpoint that knows more than the journal is refused: the next record would leave a hole."""
    store = open_store(tmp_path, Log())
    write(store, 3)
    store.state.apply(ev.Record(4, 1, 2, ev.ClientRefused("late", "stopping")))
    with pytest.raises(EngineError, match="flush first"):
        store.checkpoint_now()
