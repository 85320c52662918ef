"""Ledgers in every form, and damage that is named by its place."""

from __future__ import annotations

import gzip
import json
import threading
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from blackstart.check.audit import AuditCancelledError, audit
from blackstart.errors import LedgerError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = '{"key": "a", "seq": 1}\n{"key": "b", "seq": 2}\n'


def ledger(folder: Path, name: str, text: str = GOOD) -> Path:
    """Write a ledger file."""
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"key": "a"}\n{"key": "b", "se', "line 2, byte 13"),
        ('{"key": "a"}\n\n{"key": "b", "seq": "x"}\n', "line 3, byte 14"),
        ('{"key": "ä"}\nnonsense\n', "line 2, byte 14"),
        ('{"key": "a", "late": 7}\n', "line 1, byte 0"),
        ('{"key": "a", "seq": 1.7}\n', "line 1, byte 0"),
        ('{"key": {"a": 1}}\n', "line 1, byte 0"),
        ("[1]\n", "line 1, byte 0"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_named_by_line_and_byte(tmp_path: Path, text: str, place: str, packed: bool) -> None:
    """A torn or wrong line of JSON is a LedgerError with its place, compressed or not, on either side."""
    bad = tmp_path / ("bad.jsonl.gz" if packed else "bad.jsonl")
    bad.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    good = ledger(tmp_path, "good.jsonl")
    for pair in ((bad, good), (good, bad)):
        with pytest.raises(LedgerError) as caught:
            audit(*pair)
        assert caught.value.where == str(bad)
        assert place in caught.value.what
        assert caught.value.hint


def test_a_row_without_a_key_is_refused(tmp_path: Path) -> None:
    """An event without identity cannot be compared."""
    bad = ledger(tmp_path, "bad.jsonl", '{"key": "a"}\n{"seq": 2}\n')
    with pytest.raises(LedgerError, match="no key"):
        audit(bad, ledger(tmp_path, "good.jsonl"))
    with pytest.raises(LedgerError, match="no key"):
        audit(ledger(tmp_path, "good.jsonl"), bad)


def test_an_unknown_outcome_is_refused(tmp_path: Path) -> None:
    """Outcomes are ok, info or fail."""
    bad = ledger(tmp_path, "bad.jsonl", '{"key": "a", "outcome": "maybe"}\n')
    with pytest.raises(LedgerError, match="'maybe' of key 'a' is none of ok, info, fail"):
        audit(bad, ledger(tmp_path, "good.jsonl"))


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_parquet_is_named(tmp_path: Path, keep: int) -> None:
    """A Parquet file that breaks off is a LedgerError with its name, not a crash."""
    whole = tmp_path / "whole.parquet"
    duckdb.sql(f"COPY (SELECT i AS key FROM range(1000) t(i)) TO '{whole}' (FORMAT parquet)")
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(LedgerError) as caught:
        audit(whole, cut)
    assert caught.value.where == str(cut)


def test_parquet_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    """Bytes overwritten inside the data are found while reading, and the file is named."""
    path = tmp_path / "x.parquet"
    duckdb.sql(f"COPY (SELECT md5(i::VARCHAR) AS key FROM range(50000) t(i)) TO '{path}' (FORMAT parquet)")
    data = bytearray(path.read_bytes())
    data[1000:200_000] = b"\xff" * 199_000
    path.write_bytes(data)
    good = ledger(tmp_path, "good.jsonl")
    for pair in ((path, good), (good, path)):
        with pytest.raises(LedgerError) as caught:
            audit(*pair)
        assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("'x' AS seq", "'seq' is VARCHAR"),
        ("1 AS late", "'late' is INTEGER"),
        ("1.5 AS notional", "'notional' is DECIMAL"),
    ],
)
def test_wrong_column_types_are_refused(tmp_path: Path, column: str, what: str) -> None:
    """A column of a type that cannot mean what the format says is named with what is allowed."""
    path = tmp_path / "x.parquet"
    duckdb.sql(f"COPY (SELECT 'a' AS key, {column}) TO '{path}' (FORMAT parquet)")
    with pytest.raises(LedgerError, match="column") as caught:
        audit(path, ledger(tmp_path, "good.jsonl"))
    assert what in caught.value.what


