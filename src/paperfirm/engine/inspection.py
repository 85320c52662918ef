"""Looking at journals and checkpoints from outside: `paperfirm journal`, `paperfirm checkpoint`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

import msgspec

from paperfirm.engine import checkpoint, journal
from paperfirm.engine.errors import EngineError
from paperfirm.engine.state import load

if TYPE_CHECKING:
    from pathlib import Path


def dump_journal(files: list[Path], *, verify: bool, out: TextIO) -> int:
    """Print each record as a line of JSON (or only count them).

    1 if any segment is damaged, a torn tail is not.
    """
    failed = False
    for path in files:
        try:
            count, end = _dump(path, verify=verify, out=out)
        except (EngineError, OSError) as error:
            print(f"{path}: DAMAGED: {error}", file=out)
            failed = True
            continue
        torn = len(path.read_bytes()[end:].rstrip(b"\0"))
        print(
            f"{path}: {count} records, {end} bytes" + (f", torn tail of {torn} bytes" if torn else ""),
            file=out,
        )
    return int(failed)


def _dump(path: Path, *, verify: bool, out: TextIO) -> tuple[int, int]:
    count = end = 0
    for raw in journal.scan(path.read_bytes(), name=str(path), last=True):
        record = journal.decode(raw.payload)
        if record.seq != journal.first_seq(path) + count:
            raise journal.JournalDamageError(str(path), end, f"record {record.seq} out of order")
        if not verify:
            kind = type(record.event).__name__
            fields = msgspec.structs.asdict(record.event)
            line = {"seq": record.seq, "mono_ns": record.mono_ns, "wall_ns": record.wall_ns, "event": kind}
            print(msgspec.json.encode(line | fields).decode(), file=out)
        count, end = count + 1, raw.end
    return count, end


def describe_checkpoints(files: list[Path], *, out: TextIO) -> int:
    """Verify each checkpoint and say what is in it; 1 if any is damaged."""
    failed = False
    for path in files:
        try:
            found = checkpoint.read(path)
            state = load(found.payload)
        except EngineError as error:
            print(f"DAMAGED: {error}", file=out)
            failed = True
            continue
        print(
            f"{path}: valid, record {found.seq}, epoch {state.epoch}, {len(state.orders)} orders, "
            f"{len(state.executions)} executions, {len(found.payload)} bytes",
            file=out,
        )
    return int(failed)
