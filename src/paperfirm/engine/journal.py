"""The journal: segments of `u32 length, u32 CRC-32, payload`, group-synced, torn tails cut.

Other damage named.

Integers are big endian. A segment's file name is the sequence number of its first record, so that the n-th
record of a segment has the sequence number name + n.
"""

from __future__ import annotations

import os
import struct
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from paperfirm.disk import SyncFailedError, force, is_full
from paperfirm.engine.errors import DiskFullError, EngineError, FsyncFailedError
from paperfirm.engine.events import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from paperfirm.engine.mark import Mark

HEAD = struct.Struct(">II")
MAX_RECORD = 64 << 20
ROOM_BYTES = 1 << 20
FIRST_BYTE = b"\x94"  # every payload is a msgpack array of the four fields of Record
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Record)


class JournalDamageError(EngineError):
    """A segment is damaged before its tail; names segment and offset (bytes)."""

    def __init__(self, segment: str, offset: int, what: str) -> None:
        super().__init__(
            f"{segment}: damaged at offset {offset}: {what}. Restore the segment, or remove this engine's "
            "state and let it be rebuilt from its peer or from the exchange"
        )
        self.segment = segment
        self.offset = offset


class Raw(msgspec.Struct, frozen=True, gc=False):
    """A record as it lies in a segment; `end` is the offset after it."""

    payload: bytes
    crc: int
    end: int


def frame(record: Record) -> bytes:
    """Encode a record as it stands in a segment."""
    payload = _encode(record)
    return HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def decode(payload: bytes) -> Record:
    """Decode a record's payload; raises EngineError."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise EngineError(
            f"a journal record does not decode: {error}; was it written by another version?"
        ) from error


def scan(data: bytes, *, name: str, last: bool) -> Iterator[Raw]:
    """Yield the records of a segment's bytes.

    In the `last` segment an unfinished or broken record with nothing sound after it is a torn tail: the
    iteration ends there. Anywhere else it raises JournalDamageError.
    """
    position, size = 0, len(data)
    while position < size:
        raw = _one(data, position)
        if isinstance(raw, str):
            if last and _blank(data, position):
                return
            if last and not _sound_record_after(data, position):
                return
            raise JournalDamageError(name, position, raw)
        yield raw
        position = raw.end


def _blank(data: bytes, position: int) -> bool:
    """Whether only zeros follow: room made in advance, never written to."""
    return not data[position : position + HEAD.size].strip(b"\0") and not data[position:].strip(b"\0")


def _one(data: bytes, position: int) -> Raw | str:
    """Return the record at `position`, or what is wrong with it."""
    if len(data) - position < HEAD.size:
        return "record header cut short"
    length, crc = HEAD.unpack_from(data, position)
    if not 0 < length <= MAX_RECORD:
        return f"impossible record length {length}"
    start = position + HEAD.size
    payload = data[start : start + length]
    if len(payload) < length:
        return f"record of {length} bytes cut short after {len(payload)}"
    if zlib.crc32(payload) != crc:
        return "CRC does not match"
    return Raw(payload, crc, start + length)


def _sound_record_after(data: bytes, position: int) -> bool:
    """Whether a whole record lies anywhere behind the broken one.

    Then it is damage in the middle, no torn tail.
    """
    at = data.find(FIRST_BYTE, position + HEAD.size + 1)
    while at >= 0:
        if isinstance(_one(data, at - HEAD.size), Raw):
            return True
        at = data.find(FIRST_BYTE, at + 1)
    return False


def segments(folder: Path) -> list[Path]:
    """Return the segments, oldest first."""
    return sorted(folder.glob("*.seg"))


def first_seq(segment: Path) -> int:
    """Sequence number of a segment's first record."""
    return int(segment.stem)


def read(folder: Path, *, after: int) -> Iterator[tuple[Record, Raw]]:
    """Yield all records numbered above `after`, in order; raises JournalDamageError and EngineError."""
    found = segments(folder)
    for index, segment in enumerate(found):
        following = found[index + 1] if index + 1 < len(found) else None
        if following is not None and first_seq(following) <= after + 1:
            continue
        yield from _segment(segment, following, after)


def _segment(segment: Path, following: Path | None, after: int) -> Iterator[tuple[Record, Raw]]:
    seq = first_seq(segment)
    for raw in scan(segment.read_bytes(), name=str(segment), last=following is None):
        if seq > after:
            record = decode(raw.payload)
            if record.seq != seq:
                raise JournalDamageError(str(segment), raw.end, f"record {record.seq} where {seq} belongs")
            yield record, raw
        seq += 1
    if following is not None and seq != first_seq(following):
        raise JournalDamageError(
            str(segment), segment.stat().st_size, f"ends before record {first_seq(following) - 1}"
        )


