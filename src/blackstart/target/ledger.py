"""Writing ledger files (docs/reference/ledger-format.md): one JSON line an event.

With the digest of the whole.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from blackstart.model.record import LedgerFile
from blackstart.target import canonical

if TYPE_CHECKING:
    from collections.abc import AsyncIterable
    from pathlib import Path

_FLUSH = 1 << 16


class Row(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event of either side; see the format's table of columns."""

    key: str
    seq: int | None = None
    content: str | None = None
    mono_ns: int | None = None
    outcome: Literal["ok", "info", "fail"] = "ok"
    notional: int | None = None
    late: bool = False


class Writer:
    """Writes one ledger file.

    `close` returns its record. `error` in the record says why it may be incomplete.
    """

    def __init__(self, stream: str, side: Literal["acknowledged", "recovered"], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.stream, self.side = stream, side
        self.path = folder / f"{stream}.{side}.jsonl"
        self.rows = 0
        self._file = self.path.open("wb")
        self._digest = hashlib.sha256()
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray()

    def add(self, row: Row) -> None:
        """Write one event."""
        self._buffer += self._encoder.encode(row) + b"\n"
        self.rows += 1
        if len(self._buffer) >= _FLUSH:
            self._write()

    def close(self, error: str | None = None) -> LedgerFile:
        """Finish the file and describe it; its path is relative to the trial's folder."""
        self._write()
        self._file.close()
        return LedgerFile(
            stream=self.stream,
            side=self.side,
            path=f"{self.path.parent.name}/{self.path.name}",
            sha256=self._digest.hexdigest(),
            rows=self.rows,
            error=error,
        )

    def _write(self) -> None:
        self._digest.update(self._buffer)
        self._file.write(self._buffer)
        self._buffer.clear()


async def write(
    stream: str, side: Literal["acknowledged", "recovered"], folder: Path, rows: AsyncIterable[Row]
) -> LedgerFile:
    """Write all rows.

    Whatever goes wrong on the way is told in the record's `error`: a short ledger must never look whole.
    """
    writer = Writer(stream, side, folder)
    try:
        async for row in rows:
            writer.add(row)
    except Exception as error:  # noqa: BLE001 - any failure of a stranger's source is evidence, not a crash
        return writer.close(error=f"{type(error).__name__}: {error}")
    return writer.close()


def product(record: dict[str, Any], fields: tuple[str, ...], *, stream: str = "") -> int | None:
    """Return the product of integer fields (quantity · price in ticks).

    None when there are none or one is no integer. Raises TargetError when one is not there at all.
    """
    values = [canonical.field(record, name, stream=stream) for name in fields]
    if not values or any(not isinstance(value, int) for value in values):
        return None
    result = 1
    for value in values:
        assert isinstance(value, int)
        result *= value
    return result
