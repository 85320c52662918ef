"""The engine's memory on a disk that is full, fails, or has lost something (R28, R35, R41)."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from paperfirm.alerts import Alerts
from paperfirm.config import EngineSettings
from paperfirm.disk import SUSPECT, RoomWatch, cause_of, free_bytes, is_full
from paperfirm.engine import events as ev
from paperfirm.engine import journal
from paperfirm.engine.commit import Committer
from paperfirm.engine.errors import DiskFullError, FsyncFailedError
from paperfirm.engine.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NO_ROOM = OSError(errno.ENOSPC, "No space left on device")
BAD = OSError(errno.EIO, "Input/output error")


class Log:
    """Remembers events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **detail: Any) -> int:
        """Take an event."""
        self.events.append((event, detail))
        return 0

    def of(self, name: str, code: str = "") -> list[dict[str, Any]]:
        """Return the details of all events of a name (alerts: of a code)."""
        return [detail for event, detail in self.events if event == name and code in {"", detail.get("code")}]


def opened(folder: Path, log: Log, **settings: Any) -> Store:
    """Open and load a store."""
    store = Store(folder, EngineSettings(**settings), clock=(lambda: 1, lambda: 2), emit=log)
    store.load()
    return store


def committer(store: Store, **options: Any) -> tuple[Committer, list[Callable[[], None]]]:
    """Return a committer and the calls it has asked for."""
    due: list[Callable[[], None]] = []
    made = Committer(
        store.state, store.journal, clock=(lambda: 1, lambda: 2), soon=due.append, later=due.append, **options
    )
    return made, due


def fill(number: int) -> ev.Executed:
    """Make a fill."""
    return ev.Executed(number, f"E{number}", "1-C1", "O", "ALFA", "buy", 1, 10, late=False)


def fail(error: OSError) -> Callable[..., Any]:
    """Return a system call that fails."""

    def call(*_: object) -> int:
        raise error

    return call


def test_a_full_disk_holds_back_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records wait in memory in order, nothing is released; with room all of it is durable and released."""
    told: list[DiskFullError | None] = []
    store = opened(tmp_path, Log())
    commit, _ = committer(store, on_full=told.append)
    released: list[int] = []
    commit.submit(fill(1), lambda: released.append(1))
    commit.flush()
    real, room = os.pwrite, [5]

    def full(fd: int, data: bytes, at: int) -> int:
        if not room:
            raise NO_ROOM
        return real(fd, data[: room.pop()], at)

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(journal, "ROOM_BYTES", 0)
    store.journal._room = store.journal._size
    commit.submit(fill(2), lambda: released.append(2))
    commit.flush()
    commit.submit(fill(3), lambda: released.append(3))
    commit.flush()
    assert released == [1]
    assert len(told) == 1
    assert commit.full is not None
    assert store.journal.written == 1
    monkeypatch.setattr(os, "pwrite", real)
    commit.flush()
    assert released == [1, 2, 3]
    assert told[1:] == [None]
    assert commit.full is None
    store.close()
    again = opened(tmp_path, Log())
    assert [one.exec_id for one in again.state.executions] == ["E1", "E2", "E3"]
    again.close()


def test_a_failed_sync_is_never_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After fsync's EIO nothing is acknowledged, written or synced any more, though a retry would succeed."""
    store = opened(tmp_path, Log())
    commit, _ = committer(store)
    released: list[int] = []
    monkeypatch.setattr(os, "fdatasync", fail(BAD))
    commit.submit(fill(1), lambda: released.append(1))
    with pytest.raises(FsyncFailedError) as caught:
        commit.flush()
    cause = cause_of(caught.value)
    assert cause is not None
    assert (cause.errno, is_full(cause)) == (errno.EIO, False)
    calls: list[int] = []
    monkeypatch.setattr(os, "fdatasync", calls.append)
    for again in (commit.flush, store.journal.sync):
        with pytest.raises(FsyncFailedError):
            again()
    with pytest.raises(FsyncFailedError):
        store.journal.write(b"x", last=2, last_crc=0)
    store.journal.close()
    assert (released, calls) == ([], [])


