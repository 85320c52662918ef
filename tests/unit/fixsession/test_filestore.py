"""The durable store: what it keeps, what it cuts off, what it refuses."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fixsession import FileStore, FixError, MemoryStore, SessionConfig, SessionStore, StoreControls, Stored
from fixsession.testing.memory import MemoryPeer
from fixsession.testing.player import Player
from fixsession.testing.script import parse_script


def filled(path: Path, fsync: str = "batch") -> FileStore:
    """Make a store with a little of everything."""
    store = FileStore(path, fsync=fsync)
    store.reset(77)
    for number in range(1, 6):
        store.save_out(number, b"message %d" % number, 1000 + number)
    store.next_out = 9
    store.save_in(4, 2000)
    store.unsent_from = 5
    return store


def state(store: SessionStore) -> tuple[object, ...]:
    """List all that a store knows."""
    return (
        store.next_in,
        store.next_out,
        store.unsent_from,
        store.created_wall_ns,
        list(store.load_out(0, 99)),
    )


@pytest.mark.parametrize("fsync", ["always", "batch", "never"])
def test_everything_is_there_after_reopening(tmp_path: Path, fsync: str) -> None:
    """Numbers and messages are the same in the next process."""
    store = filled(tmp_path / "s", fsync)
    before = state(store)
    store.close()
    again = FileStore(tmp_path / "s", fsync=fsync)
    assert state(again) == before
    assert before[:4] == (4, 9, 5, 77)
    assert list(again.load_out(2, 3)) == [Stored(2, b"message 2", 1002), Stored(3, b"message 3", 1003)]
    again.close()


def test_memory_and_file_behave_alike(tmp_path: Path) -> None:
    """The same calls leave both stores in the same state, controls included."""
    states = []
    for store in (filled(tmp_path / "s"), MemoryStore()):
        if isinstance(store, MemoryStore):
            store.reset(77)
            for number in range(1, 6):
                store.save_out(number, b"message %d" % number, 1000 + number)
            store.next_out, store.unsent_from = 9, 5
            store.save_in(4, 2000)
        assert isinstance(store, StoreControls)
        seen = [state(store)]
        store.roll_back(5)
        seen.append(state(store))
        store.jump_ahead(4000)
        store.save_out(store.next_out, b"after", 1)
        seen.append(state(store)[:4])
        seen.append(list(store.load_out(4000, 5000)))
        store.roll_back(3, outgoing=False, incoming=True)
        seen.append(state(store)[:4])
        store.wipe()
        seen.append(state(store))
        states.append(seen)
    assert states[0] == states[1]
    assert states[0][1][:3] == (4, 4, 0)
    assert states[0][-1] == (1, 1, 0, 0, [])


def test_every_torn_tail_is_cut_off(tmp_path: Path) -> None:
    """Cut at any byte, the file opens with the complete records before it, and can be written on."""
    path = tmp_path / "s"
    filled(path, "never").close()
    whole = path.read_bytes()
    numbers = []
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        store = FileStore(path, fsync="never")
        numbers.append(len(list(store.load_out(1, 99))))
        store.save_out(50, b"later", 1)
        store.close()
        again = FileStore(path, fsync="never")
        assert list(again.load_out(50, 50)) == [Stored(50, b"later", 1)]
        again.close()
    assert numbers == sorted(numbers)
    assert (numbers[0], numbers[-1]) == (0, 5)


def test_damage_to_what_had_reached_the_disk_is_named(tmp_path: Path) -> None:
    """A wrong byte anywhere before synced records is refused with its place."""
    path = tmp_path / "s"
    store = filled(path, "always")
    first = len(path.read_bytes())
    for number in range(9, 12):
        store.save_out(number, b"more", 1)
    store.close()
    whole = path.read_bytes()
    for at in range(0, first, 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(FixError, match=r"damaged at byte \d+"):
            FileStore(path, fsync="always")


def test_unsynced_tail_with_a_hole_is_cut_off(tmp_path: Path) -> None:
    """After a power loss a later page may be there without an earlier one; what was never synced is cut."""
    path = tmp_path / "s"
    store = FileStore(path, fsync="batch")
    store.reset(1)
    synced = path.stat().st_size
    for number in range(1, 5):
        store.save_out(number, b"x" * 30, 1)
    os.close(store._fd)
    whole = path.read_bytes()
    path.write_bytes(whole[:synced] + bytes(40) + whole[synced + 40 :])
    again = FileStore(path)
    assert state(again) == (1, 1, 0, 1, [])
    again.close()


def test_damage_since_opening_is_noticed_when_a_message_is_loaded(tmp_path: Path) -> None:
    """A message that changed on the disk is not resent."""
    path = tmp_path / "s"
    store = filled(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"message 3", b"massage 3"))
    with pytest.raises(FixError, match="message 3 is damaged"):
        list(store.load_out(1, 5))
    store.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A second opener is told so; after the first closed, it may."""
    store = FileStore(tmp_path / "s")
    with pytest.raises(FixError, match="in use"):
        FileStore(tmp_path / "s")
    store.close()
    FileStore(tmp_path / "s").close()


