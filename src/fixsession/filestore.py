"""The durable store: an append-only log of checksummed records."""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from array import array
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from fixsession.errors import FixError
from fixsession.store import Stored, check_count

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = struct.Struct("<II")  # length and CRC-32 of the rest
# Kind, number, Unix time in ns, bytes of the file that had reached the disk; then an outgoing message.
_BODY = struct.Struct("<cQQQ")
_OUT, _NEXT_OUT, _NEXT_IN, _UNSENT, _CREATED, _CUT = b"o", b"n", b"i", b"u", b"c", b"x"
_KINDS = frozenset((_OUT, _NEXT_OUT, _NEXT_IN, _UNSENT, _CREATED, _CUT))
_LARGEST = 1 << 21
_SMALLEST = _BODY.size


class Fsync(StrEnum):
    """When records are forced to the disk; till then they survive the process, not the machine."""

    ALWAYS = "always"  # before every call returns
    BATCH = "batch"  # when the owner calls `sync`, which it does before it lets messages out
    NEVER = "never"  # `sync` does nothing


class FileStore:
    """A `SessionStore` in one file, owned by one process at a time.

    What was not yet forced to the disk may be torn by a power loss: it is cut off when the file is opened.
    Damage to what had reached the disk (each record says how far that was) raises `FixError` with the place:
    numbers must not be guessed. With `never`, damage before an intact record counts as such.
    """

    def __init__(self, path: Path | str, *, fsync: Fsync | str = Fsync.BATCH) -> None:
        self._path = Path(path)
        self._fsync = Fsync(fsync)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _locked(self._fd, self._path):
            os.close(self._fd)
            raise FixError(f"{path}: in use by another process; stop it or give another file")
        self._clear()
        self._end = 0
        self._durable = -1  # how much of the file is known to be on the disk
        try:
            self._replay()
        except FixError:
            os.close(self._fd)
            raise
        self.sync()  # what an earlier process left unsynced is now relied upon
        if self._fsync is not Fsync.NEVER:
            self._sync_directory()

    def _clear(self) -> None:
        self._next_in = self._next_out = 1
        self._unsent_from = self._created_wall_ns = 0
        self._places = array("Q", [0])  # by number: place of the record + 1; 0 where there is none

    # ---- reading at the start

    def _replay(self) -> None:
        data = self._path.read_bytes()
        at = 0
        while body := _record(data, at):
            kind, value, wall_ns, _ = _BODY.unpack_from(body)
            self._apply(kind, value, wall_ns, at)
            at += _HEAD.size + len(body)
        if at < len(data) and _was_durable(data, at):
            raise FixError(
                f"{self._path}: damaged at byte {at}; restore it, or delete it and reset the session"
            )
        if at < len(data):
            os.ftruncate(self._fd, at)
        self._end = at

    def _apply(self, kind: bytes, value: int, wall_ns: int, at: int) -> None:
        if kind == _OUT:
            self._index(value, at)
            self._next_out = value + 1
        elif kind == _NEXT_OUT:
            self._next_out = value
        elif kind == _NEXT_IN:
            self._next_in = value
        elif kind == _UNSENT:
            self._unsent_from = value
        elif kind == _CREATED:
            self._created_wall_ns = wall_ns
        else:
            self._forget_from(value)

    def _index(self, seq_num: int, at: int) -> None:
        places = self._places
        if seq_num == len(places):
            places.append(at + 1)
            return
        if seq_num > len(places):
            places.extend([0] * (seq_num + 1 - len(places)))
        places[seq_num] = at + 1

    def _forget_from(self, seq_num: int) -> None:
        del self._places[max(1, seq_num) :]
        self._next_out = seq_num
        self._unsent_from = self._unsent_from if self._unsent_from < seq_num else 0

    # ---- writing

    def _append(self, kind: bytes, value: int, wall_ns: int = 0, raw: bytes = b"") -> int:
        at = self._end
        durable = at if self._fsync is Fsync.NEVER else self._durable
        record = _packed(kind, value, wall_ns, durable, raw)
        written = 0
        try:
            while written < len(record):  # a disk that fills up takes a part first, and then says why
                written += os.pwrite(self._fd, record[written:], at + written)
        except OSError as error:  # the next record is written over it
            done = f"{written} of {len(record)} bytes"
            raise FixError(
                f"{self._path}: cannot write ({error.strerror}, {done}); make room or mend the disk"
            ) from error
        self._end = at + written
        if self._fsync is Fsync.ALWAYS:
            self.sync()
        return at

    @property
    def next_in(self) -> int:
        """Number of the first incoming message that is not committed."""
        return self._next_in

    @property
    def next_out(self) -> int:
        """Number of the next outgoing message."""
        return self._next_out

    @next_out.setter
    def next_out(self, value: int) -> None:
        self._append(_NEXT_OUT, value)
        self._next_out = value

    @property
    def unsent_from(self) -> int:
        """First message numbered while nobody was logged on; 0: none."""
        return self._unsent_from

    @unsent_from.setter
    def unsent_from(self, value: int) -> None:
        self._append(_UNSENT, value)
        self._unsent_from = value

    @property
    def created_wall_ns(self) -> int:
        """When numbering began at 1; 0: never used."""
        return self._created_wall_ns

    def save_in(self, next_in: int, wall_ns: int) -> None:
        """Commit everything below `next_in`."""
        self._append(_NEXT_IN, next_in, wall_ns)
        self._next_in = next_in

    def save_out(self, seq_num: int, raw: bytes, wall_ns: int) -> None:
        """Keep an outgoing message; one record holds it and its number."""
        at = self._append(_OUT, seq_num, wall_ns, raw)
        self._index(seq_num, at)
        self._next_out = seq_num + 1

    def load_out(self, begin: int, end: int) -> Iterator[Stored]:
        """Read the kept messages from `begin` to `end`; raises `FixError` where one was damaged since."""
        for seq_num in range(max(1, begin), min(end, self._next_out - 1, len(self._places) - 1) + 1):
            place = self._places[seq_num]
            if place:
                yield self._load(seq_num, place - 1)

    def _load(self, seq_num: int, at: int) -> Stored:
        length, crc = _HEAD.unpack(os.pread(self._fd, _HEAD.size, at))
        body = os.pread(self._fd, length, at + _HEAD.size)
        if zlib.crc32(body) != crc:
            raise FixError(f"{self._path}: message {seq_num} is damaged at byte {at}; restore the file")
        return Stored(seq_num, body[_BODY.size :], _BODY.unpack_from(body)[2])

    def reset(self, wall_ns: int) -> None:
        """Forget everything and start the file anew; safe at any moment: an empty file is a fresh store."""
        os.ftruncate(self._fd, 0)
        self._clear()
        self._end = self._durable = 0
        self._append(_CREATED, 0, wall_ns)
        self._created_wall_ns = wall_ns
        self.sync()

    def sync(self) -> None:
        """Force what was written to the disk, unless the policy is `never`."""
        if self._fsync is not Fsync.NEVER and self._durable != self._end:
            os.fdatasync(self._fd)
            self._durable = self._end

    def _sync_directory(self) -> None:
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Sync and release the file."""
        self.sync()
        os.close(self._fd)

    # ---- compaction

    @property
    def size_bytes(self) -> int:
        """How long the file is: a reason to compact it."""
        return self._end

    def compact(self, *, keep_since_wall_ns: int = 0) -> None:
        """Write the file anew with what is still needed: the numbers, and messages since then (Unix time).

        Resends gap-fill what is dropped. The new file takes the old one's place whole, or not at all.
        """
        fresh = self._path.with_name(self._path.name + ".compact")
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        kept, places, end = self._path, array("Q", [0]), 0
        try:
            places, end = self._rewrite(fd, keep_since_wall_ns)
            if self._fsync is not Fsync.NEVER:
                os.fdatasync(fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fresh.replace(kept)
        except (OSError, FixError) as error:
            os.close(fd)
            fresh.unlink(missing_ok=True)
            raise FixError(f"{kept}: cannot be compacted ({error}); it is as it was") from error
        os.close(self._fd)
        self._fd, self._places, self._end, self._durable = fd, places, end, end
        if self._fsync is not Fsync.NEVER:
            self._sync_directory()

    def _rewrite(self, fd: int, since_ns: int) -> tuple[array[int], int]:
        """Write what is needed; gives the places of the messages, and the end."""
        places, end = array("Q", [0] * len(self._places)), 0
        numbers = ((_NEXT_OUT, self._next_out), (_NEXT_IN, self._next_in), (_UNSENT, self._unsent_from))
        with os.fdopen(os.dup(fd), "wb") as stream:
            end += stream.write(_packed(_CREATED, 0, self._created_wall_ns, end))
            for stored in self.load_out(1, self._next_out - 1):
                if stored.wall_ns >= since_ns or 0 < self._unsent_from <= stored.seq_num:
                    places[stored.seq_num] = end + 1
                    end += stream.write(_packed(_OUT, stored.seq_num, stored.wall_ns, end, stored.raw))
            for kind, value in numbers:
                end += stream.write(_packed(kind, value, 0, end))
        return places, end

    # ---- controls

    def wipe(self) -> None:
        """Lose everything."""
        self.reset(0)

    def roll_back(self, n: int, *, outgoing: bool = True, incoming: bool = False) -> None:
        """Forget the last `n` numbers."""
        check_count(n)
        if outgoing:
            to = max(1, self._next_out - n)
            self._append(_CUT, to)
            self._forget_from(to)
        if incoming:
            self.save_in(max(1, self._next_in - n), 0)
        self.sync()

    def jump_ahead(self, n: int) -> None:
        """Skip `n` outgoing numbers."""
        check_count(n)
        self.next_out = self._next_out + n
        self.sync()


def _packed(kind: bytes, value: int, wall_ns: int, durable: int, raw: bytes = b"") -> bytes:
    body = _BODY.pack(kind, value, wall_ns, durable) + raw
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _locked(fd: int, path: Path) -> bool:
    """Lock the file, if nobody else has it, and it was not replaced by a compaction just now."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(fd).st_ino == path.stat().st_ino
    except OSError:
        return False


def _record(data: bytes, at: int) -> bytes | None:
    """Read the intact record at `at`, without its head; None where there is none."""
    if at + _HEAD.size + _SMALLEST > len(data):
        return None
    length, crc = _HEAD.unpack_from(data, at)
    start = at + _HEAD.size
    if (
        not _SMALLEST <= length <= _LARGEST
        or start + length > len(data)
        or data[start : start + 1] not in _KINDS
    ):
        return None
    body = data[start : start + length]
    return body if zlib.crc32(body) == crc else None


def _was_durable(data: bytes, at: int) -> bool:
    """Whether an intact record behind `at`, wherever it starts, says that `at` had reached the disk."""
    last = len(data) - _HEAD.size - _SMALLEST
    records = (_record(data, start) for start in range(at + 1, last + 1))
    return any(_BODY.unpack_from(body)[3] > at for body in records if body)
