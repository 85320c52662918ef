from __future__ import annotations

import asyncio
import hashlib
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import pytest

from blackstart.errors import LedgerError, TargetError
from blackstart.model.manifest import Manifest, Stream
from blackstart.target import canonical, glue, ledger, streams, workload_ledger
from blackstart.target.ledger import Row
from blackstart.target.workload_ledger import Line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from blackstart.model.record import LedgerFile


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (7, 7.0),
        (7, "7"),
        (100, "100"),
        (Decimal("7.00"), 7),
        (Decimal("7.00"), "7"),
        (100.05, Decimal("100.0500")),
        (100.05, "100.05"),
        (-0.0, 0),
        (b"ALFA", "ALFA"),
        (b"1.5", Decimal("1.50")),
        (True, "true"),
        (None, ""),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}),
        (1e-7, Decimal("0.0000001")),
    ],
)
def test_equal_values_have_one_text(left: object, right: object) -> None:
    """Who wrote a value down, and as which type, does not matter."""
    assert canonical.text(left) == canonical.text(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (7, 8),
        ("a", "b"),
        ("1.05", "1.5"),
        ("3.10", "3.1"),
        (b"3.10", b"3.1"),
        ("-0.0", "0"),
        (None, 0),
        (True, 1),
    ],
)
def test_different_values_have_different_texts(left: object, right: object) -> None:
    """No difference is smoothed away."""
    assert canonical.text(left) != canonical.text(right)


def test_content_cannot_be_confused_by_separators() -> None:
    """Two fields never look like two others, whatever stands in them."""
    assert canonical.content({"a": 'x","y', "b": ""}, ["a", "b"]) != canonical.content(
        {"a": "x", "b": "y"}, ["a", "b"]
    )


def test_renamed_fields_are_found() -> None:
    """`rename` says what the target calls a field."""
    assert canonical.content({"id": 1}, ["exec_id"], {"exec_id": "id"}) == '["1"]'


STREAM = Stream(acknowledged="workload", key="id", content=("v",), notional=("q",), ordered="at", glue="read")


@pytest.mark.parametrize("missing", ["id", "v", "at"])
def test_a_held_event_without_a_named_field_makes_its_stream_unknown(tmp_path: Path, missing: str) -> None:
    """Nothing is not compared with nothing: the record names the field and the stream."""

    async def held(_settings: object) -> list[dict[str, object]]:
        whole = {"id": "a", "v": "", "at": 1}
        return [whole, {name: value for name, value in whole.items() if name != missing}]

    record = asyncio.run(_export(held, tmp_path))
    assert record.rows == 1
    assert f"without the field `{missing}`" in (record.error or "")
    assert "streams.s" in (record.error or "")


@pytest.mark.parametrize(("late", "known"), [(True, True), (None, True), ("false", False), (1, False)])
def test_late_is_a_truth_value_or_nothing(tmp_path: Path, late: object, known: bool) -> None:
    """A text "false" is no way to be exempt from the check of order: the stream is UNKNOWN."""

    async def held(_settings: object) -> list[dict[str, object]]:
        return [{"id": "a", "v": "", "at": 1, "late": late}]

    record = asyncio.run(_export(held, tmp_path))
    assert (record.error is None) is known
    assert known or "`late` is neither true nor false" in (record.error or "")


async def _export(held: object, folder: Path) -> LedgerFile:
    glue_file = folder / "held_glue.py"
    glue_file.write_text("read = None\n", encoding="utf-8")
    manifest = Manifest(schema=1, name="t", glue=glue_file.name, folder=str(folder), streams={"s": STREAM})
    target = SimpleNamespace(manifest=manifest, name="t", settings=dict)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glue, "load", lambda _file: SimpleNamespace(read=held, __file__=str(glue_file)))
        return await streams.export_recovered(target, "s", folder)  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["id", "v", "q"])
