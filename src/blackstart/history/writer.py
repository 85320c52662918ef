"""Writing a history: sealed at once, written in batches, synced on demand.

A full disk is a state, not a crash.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from blackstart.history.chain import FILE_NAME, GENESIS, seal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blackstart.model.record import Record

_RESERVE_BYTES = 256 * 1024
_BATCH_BYTES = 64 * 1024


class HistoryWriter:
    """Appends records to `FOLDER/history.jsonl`.

    `error` is the OSError that ended writing (a full disk, usually); from then on records are counted in
    `dropped` and nothing raises: a trial must still be reverted and closed. A reserve file is kept so that
    the last words fit onto a full disk (`last_words`).
    """

    def __init__(self, folder: Path, *, reserve_bytes: int = _RESERVE_BYTES) -> None:
        self.path = folder / FILE_NAME
        self.error: OSError | None = None
        self.dropped = 0
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray()
        self._pending = 0
        self._number = 0
        self._written = (0, 0, GENESIS)  # bytes, lines and digest that are certainly in the file
        self._digest = GENESIS
        self._reserve = folder / ".reserve"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o644)
        self._try(lambda: self._reserve.write_bytes(b"\0" * reserve_bytes))

    def append(self, record: Record) -> None:
        """Seal and buffer one record.

        It reaches the file when the buffer is large, at `flush` and at `sync`.
        """
        if self.error is not None:
            self.dropped += 1
            return
        line, self._digest = seal(self._digest, self._number, self._encoder.encode(record))
        self._number += 1
        self._pending += 1
        self._buffer += line
        if len(self._buffer) >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the kernel: from here it survives the death of this process."""
        if self._buffer and self.error is None:
            self._try(self._write_all)

    def sync(self) -> None:
        """Flush, and wait until the disk has it."""
        self.flush()
        if self.error is None:
            self._try(lambda: os.fdatasync(self._fd))

    def last_words(self, *records: Record) -> bool:
        """Give the reserve back to the full disk and try `records` once more.

        Say whether they are in the file.
        """
        self._reserve.unlink(missing_ok=True)
        self.error = None
        for record in records:
            self.append(record)
        self.sync()
        return self.error is None

    def close(self) -> None:
        """Sync and close; idempotent."""
        if self._fd < 0:
            return
        self.sync()
        os.close(self._fd)
        self._fd = -1
        self._reserve.unlink(missing_ok=True)

    def _write_all(self) -> None:
        size, lines, _ = self._written
        left = memoryview(bytes(self._buffer))
        while left:
            left = left[os.write(self._fd, left) :]
        self._written = (size + len(self._buffer), lines + self._pending, self._digest)
        self._buffer.clear()
        self._pending = 0

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Forget what did not get in, and cut half a line off: the chain can go on once there is room."""
        self.error = error
        self.dropped += self._pending
        self._buffer.clear()
        self._pending = 0
        size, self._number, self._digest = self._written
        try:
            os.ftruncate(self._fd, size)
        except OSError:
            # The reader copes with a torn tail; but nothing may follow one.
            os.close(self._fd)
            self._fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