def cut_torn_tail(folder: Path) -> tuple[int, int]:
    """Cut an unfinished record, and room never used, off the last segment.

    Returns the number of bytes cut and the number of the last record. Raises JournalDamageError.
    """
    found = segments(folder)
    if not found:
        return 0, 0
    data = found[-1].read_bytes()
    sound, last = 0, first_seq(found[-1]) - 1
    for raw in scan(data, name=str(found[-1]), last=True):
        sound, last = raw.end, last + 1
    if sound < len(data):
        with found[-1].open("r+b") as file:
            file.truncate(sound)
            os.fsync(file.fileno())
    return len(data[sound:].rstrip(b"\0")), last


class Journal:
    """The writer. `written` is the last record handed to the kernel, `synced` the last one on the disk.

    `fresh`: begin a new segment, because the last one does not end with record `last_seq`. Once a sync has
    failed nothing is written or synced through this object any more: the kernel has forgotten which pages
    are not on the disk, and a second sync would say that all is well.
    """

    def __init__(
        self,
        folder: Path,
        *,
        last_seq: int,
        last_crc: int = 0,
        segment_bytes: int = 16 << 20,
        fresh: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.written = last_seq
        self.synced = last_seq
        self.last_crc = last_crc
        self.mark: Mark | None = None
        """Kept up with `synced`, if there is one."""
        self.failed: FsyncFailedError | None = None
        self._segment_bytes = segment_bytes
        self._size = 0
        self._room = 0
        self._fd = -1
        found = segments(folder)
        if found and not fresh and last_seq >= first_seq(found[-1]) - 1:
            self._open(found[-1])
        else:
            self._roll()

    def _open(self, path: Path) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._size = self._room = os.fstat(fd).st_size

    def _roll(self) -> None:
        """Begin a new segment; the old one and the directory entry are synced first."""
        if self._fd >= 0:
            os.ftruncate(self._fd, self._size)
            self._force(os.fsync)
        self._open(self.folder / f"{self.written + 1:016d}.seg")
        sync_folder(self.folder)

    def write(self, data: bytes, *, last: int, last_crc: int) -> None:
        """Append framed records ending with number `last`; all of them, or none as far as a reader can tell.

        Raises DiskFullError, after which the same records may be written again; EngineError when the disk
        is bad.
        """
        self._refuse_after_failure()
        try:
            if self._size >= self._segment_bytes:
                self._roll()
            if self._size + len(data) > self._room:
                self._make_room(len(data))
            done = 0
            while done < len(data):
                done += os.pwrite(self._fd, data[done:] if done else data, self._size + done)
        except OSError as error:
            if is_full(error):
                raise DiskFullError(self.folder, error) from error
            raise EngineError(f"{self.folder}: journal cannot be written: {error}; mend the disk") from error
        self._size += len(data)
        self.written = last
        self.last_crc = last_crc

    def _make_room(self, wanted: int) -> None:
        """Write zeros ahead: to sync bytes that replace others costs the file system no transaction."""
        room = max(wanted, ROOM_BYTES)
        try:
            self._room = self._size + os.pwrite(self._fd, bytes(room), self._size)
        except OSError as error:
            if not is_full(error):
                raise
            self._room = self._size  # less than that may still fit

    def sync(self) -> None:
        """Make everything written durable (fdatasync); raises FsyncFailedError, for good."""
        self._refuse_after_failure()
        if self.synced != self.written:
            self._force(os.fdatasync)
            self.synced = self.written
            if self.mark is not None:
                self.mark.set(self.synced)

    def _force(self, call: Callable[[int], None]) -> None:
        try:
            force(lambda: call(self._fd), self.folder, self.folder)
        except SyncFailedError as error:
            self.failed = FsyncFailedError(str(error))
            raise self.failed from error

    def _refuse_after_failure(self) -> None:
        if self.failed is not None:
            raise self.failed from self.failed.__cause__

    def prune(self, *, keep_after: int) -> int:
        """Remove segments wholly at or before record `keep_after`; returns how many."""
        found = segments(self.folder)
        old = [one for one, following in pairwise(found) if first_seq(following) <= keep_after + 1]
        for segment in old:
            segment.unlink()
        return len(old)

    def close(self) -> None:
        """Sync and close; idempotent."""
        if self._fd >= 0:
            if self.failed is None:
                self.sync()
                os.ftruncate(self._fd, self._size)
            os.close(self._fd)
            self._fd = -1


def sync_folder(folder: Path) -> None:
    """Make the directory's entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
