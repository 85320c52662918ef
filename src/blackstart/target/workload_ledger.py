"""The workload's own ledger: what it sent and what it heard, one JSON line each.

Written before and after every write.

An attempt stands in the file before it is sent; so after a crash of anybody an attempt without outcome is
`info` (sent, answer never seen), and nothing that was acknowledged is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from blackstart.errors import LedgerError
from blackstart.target import canonical, ledger
from blackstart.target.ledger import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from blackstart.model.manifest import Stream


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line: an attempt (`n`, `record`), its outcome (`n`, `outcome`, `data` from the glue).

    Or a new connection (`connected`).
    """

    mono_ns: int
    n: int = 0
    record: dict[str, Any] | None = None
    outcome: Literal["ok", "info", "fail"] | None = None
    data: dict[str, Any] | None = None
    error: str | None = None
    connected: int | None = None


class Write(msgspec.Struct, kw_only=True):
    """One write with what is known of it. `record` also holds what the glue returned on acknowledgement."""

    n: int
    record: dict[str, Any]
    sent_mono_ns: int
    outcome: Literal["ok", "info", "fail"] = "info"
    mono_ns: int | None = None
    position: int | None = None


class Pairing:
    """Joins attempts with their outcomes as the lines come in.

    One that `joined` later knows nothing of the attempts before: outcomes of those are passed over.
    """

    def __init__(self, *, joined: bool = False) -> None:
        self._joined = joined
        self._decoder = msgspec.json.Decoder(Line)
        self._open: dict[int, Write] = {}
        self._acknowledged = 0

    def take(self, text: bytes) -> Write | None:
        """Take one line; return the write that it completes, if any.

        Raises LedgerError for a line that is none.
        """
        try:
            line = self._decoder.decode(text)
        except msgspec.DecodeError as error:
            raise LedgerError(f"not a line of a workload ledger: {error}") from None
        if line.record is not None:
            self._open[line.n] = Write(n=line.n, record=line.record, sent_mono_ns=line.mono_ns)
        elif line.outcome is not None:
            return self._complete(line)
        return None

    def unanswered(self) -> Iterable[Write]:
        """Return the writes whose answer was never seen."""
        return self._open.values()

    def _complete(self, line: Line) -> Write | None:
        write = self._open.pop(line.n, None)
        if write is None and self._joined:
            return None
        if write is None:
            raise LedgerError(f"an outcome of write {line.n}, which was never attempted")
        write.outcome, write.mono_ns = line.outcome or "info", line.mono_ns
        if line.data:
            write.record = {**write.record, **line.data}
        if line.outcome == "ok":
            self._acknowledged += 1
            write.position = self._acknowledged
        return write


def read(path: Path) -> Iterator[Write]:
    """Yield all writes: answered ones in the order of their answers, then those without.

    Raises LedgerError naming the line.

    A last line without its end was never followed by a write and is left out.
    """
    pairing = Pairing()
    with path.open("rb") as stream:
        for number, text in enumerate(stream, 1):
            if not text.endswith(b"\n"):
                break
            try:
                write = pairing.take(text)
            except LedgerError as error:
                raise LedgerError(error.what, where=f"{path}:{number}") from None
            if write is not None:
                yield write
    yield from pairing.unanswered()


def row(write: Write, stream: Stream, name: str = "") -> Row:
    """Return a write as a row of a stream's ledger; `seq` is the order of acknowledgement.

    Raises TargetError when an acknowledged write lacks a field; one without an answer may lack what the
    glue adds on acknowledgement, and then only its key can be compared.
    """
    whole = write.outcome == "ok" or all(one in write.record for one in (*stream.content, *stream.notional))
    return Row(
        key=canonical.text(canonical.field(write.record, stream.key, stream=name)),
        seq=write.position,
        content=(
            canonical.content(write.record, stream.content, stream=name) if stream.content and whole else None
        ),
        mono_ns=write.mono_ns if write.mono_ns is not None else write.sent_mono_ns,
        outcome=write.outcome,
        notional=ledger.product(write.record, stream.notional, stream=name) if whole else None,
    )