def test_after_a_failed_sync_the_journal_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the page cache may have is written to new files and synced before it is believed."""
    store = opened(tmp_path, Log())
    commit, _ = committer(store)
    commit.submit(fill(1))
    commit.flush()
    monkeypatch.setattr(os, "fdatasync", fail(BAD))
    commit.submit(fill(2))
    with pytest.raises(FsyncFailedError):
        commit.flush()
    store.journal.close()
    monkeypatch.undo()
    log = Log()
    again = opened(tmp_path, log)
    assert log.of("journal_rewritten")[0]["seq"] == 2
    assert again.state.seq == 2
    assert not (tmp_path / "journal" / SUSPECT).exists()
    assert len(list((tmp_path / "checkpoint").glob("*.ckpt"))) == 1
    again.close()
    quiet = Log()
    third = opened(tmp_path, quiet)
    assert (third.state.seq, quiet.of("journal_rewritten"), quiet.of("alert")) == (2, [], [])
    third.close()


def test_a_checkpoint_that_cannot_be_written_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alert names the reason, the previous one stays, no half file keeps room; the next one clears."""
    log = Log()

    async def attempt(store: Store, event: str) -> None:
        before = len(log.of(event))
        store.checkpoint_in_child()
        async with asyncio.timeout(20):
            while len(log.of(event)) == before:  # noqa: ASYNC110 - a forked child ends it
                await asyncio.sleep(0.005)

    async def work() -> None:
        store = opened(tmp_path, log, checkpoint_events=1, checkpoint_s=60.0)
        commit, _ = committer(store)
        commit.submit(fill(1))
        commit.flush()
        await attempt(store, "checkpoint_written")
        commit.submit(fill(2))
        commit.flush()
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", fail(NO_ROOM))
            await attempt(store, "checkpoint_failed")
        assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["00000001.ckpt"]
        assert not store.due(last_s=0.0, now_s=1.0)  # not at every look, whatever there is to save
        assert store.due(last_s=0.0, now_s=6.0)
        await attempt(store, "checkpoint_written")
        store.close()

    asyncio.run(work())
    (alert,) = log.of("alert", "checkpoint_failed")
    assert (alert["seq"], alert["reason"]) == (2, "No space left on device")
    assert len(log.of("alert_cleared", "checkpoint_failed")) == 1


def test_an_unfinished_checkpoint_is_named_and_not_used(tmp_path: Path) -> None:
    """What a crash left of a checkpoint is told, removed, and the previous one loaded."""
    store = opened(tmp_path, Log())
    commit, _ = committer(store)
    commit.submit(fill(1))
    commit.flush()
    store.checkpoint_now()
    store.close()
    torn = tmp_path / "checkpoint" / "00000002.4711.tmp"
    torn.write_bytes(b"PFCKPT01 half")
    log = Log()
    again = opened(tmp_path, log)
    assert log.of("checkpoint_incomplete") == [{"file": str(torn), "bytes": 13}]
    assert log.of("checkpoint_loaded")[0]["path"].endswith("00000001.ckpt")
    assert not torn.exists()
    again.close()


def test_rejected_checkpoints_are_alerts_and_the_way_back_goes_on(tmp_path: Path) -> None:
    """Each damaged checkpoint is named with its reason; with none left journal and exchange must do."""
    store = opened(tmp_path, Log())
    commit, _ = committer(store)
    for number in (1, 2, 3):
        commit.submit(fill(number))
        commit.flush()
        store.checkpoint_now()
    store.close()
    files = sorted((tmp_path / "checkpoint").glob("*.ckpt"))
    spoil(files[2])
    log = Log()
    again = opened(tmp_path, log)
    (alert,) = log.of("alert", "checkpoint_rejected")
    assert alert["file"] == str(files[2])
    assert "SHA-256" in alert["reason"]
    assert log.of("checkpoint_loaded")[0]["path"] == str(files[1])
    assert (again.state.seq, again.loaded.damage) == (3, [])
    again.close()
    spoil(files[0])
    spoil(files[1])
    log = Log()
    third = opened(tmp_path, log)
    assert len(log.of("alert", "checkpoint_rejected")) == 3
    assert log.of("alert", "no_checkpoint")[0]["rejected"] == 3
    assert third.loaded.damage
    third.checkpoint_now()
    assert len(log.of("alert_cleared", "checkpoint_rejected")) == 3
    third.close()


