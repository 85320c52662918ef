"""Ledger files as DuckDB relations of one documented shape, and the place where a damaged one is damaged."""

# ruff: noqa: S608 - names in these queries are our own; file names are quoted by `quote`
from __future__ import annotations

import gzip
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import msgspec

from blackstart.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from duckdb import DuckDBPyConnection

FORM = "docs/reference/ledger-format.md"
PARQUET = (".parquet",)
JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".ndjson.zst")
OUTCOMES = ("ok", "info", "fail")
INTEGERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"}
)
INTEGRAL = ("BIGINT", "UBIGINT")
COLUMNS = {
    "key": "VARCHAR",
    "seq": "BIGINT",
    "content": "VARCHAR",
    "mono_ns": "BIGINT",
    "outcome": "VARCHAR",
    "notional": "BIGINT",
    "late": "BOOLEAN",
}


class DamagedLedgerError(LedgerError):
    """A ledger that is there and cannot be read to its end: nobody could look, so the status is UNKNOWN's."""

    exit_status = 2


class LedgerRow(msgspec.Struct):
    """One line of a JSON-lines ledger. Other fields are ignored."""

    key: str | int
    seq: int | None = None
    content: str | int | None = None
    mono_ns: int | None = None
    outcome: Literal["ok", "info", "fail"] | None = None
    notional: int | None = None
    late: bool | None = None


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """A ledger that can be queried: `name` is the relation, `types` what each documented column is in it."""

    path: Path
    name: str
    types: dict[str, str]

    def column(self, name: str, kind: str) -> str:
        """Return SQL for a column as `kind`; NULL when the file has no such column."""
        if name not in self.types:
            return f"NULL::{kind}"
        return name if self.types[name] == kind else f"{name}::{kind}"


def quote(text: str | Path) -> str:
    """Return a text as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def attach(con: DuckDBPyConnection, path: Path, name: str) -> Ledger:
    """Make a relation `name` of a ledger file.

    Raises LedgerError: missing, of another form, or damaged at a named place.
    """
    if not path.is_file():
        raise LedgerError("there is no such file", where=str(path), hint="name a ledger file")
    text = path.name.lower()
    if text.endswith(".gz"):
        _verify_packed(path)
    with damage_located(path):
        if text.endswith(PARQUET):
            con.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet({quote(path)})")
            return _checked(path, name, _types(con, name))
        if text.endswith(JSON_LINES):
            shape = ", ".join(f"{column}: 'JSON'" for column in COLUMNS)
            source = f"read_json({quote(path)}, format = 'newline_delimited', columns = {{{shape}}})"
            values = ", ".join(_strict(column, kind) for column, kind in COLUMNS.items())
            con.execute(f"CREATE TEMP TABLE {name} AS SELECT {values} FROM {source}")
            return Ledger(path=path, name=name, types=dict(COLUMNS))
    endings = " ".join((*PARQUET, *JSON_LINES))
    raise LedgerError(
        "is of no known form", where=str(path), hint=f"use a file that ends in one of: {endings}"
    )


def _verify_packed(path: Path) -> None:
    """Unpack to the end: DuckDB does not compare the checksum at the end of gzip data."""
    done = 0
    try:
        with gzip.open(path) as stream:
            while chunk := stream.read(1 << 20):
                done += len(chunk)
    except (OSError, EOFError, zlib.error) as error:
        place = first_damage(path)  # a bad line, if there is one, is the more telling place
        what = place or f"compressed data is damaged behind byte {done} of the text: {error}"
        raise DamagedLedgerError(what, where=str(path), hint="pack or copy the file again") from error


def _strict(column: str, kind: str) -> str:
    """Return SQL that takes a JSON value as what it is: DuckDB alone would round 1.7 and call 7 true."""
    allowed = {"BIGINT": INTEGRAL, "BOOLEAN": ("BOOLEAN",), "VARCHAR": ("VARCHAR", *INTEGRAL)}[kind]
    wrong = f"json_type({column}) NOT IN {(*allowed, 'NULL')}"
    value = f"({column} ->> '$')::{kind}"
    return f"CASE WHEN {wrong} THEN error('{column} is of a wrong type') ELSE {value} END AS {column}"


def _types(con: DuckDBPyConnection, name: str) -> dict[str, str]:
    rows = con.execute(f"DESCRIBE {name}").fetchall()
    return {row[0]: row[1] for row in rows if row[0] in COLUMNS}


def _checked(path: Path, name: str, types: dict[str, str]) -> Ledger:
    """See that the columns of a Parquet file are of types that mean what the format says."""
    if "key" not in types:
        raise LedgerError("has no column 'key'", where=str(path), hint=f"see {FORM}")
    wanted = {
        "seq": INTEGERS,
        "mono_ns": INTEGERS,
        "notional": INTEGERS,
        "late": {"BOOLEAN"},
        "outcome": {"VARCHAR"},
    }
    for column, allowed in wanted.items():
        if column in types and types[column] not in allowed:
            what = f"column '{column}' is {types[column]}, allowed: {', '.join(sorted(allowed))}"
            raise LedgerError(what, where=str(path), hint=f"see {FORM}")
    return Ledger(path=path, name=name, types=types)


@contextmanager
def damage_located(path: Path) -> Iterator[None]:
    """Turn what DuckDB says about a damaged file into a LedgerError that names file and place."""
    try:
        yield
    except (duckdb.InterruptException, duckdb.OutOfMemoryException):
        raise
    except duckdb.Error as error:
        place = "" if path.name.endswith(PARQUET) else first_damage(path)
        what = place or f"cannot be read as a ledger: {str(error).splitlines()[0]}"
        raise DamagedLedgerError(
            what, where=str(path), hint=f"the file is truncated or damaged; its form: {FORM}"
        ) from error


def first_damage(path: Path) -> str:
    """Name line and byte of the first bad line of a JSON-lines ledger; empty when all are good."""
    decoder = msgspec.json.Decoder(LedgerRow)
    start = 0
    try:
        with _opened(path) as stream:
            for number, line in enumerate(stream, start=1):
                problem = _problem(decoder, line)
                if problem:
                    return f"line {number}, byte {start}: {problem}"
                start += len(line)
    except (OSError, EOFError, zlib.error) as error:
        return f"compressed data breaks off behind byte {start} of the text: {error}"
    return ""


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if path.name.endswith(".gz") else path.open("rb")


def _problem(decoder: msgspec.json.Decoder[Any], line: bytes) -> str:
    if not line.strip():
        return ""
    try:
        decoder.decode(line)
    except msgspec.DecodeError as error:
        return str(error)
    return ""
