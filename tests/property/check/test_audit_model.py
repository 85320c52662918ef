"""The DuckDB audit against a naive model that anybody can check by reading."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import duckdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blackstart.check.audit import AuditResult, audit

Row = dict[str, Any]
RANK = {"ok": 0, "info": 1, "fail": 2}

small = st.one_of(st.none(), st.integers(0, 6))
keys = st.integers(0, 7)
ledger_rows = st.lists(
    st.fixed_dictionaries(
        {"key": keys},
        optional={
            "seq": small,
            "content": st.sampled_from([None, "x", "y"]),
            "mono_ns": st.integers(0, 9),
            "outcome": st.sampled_from(["ok", "ok", "ok", "info", "fail", None]),
            "notional": small,
        },
    ),
    max_size=12,
)
held_rows = st.lists(
    st.fixed_dictionaries(
        {"key": keys},
        optional={"seq": small, "content": st.sampled_from([None, "x", "y"]), "late": st.booleans()},
    ),
    max_size=12,
)


def merged(rows: list[Row]) -> dict[str, Row]:
    """Let every key of the ledger stand once: strongest outcome, lowest seq."""
    found: dict[str, Row] = {}
    for row in sorted(rows, key=_strength):
        found.setdefault(row["key"], row)
    return found


def _strength(row: Row) -> tuple[Any, ...]:
    seq, mono, content = row.get("seq"), row.get("mono_ns"), row.get("content")
    rank = RANK[row.get("outcome") or "ok"]
    return (rank, 99 if seq is None else seq, mono is None, mono or 0, content is None, content or "")


def naive(ledger: list[Row], held: list[Row]) -> dict[str, set[Any]]:
    """State the meaning of every list in the plainest way."""
    known = merged(ledger)
    outcome = {key: row.get("outcome") or "ok" for key, row in known.items()}
    copies: dict[Any, list[Row]] = {}
    for row in held:
        copies.setdefault(row["key"], []).append(row)
    stated = _stated(ledger, ("ok", "info"))
    unclear = {key for key, contents in _stated(ledger, ("ok",)).items() if len(contents) > 1}
    tried = {key for key in copies if outcome.get(key) in ("ok", "info")}
    return {
        "lost": {key for key in known if outcome[key] == "ok" and key not in copies},
        "duplicated": {key for key, rows in copies.items() if len(rows) > 1},
        "phantom": set(copies) - tried,
        "corrupted": {
            key
            for key in tried
            if any(_differs(known[key], row, stated.get(key, set())) for row in copies[key])
        },
        "reordered": _reordered(known, copies, tried) - unclear,
        "indeterminate": {key for key in known if outcome[key] == "info"},
        "late": {key for key in tried if any(row.get("late") for row in copies[key])},
    }


def _stated(ledger: list[Row], outcomes: tuple[str, ...]) -> dict[Any, set[str]]:
    """Say which contents the attempts of these outcomes stated, by key."""
    found: dict[Any, set[str]] = {}
    for row in ledger:
        if (row.get("outcome") or "ok") in outcomes and row.get("content") is not None:
            found.setdefault(row["key"], set()).add(row["content"])
    return found


def _differs(ours: Row, theirs: Row, stated: set[str]) -> bool:
    """Say whether a held row has a content that nobody stated; it is compared with the strongest attempt."""
    a, b = ours.get("content"), theirs.get("content")
    return a is not None and b is not None and b not in stated


def _reordered(known: dict[Any, Row], copies: dict[Any, list[Row]], tried: set[Any]) -> set[Any]:
    placed = [
        (row["seq"], known[key]["seq"], bool(row.get("late")), key)
        for key in tried
        for row in copies[key]
        if row.get("seq") is not None and known[key].get("seq") is not None
    ]
    first = {key: min(p[0] for p in placed if p[3] == key) for _, _, _, key in placed}
    return {
        key
        for rs, ls, late, key in placed
        if not late and rs == first[key] and any(other[0] < rs and other[1] > ls for other in placed)
    }


def write(path: Path, rows: list[Row]) -> None:
    """Write rows as JSON lines, or as Parquet with the columns that any row has."""
    lines = path.with_suffix(".jsonl")
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if path.suffix == ".parquet":
        kinds = {
            "key": "BIGINT",
            "seq": "BIGINT",
            "content": "VARCHAR",
            "mono_ns": "BIGINT",
            "outcome": "VARCHAR",
        }
        kinds |= {"notional": "BIGINT", "late": "BOOLEAN"}
        present = [c for c in kinds if c == "key" or any(c in row for row in rows)]
        shape = ", ".join(f"{c}: '{kinds[c]}'" for c in present)
        source = f"read_json('{lines}', format='newline_delimited', columns={{{shape}}})"
        duckdb.sql(f"COPY (SELECT * FROM {source}) TO '{path}' (FORMAT parquet)")


def run(ledger: list[Row], held: list[Row], endings: tuple[str, str]) -> AuditResult:
    """Audit both lists as files of the given endings."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}{ending}" for name, ending in zip("ab", endings, strict=True)]
        for path, rows in zip(paths, (ledger, held), strict=True):
            write(path, rows)
        return audit(paths[0], paths[1], threads=1)