def test_missing_files_and_strange_endings_say_what_to_do(tmp_path: Path) -> None:
    """A path that is not there, a file of another kind, a Parquet file without keys."""
    good = ledger(tmp_path, "good.jsonl")
    with pytest.raises(LedgerError, match="no such file"):
        audit(tmp_path / "none.jsonl", good)
    with pytest.raises(LedgerError, match="no known form"):
        audit(ledger(tmp_path, "x.csv"), good)
    keyless = tmp_path / "k.parquet"
    duckdb.sql(f"COPY (SELECT 1 AS seq) TO '{keyless}' (FORMAT parquet)")
    with pytest.raises(LedgerError, match="no column 'key'"):
        audit(keyless, good)


def test_names_with_quotes_are_no_commands(tmp_path: Path) -> None:
    """A file name is a name, whatever is in it."""
    path = ledger(tmp_path, "it's; DROP TABLE.jsonl")
    assert audit(path, path).counts["lost"] == 0


def test_whole_lists_are_written_and_first_keys_returned(tmp_path: Path) -> None:
    """The result names a few keys; the files hold all of them, in order of acknowledgement."""
    rows = "".join(f'{{"key": "k{n:03}", "seq": {n}, "notional": 2}}\n' for n in range(300))
    result = audit(
        ledger(tmp_path, "a.jsonl", rows), ledger(tmp_path, "b.jsonl", ""), out=tmp_path / "out", listed=3
    )
    assert result.lists["lost"] == ("k000", "k001", "k002")
    assert (result.counts["lost"], result.lost_notional) == (300, 600)
    lines = (tmp_path / "out" / "lost.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == [f"k{n:03}" for n in range(300)]
    assert set(result.files) == {"lost"}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["lost.jsonl"]


def test_what_was_not_compared_is_said(tmp_path: Path) -> None:
    """Without content and order on both sides the result says that neither was checked."""
    path = ledger(tmp_path, "a.jsonl", '{"key": 1}\n{"key": 2, "seq": 4, "content": "x"}\n')
    assert audit(path, path).not_checked == ("content of 1 of 2 events", "order of 1 of 2 events")


def test_gap_is_counted_on_the_acknowledged_numbering(tmp_path: Path) -> None:
    """Acknowledged events between the last held one before the failure and the first held one after it."""
    rows = [{"key": n, "seq": 10 * n, "mono_ns": n} for n in range(10)]
    held = [row for row in rows if row["key"] not in (2, 4, 5, 6)]
    paths = [
        ledger(tmp_path, f"{i}.jsonl", "".join(json.dumps(r) + "\n" for r in side))
        for i, side in enumerate((rows, held))
    ]
    assert audit(*paths, t0_mono_ns=5).gap_events == 3
    assert audit(*paths, t0_mono_ns=7).gap_events == 0
    assert audit(*paths).gap_events is None


def test_a_running_audit_can_be_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting the event from outside ends the audit with an error of its own, in the middle of a query."""
    big = tmp_path / "big.parquet"
    duckdb.sql(f"COPY (SELECT i AS key, i AS seq FROM range(3000000) t(i)) TO '{big}' (FORMAT parquet)")
    stop = threading.Event()
    stop.set()
    with pytest.raises(AuditCancelledError):
        audit(big, big, cancelled=stop, threads=1)


def test_an_event_that_is_never_set_disturbs_nothing(tmp_path: Path) -> None:
    """A cancellable audit that nobody cancels gives its answer, and its watcher ends."""
    path = ledger(tmp_path, "a.jsonl")
    before: Any = threading.active_count()
    assert audit(path, path, cancelled=threading.Event()).acknowledged == 2
    assert threading.active_count() == before