def test_reset_starts_the_file_anew(tmp_path: Path) -> None:
    """After a reset the file holds nothing of before."""
    store = filled(tmp_path / "s")
    store.reset(99)
    assert state(store) == (1, 1, 0, 99, [])
    assert b"message" not in (tmp_path / "s").read_bytes()
    store.close()


def test_full_disk_is_said_and_counts_nothing(tmp_path: Path) -> None:
    """A record that cannot be written leaves number and file as they were."""
    script = """
import resource, signal, sys
from fixsession import FileStore, FixError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
store = FileStore(sys.argv[1])
store.save_out(1, b"fits", 1)
for size in (400, 400):
    try:
        store.save_out(2, b"x" * size, 1)
    except FixError as error:
        print(error)
print(store.next_out)
"""
    command = [sys.executable, "-c", script, tmp_path / "s"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("room" in line for line in lines[:2])
    assert lines[2] == "2"
    store = FileStore(tmp_path / "s")
    assert list(store.load_out(1, 9)) == [Stored(1, b"fits", 1)]
    store.close()


def test_what_was_saved_survives_a_kill(tmp_path: Path) -> None:
    """A process that is killed with SIGKILL loses nothing that `save_out` returned for, synced or not."""
    script = """
import sys
from fixsession import FileStore
store = FileStore(sys.argv[1], fsync="never")
for number in range(1, 10_000_000):
    store.save_out(number, b"m%d" % number, 1)
    if number % 100 == 0:
        print(number, flush=True)
"""
    command = [sys.executable, "-c", script, tmp_path / "s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(20)][-1]
        process.send_signal(signal.SIGKILL)
        told = max([told, *(int(line) for line in process.stdout.read().split())])
    store = FileStore(tmp_path / "s")
    kept = [stored.seq_num for stored in store.load_out(1, 10_000_000)]
    assert kept == list(range(1, len(kept) + 1))
    assert len(kept) >= told
    store.close()


@pytest.mark.parametrize("n", [0, -1])
def test_controls_want_a_count(tmp_path: Path, n: int) -> None:
    """Moving by nothing or backwards is refused."""
    store = FileStore(tmp_path / "s")
    for control in (store.roll_back, store.jump_ahead):
        with pytest.raises(FixError, match="count of 1 or more"):
            control(n)
    store.close()


def test_roll_back_is_durable(tmp_path: Path) -> None:
    """What was forgotten stays forgotten in the next process."""
    store = filled(tmp_path / "s")
    store.roll_back(6)
    before = state(store)
    store.close()
    assert before[1] == 3
    again = FileStore(tmp_path / "s")
    assert state(again) == before
    again.next_out = 9
    assert [stored.seq_num for stored in again.load_out(1, 9)] == [1, 2]
    again.close()


def test_a_disk_that_fills_up_says_so_and_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a record only a part fits: the error carries the disk's reason; with room the record is whole."""
    store = filled(tmp_path / "s")
    real, room = os.pwrite, [7]

    def full(fd: int, data: bytes, at: int) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[: room.pop()], at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(FixError, match=r"7 of .* bytes.*make room") as caught:
        store.save_in(5, 3000)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:3], at))
    store.save_in(6, 3000)
    monkeypatch.undo()
    store.close()
    again = FileStore(tmp_path / "s")
    assert again.next_in == 6
    again.close()


