"""Reading a history: all records up to the last complete one, and typed short cuts for the checkers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from blackstart.errors import HistoryError
from blackstart.history.chain import FILE_NAME, GENESIS, unseal
from blackstart.model.record import Ended, Header, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

T = TypeVar("T")
_DECODER = msgspec.json.Decoder(Record)


class History:
    """A history in memory. `torn_bytes` counts what was cut off behind the last complete record."""

    def __init__(
        self, folder: Path, records: Iterable[Record], *, torn_bytes: int = 0, digest: str = ""
    ) -> None:
        self.folder = folder
        self.torn_bytes = torn_bytes
        self.digest = digest
        self._records = tuple(records)
        grouped: dict[type, list[Any]] = {}
        for record in self._records:
            grouped.setdefault(type(record), []).append(record)
        self._by_kind = {kind: tuple(found) for kind, found in grouped.items()}

    @classmethod
    def of(cls, records: Iterable[Record], folder: Path | str = ".") -> History:
        """Make a history straight from records: for tests, and for a trial whose disk was full."""
        return cls(Path(folder), records)

    def records(self) -> Sequence[Record]:
        """All records, in the order in which things were seen."""
        return self._records

    def all(self, kind: type[T]) -> tuple[T, ...]:
        """All records of one kind, in order."""
        return cast("tuple[T, ...]", self._by_kind.get(kind, ()))

    def first(self, kind: type[T]) -> T | None:
        """Find the first record of a kind, or None."""
        found = self.all(kind)
        return found[0] if found else None

    def last(self, kind: type[T]) -> T | None:
        """Find the last record of a kind, or None."""
        found = self.all(kind)
        return found[-1] if found else None

    @property
    def header(self) -> Header:
        """What was to be done, to what.

        Raises HistoryError when the history was cut before its first record.
        """
        found = self.first(Header)
        if found is None:
            raise HistoryError(
                "holds no header: it was cut short before its first record", where=str(self.folder)
            )
        return found

    @property
    def ended(self) -> Ended | None:
        """The closing record; None means that the history was cut short."""
        return self.last(Ended)


def load(folder: Path) -> History:
    """Read `folder/history.jsonl`, tolerating a torn tail.

    Raises HistoryError naming line and byte where the chain breaks, or when there is no history at all.
    """
    path = folder / FILE_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise HistoryError(
            f"cannot be read: {error.strerror}", where=str(path), hint="name the folder of one trial"
        ) from error
    return parse(data, folder)


def parse(data: bytes, folder: Path) -> History:
    """Read the history in `data`; see `load`."""
    records: list[Record] = []
    previous, start = GENESIS, 0
    while (end := data.find(b"\n", start) + 1) > 0:
        line = data[start:end]
        opened = unseal(line, previous, len(records))
        if opened is None:
            raise _broken(folder, len(records), start, "the hash chain breaks here")
        records.append(_decode(opened[0], folder, len(records), start))
        previous, start = opened[1], end
    return History(folder, records, torn_bytes=len(data) - start, digest=previous.hex())


def _decode(raw: bytes, folder: Path, number: int, start: int) -> Record:
    try:
        return cast("Record", _DECODER.decode(raw))
    except msgspec.DecodeError as error:
        raise _broken(folder, number, start, f"a record this version cannot read ({error})") from error


def _broken(folder: Path, number: int, start: int, what: str) -> HistoryError:
    where = f"{folder / FILE_NAME}: line {number + 1}, byte {start}"
    return HistoryError(
        what,
        where=where,
        hint=f"the {number} records before this place are whole; what follows was altered or damaged",
    )