def test_an_acknowledged_write_without_a_named_field_is_refused(missing: str) -> None:
    """What was acknowledged must have everything that it is compared by."""
    record = {name: value for name, value in {"id": "a", "v": "x", "q": 2}.items() if name != missing}
    write = workload_ledger.Write(n=1, record=record, sent_mono_ns=1, outcome="ok")
    with pytest.raises(TargetError, match=f"without the field `{missing}`") as caught:
        workload_ledger.row(write, STREAM, "s")
    assert caught.value.where == "streams.s"


def test_a_ledger_file_is_described_truly(tmp_path: Path) -> None:
    """Rows, digest and path of the record are those of the file."""

    async def rows() -> AsyncIterator[Row]:
        yield Row(key="a", seq=1)
        yield Row(key="b", outcome="info")

    record = asyncio.run(ledger.write("s", "acknowledged", tmp_path / "ledger", rows()))
    data = (tmp_path / record.path).read_bytes()
    assert record.path == "ledger/s.acknowledged.jsonl"
    assert (record.rows, record.error) == (2, None)
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    assert data == b'{"key":"a","seq":1}\n{"key":"b","outcome":"info"}\n'


def test_a_source_that_breaks_leaves_its_reason(tmp_path: Path) -> None:
    """A ledger that is too short must not look whole."""

    async def rows() -> AsyncIterator[Row]:
        yield Row(key="a")
        raise ConnectionError("gone")

    record = asyncio.run(ledger.write("s", "recovered", tmp_path, rows()))
    assert record.rows == 1
    assert record.error == "ConnectionError: gone"


def lines(*values: Line) -> bytes:
    """Return a workload ledger's bytes."""
    return b"".join(msgspec.json.encode(value) + b"\n" for value in values)


WHOLE = lines(
    Line(mono_ns=1, connected=1),
    Line(n=1, mono_ns=2, record={"id": "a", "v": 3}),
    Line(n=2, mono_ns=3, record={"id": "b", "v": 4}),
    Line(n=3, mono_ns=4, record={"id": "c", "v": 5}),
    Line(n=2, mono_ns=5, outcome="ok", data={"order": "X"}),
    Line(n=1, mono_ns=6, outcome="fail", error="no"),
)


def test_outcomes_find_their_attempts(tmp_path: Path) -> None:
    """Answered writes come in the order of their answers, then the others, with what the glue returned."""
    path = tmp_path / "w.jsonl"
    path.write_bytes(WHOLE)
    writes = list(workload_ledger.read(path))
    assert [(write.n, write.outcome) for write in writes] == [(2, "ok"), (1, "fail"), (3, "info")]
    stream = Stream(acknowledged="workload", key="id", content=("order", "v"), notional=("v",))
    row = workload_ledger.row(writes[0], stream)
    assert row == Row(key="b", seq=1, content='["X","4"]', mono_ns=5, notional=4)
    unanswered = workload_ledger.row(writes[2], stream)
    assert (unanswered.seq, unanswered.content, unanswered.notional) == (None, None, None)


def test_a_ledger_cut_anywhere_never_invents_and_never_forgets(tmp_path: Path) -> None:
    """Killed at any byte: what is whole counts, a cut line was never followed by a write."""
    path = tmp_path / "w.jsonl"
    for length in range(len(WHOLE) + 1):
        path.write_bytes(WHOLE[:length])
        whole = WHOLE[:length].count(b"\n")
        outcomes = {write.n: write.outcome for write in workload_ledger.read(path)}
        attempts = max(0, min(whole - 1, 3))
        assert set(outcomes) == set(range(1, attempts + 1))
        assert (outcomes.get(2) == "ok") == (whole >= 5)


@pytest.mark.parametrize(
    ("damage", "place"),
    [(b"not json\n", "w.jsonl:7"), (lines(Line(n=9, mono_ns=1, outcome="ok")), "write 9")],
)
def test_a_damaged_ledger_names_the_place(tmp_path: Path, damage: bytes, place: str) -> None:
    """Damage before the end is an error with file and line."""
    path = tmp_path / "w.jsonl"
    path.write_bytes(WHOLE + damage)
    with pytest.raises(LedgerError) as caught:
        list(workload_ledger.read(path))
    assert place in str(caught.value)
    assert "w.jsonl:7" in str(caught.value)
