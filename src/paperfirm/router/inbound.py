"""The durable log of application messages from the exchange.

Segments of records `u32 length, u32 CRC-32, msgpack`. A torn tail is cut at opening; damage anywhere else is
an error that names segment and offset. The newest entries are kept in memory, because an engine that binds
again asks for those.
"""

from __future__ import annotations

import os
import secrets
from collections import deque
from itertools import islice
from pathlib import Path  # noqa: TC003 - msgspec and callers need it at run time
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from paperfirm.config import write_atomically
from paperfirm.disk import force
from paperfirm.wire import Report  # noqa: TC001 - msgspec reads the annotation

if TYPE_CHECKING:
    from collections.abc import Iterator

SEGMENT_BYTES = 8 << 20
RECENT = 16_384
HEADER = 8


class InboundLogError(Exception):
    """The log is damaged; says which segment, at which offset, and what to do."""


class Logged(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One message: its place in the log, its FIX number, when it came (Unix ns), whether it was a resend."""

    router_seq: int
    fix_seq: int
    wall_ns: int
    resent: bool
    report: Report


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Logged).decode


class InboundLog:
    """Append, sync, replay. `torn_bytes` is what was cut off the tail at opening."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, recent: int = RECENT) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._recent: deque[Logged] = deque(maxlen=recent)
        self._pending: list[bytes] = []
        self.log_id = _identity(folder / "id")
        self.torn_bytes = 0
        self._first_seqs = sorted(int(path.stem) for path in folder.glob("*.seg"))
        self.last_seq = self._first_seqs[-1] - 1 if self._first_seqs else 0
        self._fd = self._open_last() if self._first_seqs else self._new_segment()

    def append(self, *, fix_seq: int, wall_ns: int, resent: bool, report: Report) -> Logged:
        """Add a message; it is durable after the next `sync`."""
        self.last_seq += 1
        entry = Logged(self.last_seq, fix_seq, wall_ns, resent, report)
        self._pending.append(_frame(_encode(entry)))
        self._recent.append(entry)
        return entry

    def sync(self) -> None:
        """Write and flush to disk everything appended."""
        if not self._pending:
            return
        data = b"".join(self._pending)
        _write_all(self._fd, data)
        force(lambda: os.fdatasync(self._fd), self._folder, self._folder.parent)
        self._pending.clear()
        self._size += len(data)
        if self._size >= self._segment_bytes:
            os.close(self._fd)
            self._fd = self._new_segment()

    def since(self, router_seq: int) -> Iterator[Logged]:
        """Give every message after `router_seq`, oldest first. Only what is synced may be asked for."""
        if self._recent and self._recent[0].router_seq <= router_seq + 1:
            yield from islice(self._recent, router_seq + 1 - self._recent[0].router_seq, None)
            return
        starts = [*self._first_seqs[1:], self.last_seq + 2]
        for first, following in zip(self._first_seqs, starts, strict=True):
            if following > router_seq + 1:
                entries = self._read(first)
                yield from (entry for entry in entries if entry.router_seq > router_seq)

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        os.close(self._fd)

    def _path(self, first_seq: int) -> Path:
        return self._folder / f"{first_seq:016d}.seg"

    def _read(self, first_seq: int) -> Iterator[Logged]:
        path = self._path(first_seq)
        data = path.read_bytes()
        offset = 0
        while offset < len(data):
            end = _record_end(data, offset)
            if end is None:
                raise InboundLogError(_damage(path, offset))
            yield _decode(data[offset + HEADER : end])
            offset = end

    def _open_last(self) -> int:
        """Scan the last segment, cut a torn tail, continue behind it."""
        path = self._path(self._first_seqs[-1])
        data = path.read_bytes()
        offset = 0
        while (end := _record_end(data, offset)) is not None:
            entry = _decode(data[offset + HEADER : end])
            self._recent.append(entry)
            self.last_seq = entry.router_seq
            offset = end
        if _continues_after(data, offset):
            raise InboundLogError(_damage(path, offset))
        self.torn_bytes = len(data) - offset
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        if self.torn_bytes:
            os.ftruncate(fd, offset)
            os.fsync(fd)
        self._size = offset
        return fd

    def _new_segment(self) -> int:
        first = self.last_seq + 1
        fd = os.open(self._path(first), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(folder)
        os.close(folder)
        self._size = 0
        if first not in self._first_seqs:
            self._first_seqs.append(first)
        return fd


def _frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + crc32(payload).to_bytes(4, "big") + payload


def _record_end(data: bytes, offset: int) -> int | None:
    """Return where a whole, undamaged record at `offset` ends, else None."""
    if offset + HEADER > len(data):
        return None
    end = offset + HEADER + int.from_bytes(data[offset : offset + 4], "big")
    if end > len(data) or end == offset + HEADER:
        return None
    checksum = int.from_bytes(data[offset + 4 : offset + HEADER], "big")
    return end if crc32(data[offset + HEADER : end]) == checksum else None


def _continues_after(data: bytes, offset: int) -> bool:
    """Say whether a good record follows the bad one at `offset`: then it is damage and no torn tail."""
    if offset + HEADER > len(data):
        return False
    claimed = offset + HEADER + int.from_bytes(data[offset : offset + 4], "big")
    return claimed < len(data) and _record_end(data, claimed) is not None


def _damage(path: Path, offset: int) -> str:
    return f"{path} is damaged at offset {offset}: move the folder away; the engine then reconciles"


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _identity(path: Path) -> str:
    """Return the log's name.

    A new log gets a new one, so that an engine's `since` is never applied to another log.
    """
    if not path.exists():
        write_atomically(path, secrets.token_hex(8).encode())
    return path.read_text(encoding="ascii").strip()