@given(
    ledger_rows,
    held_rows,
    st.tuples(st.sampled_from([".jsonl", ".parquet"]), st.sampled_from([".jsonl", ".parquet"])),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_audit_equals_the_naive_model(ledger: list[Row], held: list[Row], endings: tuple[str, str]) -> None:
    """Every list and count equals what the plainest reading of the format says, for any form of file."""
    result = run(ledger, held, endings)
    expected = naive(ledger, held)
    assert {kind: sorted(found) for kind, found in result.lists.items()} == {
        kind: sorted(map(str, found)) for kind, found in expected.items()
    }
    assert result.counts == {kind: len(found) for kind, found in expected.items()}
    assert result.recovered == len(held)
    assert result.acknowledged == sum((r.get("outcome") or "ok") == "ok" for r in merged(ledger).values())
    assert result.not_unique == sum(len(found) > 1 for found in _stated(ledger, ("ok",)).values())
    lost = [merged(ledger)[key] for key in expected["lost"]]
    assert result.earliest_lost_mono_ns == min(
        (r["mono_ns"] for r in lost if r.get("mono_ns") is not None), default=None
    )


placed = st.integers(0, 5)
ledger_with_places = st.lists(
    st.fixed_dictionaries(
        {"key": keys, "seq": placed, "outcome": st.sampled_from(["ok", "ok", "info", "fail"])}
    ),
    min_size=3,
    max_size=8,
    unique_by=lambda row: row["key"],
)
held_with_places = st.lists(
    st.fixed_dictionaries({"key": keys, "seq": placed}, optional={"late": st.booleans()}),
    min_size=3,
    max_size=9,
)


@given(ledger_with_places, held_with_places)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_order_equals_the_naive_model_where_places_collide(ledger: list[Row], held: list[Row]) -> None:
    """With a place for everything, few places and repeated keys, order and repetition are exact."""
    result = run(ledger, held, (".jsonl", ".jsonl"))
    expected = naive(ledger, held)
    for kind in ("reordered", "duplicated", "late"):
        assert sorted(result.lists[kind]) == sorted(map(str, expected[kind])), kind


@given(
    st.lists(st.integers(0, 10**18), unique=True, min_size=1, max_size=30), st.randoms(use_true_random=False)
)
@settings(max_examples=25, deadline=None)
def test_big_keys_keep_every_digit(found: list[int], random: Any) -> None:
    """Integer keys beyond the exactness of floats survive JSON and Parquet and the comparison of both."""
    lost = random.choice(found)
    held = [{"key": str(key)} for key in found if key != lost]
    result = run([{"key": key} for key in found], held, (".parquet", ".jsonl"))
    assert result.lists["lost"] == (str(lost),)
    assert result.counts["phantom"] == 0