def test_compaction_keeps_what_is_needed_and_shrinks_the_file(tmp_path: Path) -> None:
    """Numbers, young messages and those nobody was offered yet stay, here and for the next process."""
    store = filled(tmp_path / "s")
    for number in range(5, 500):
        store.save_in(number, 3000)
    before, size = state(store), store.size_bytes
    store.compact(keep_since_wall_ns=1004)
    kept = [Stored(4, b"message 4", 1004), Stored(5, b"message 5", 1005)]
    assert state(store) == (*before[:4], kept)
    assert store.size_bytes == (tmp_path / "s").stat().st_size < size / 10
    store.compact(keep_since_wall_ns=9999)
    assert list(store.load_out(1, 9)) == kept[1:], "message 5 was never offered"
    store.save_out(9, b"message 9", 1009)
    after = state(store)
    store.close()
    again = FileStore(tmp_path / "s")
    assert state(again) == after
    again.close()


def test_compacted_file_belongs_to_its_process_alone(tmp_path: Path) -> None:
    """The lock moves with the file: nobody else can open it after a compaction."""
    store = filled(tmp_path / "s")
    store.compact()
    with pytest.raises(FixError, match="in use"):
        FileStore(tmp_path / "s")
    store.close()
    FileStore(tmp_path / "s").close()


def test_compaction_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the new file cannot be put in place, the old one is as it was, and goes on being written."""
    store = filled(tmp_path / "s")
    before = state(store)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(FixError, match="as it was"):
        store.compact(keep_since_wall_ns=9999)
    monkeypatch.undo()
    assert state(store) == before
    store.save_out(9, b"message 9", 1009)
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]
    again = FileStore(tmp_path / "s")
    assert again.next_out == 10
    again.close()


def test_left_over_of_a_compaction_is_no_store(tmp_path: Path) -> None:
    """A process that dies in a compaction leaves the old file in force; the next compaction starts afresh."""
    store = filled(tmp_path / "s")
    before = state(store)
    store.close()
    (tmp_path / "s.compact").write_bytes(b"half a file")
    again = FileStore(tmp_path / "s")
    assert state(again) == before
    again.compact()
    assert state(again) == before
    again.close()


def test_damage_to_a_compacted_file_is_found(tmp_path: Path) -> None:
    """All of a compacted file had reached the disk, so a bad byte in it is damage and no torn tail."""
    store = filled(tmp_path / "s")
    store.compact()
    store.close()
    data = bytearray((tmp_path / "s").read_bytes())
    data[60] ^= 1
    (tmp_path / "s").write_bytes(data)
    with pytest.raises(FixError, match="damaged at byte"):
        FileStore(tmp_path / "s")


def test_resend_after_a_compaction_fills_what_was_dropped(tmp_path: Path) -> None:
    """A counterparty that asks for old messages gets a gap fill over them, and the younger ones."""
    store = FileStore(tmp_path / "s")
    peer = MemoryPeer(SessionConfig(sender="PAPEREX", target="FIRM"), store=store)
    orders = "send order\nexpect D 34=2\nwait 5\nsend order\nexpect D 34=3"
    Player(peer).play(parse_script("before", f"connect\nsend A 98=0 108=30 141=Y\nexpect A\n{orders}"))
    store.compact(keep_since_wall_ns=peer.wall_ns() - 2_000_000_000)
    ask = "send 2 34=5 7=1 16=3\nexpect 4 34=1 36=3\nexpect D 34=3 43=Y"
    Player(peer).play(parse_script("after", f"connect\nsend A 34=4 98=0 108=30\nexpect A\n{ask}"))
    store.close()
