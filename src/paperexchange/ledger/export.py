"""A stream of a ledger as a file that analysts can open."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from paperexchange import facts as f
from paperexchange.errors import ExchangeError
from paperexchange.facts import KINDS
from paperexchange.ledger.lines import Reader
from paperexchange.state import execution_of

_KINDS: Final = {"executions": "fill", "orders": "order_accepted", "reports": "report_sent"}


def _entries(path: Path, kind: str, account: str) -> Iterator[dict[str, Any]]:
    """Yield matching entries as plain dictionaries; ExchangeError names the place of a damage."""
    marker = f'"kind":"{kind}"'.encode()
    reader = Reader(path)
    for line in reader:
        if marker not in line.body[:64]:
            continue
        fact = f.decoder.decode(line.body)
        if account and fact.account != account:
            continue
        value = execution_of(fact) if isinstance(fact, f.Fill) else fact
        yield {"seq": line.seq, **msgspec.to_builtins(value)}
    if reader.damage is not None and not reader.damage.torn:
        raise ExchangeError(
            f"damaged at {reader.damage}", where=str(path), hint="nothing after it was exported"
        )


def export(path: Path, out: Path, *, stream: str, account: str = "") -> int:
    """Write the stream to `out` (by its suffix); how many entries."""
    kind = _KINDS.get(stream, stream)
    if kind not in KINDS.values():
        known = " ".join([*_KINDS, *KINDS.values()])
        raise ExchangeError(f"unknown stream {stream!r}", where="--stream", hint=f"one of {known}")
    if not path.is_file():
        raise ExchangeError("no such file", where=str(path), hint="give the path of a ledger.jsonl")
    lines = out.with_suffix(".jsonl")
    if out.suffix not in (".jsonl", ".parquet"):
        raise ExchangeError(
            f"unknown format {out.suffix!r}", where="--out", hint="NAME.parquet or NAME.jsonl"
        )
    count = 0
    encoder = msgspec.json.Encoder()
    with lines.open("wb") as file:
        for entry in _entries(path, kind, account):
            file.write(encoder.encode(entry) + b"\n")
            count += 1
    if out.suffix == ".parquet":
        _to_parquet(lines, out)
    return count


def _to_parquet(lines: Path, out: Path) -> None:
    import duckdb  # noqa: PLC0415 - only this command needs it

    try:
        source = duckdb.read_json(str(lines), format="newline_delimited")
        source.write_parquet(str(out))
    finally:
        lines.unlink()