def spoil(path: Path) -> None:
    """Flip a bit in the payload."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x04
    path.write_bytes(data)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_truncated_journal_names_what_is_missing(tmp_path: Path, *, checkpointed: bool) -> None:
    """Cut in mid-record: replay stops there, the lost records are named until they are found elsewhere."""
    store = opened(tmp_path, Log())
    commit, _ = committer(store)
    for number in range(1, 11):
        commit.submit(fill(number))
        commit.flush()
        if checkpointed and number == 8:
            store.checkpoint_now()
    store.journal.close()
    (segment,) = journal.segments(tmp_path / "journal")
    raws = list(journal.scan(segment.read_bytes(), name="x", last=True))
    os.truncate(segment, raws[5].end + 5)  # within the seventh record
    kept = 8 if checkpointed else 6
    log = Log()
    again = opened(tmp_path, log)
    assert again.state.seq == kept
    (alert,) = log.of("alert", "journal_truncated")
    assert (alert["from"], alert["to"], alert["count"]) == (kept + 1, 10, 10 - kept)
    assert again.loaded.damage  # everything is taken up from exchange and database
    again.journal.close()
    log = Log()
    third = opened(tmp_path, log)  # a crash before it was found again: it is still missing
    assert log.of("alert", "journal_truncated") == [alert]
    third.found_again("exchange")
    assert log.of("events_recovered") == [{"source": "exchange", "from": kept + 1, "to": 10}]
    assert log.of("alert_cleared", "journal_truncated")
    commit, _ = committer(third)
    commit.submit(fill(20))
    commit.flush()
    third.close()
    log = Log()
    fourth = opened(tmp_path, log)
    assert (fourth.state.seq, log.of("alert")) == (kept + 1, [])
    fourth.close()


def test_a_damaged_header_costs_no_journal(tmp_path: Path) -> None:
    """An oldest checkpoint whose number was raised by a flipped bit does not let newer ones lose journal."""
    store = opened(tmp_path, Log(), segment_bytes=64, checkpoints_kept=3)
    commit, _ = committer(store)
    for number in range(1, 31):
        commit.submit(fill(number))
        commit.flush()
        if number in {10, 20}:
            store.checkpoint_now()
    oldest = min((tmp_path / "checkpoint").glob("*.ckpt"))
    data = bytearray(oldest.read_bytes())
    data[10] ^= 0x40
    oldest.write_bytes(data)
    store.checkpoint_now()
    newest = max((tmp_path / "checkpoint").glob("*.ckpt"))
    spoil(newest)
    store.close()
    again = opened(tmp_path, Log(), segment_bytes=64)
    assert (again.loaded.checkpoint_seq, again.state.seq) == (20, 30)
    again.close()


def test_little_room_is_told_before_anything_fails(tmp_path: Path) -> None:
    """Below the limit an operator is called, once; it ends well above the limit, and may begin again."""
    log, free = Log(), [100]
    alerts = Alerts(log)
    watch = RoomWatch(tmp_path / "not-yet", alerts, 50, look=lambda _: free[0])
    for free[0] in (100, 50, 49, 0, 60, 74):
        watch.look()
    assert [one["free_bytes"] for one in log.of("alert", "disk_low")] == [49]
    assert not log.of("alert_cleared")
    for free[0] in (75, 0):
        watch.look()
    assert [one["free_bytes"] for one in log.of("alert_cleared", "disk_low")] == [75]
    assert [one["free_bytes"] for one in log.of("alert", "disk_low")] == [49, 0]


def test_the_room_of_a_folder_is_that_of_its_disk(tmp_path: Path) -> None:
    """What is asked is the file system, also for a folder that is not there yet; no answer is no alert."""
    log = Log()
    assert 0 < free_bytes(tmp_path / "not-yet") <= shutil.disk_usage(tmp_path).total
    RoomWatch(tmp_path / "gone" / "too", Alerts(log), 2**60).look()
    assert not log.events
    RoomWatch(tmp_path, Alerts(log), 2**60).look()
    assert log.of("alert", "disk_low")
