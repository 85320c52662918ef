from __future__ import annotations

import json
from pathlib import Path

import msgspec

from blackstart.model.outcome import PHASES
from blackstart.report.results_json import ResultsDocument, ResultsJson, document, encode, schema, timestamp
from blackstart.testing.samples import sample_run

SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "reference" / "results.schema.json"

# The fields that the interface promises; more may be there, none of these may go.
TRIAL = [
    "id",
    "scenario",
    "requirement",
    "target",
    "verdict",
    "reasons",
    "seed",
    "replay",
    "fault",
    "rto",
    "rpo",
    "validation",
    "checklist",
]
RTO = [*(f"{phase}_ms" for phase in PHASES), "total_ms", "uncertainty_ms", "censored", "stamps"]
STREAM = [
    "acknowledged",
    "lost",
    "duplicated",
    "phantom",
    "corrupted",
    "reordered",
    "indeterminate",
    "late",
    "not_checked",
]
VALIDATORS = [
    "positions",
    "orders",
    "risk",
    "pnl",
    "connectivity",
    "market_data",
    "strategy",
    "infrastructure",
]


def test_every_promised_field_is_there() -> None:
    """A pipeline written against the documented fields finds all of them, at their places."""
    for trial in json.loads(encode(sample_run()))["trials"]:
        assert set(TRIAL) <= set(trial)
        assert set(RTO) <= set(trial["rto"])
        assert {"name", "mechanism", "witness"} <= set(trial["fault"])
        assert {"events", "ms", "notional", "streams"} <= set(trial["rpo"])
        assert all(set(STREAM) <= set(stream) for stream in trial["rpo"]["streams"].values())
        assert list(trial["validation"]) == VALIDATORS
        assert all({"verdict", "findings"} <= set(one) for one in trial["validation"].values())
        assert len(trial["checklist"]) == 15


def test_phases_sum_to_the_nanosecond_through_the_file() -> None:
    """What is read back from the file still sums exactly, because whole nanoseconds are in it."""
    whole = [
        t["rto"] for t in json.loads(encode(sample_run()))["trials"] if t["rto"]["recovery_ns"] is not None
    ]
    assert whole
    for rto in whole:
        assert sum(rto[f"{phase}_ns"] for phase in PHASES) == rto["total_ns"]


def test_unknown_is_null_and_never_zero() -> None:
    """A phase that nobody could measure is null; so is the loss that nobody could compare."""
    by_id = {trial["id"]: trial for trial in json.loads(encode(sample_run()))["trials"]}
    assert by_id["R33"]["rto"]["recovery_ms"] is None
    assert by_id["R2"]["rpo"]["events"] is None


def test_censored_says_so_and_has_no_total() -> None:
    """A service that was not back within the limit has a limit, and no recovery time."""
    rto = next(t for t in json.loads(encode(sample_run()))["trials"] if t["id"] == "R3")["rto"]
    assert rto["censored"] is True
    assert (rto["total_ms"], rto["censored_ms"]) == (None, 30_000.0)


def test_the_schema_on_file_is_the_one_of_the_types() -> None:
    """The documented schema is generated: a field that changes without it being written again fails here."""
    written = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(schema())), (
        "write it again: .venv/bin/python tools/results_schema.py"
    )


def test_the_document_reads_back_as_itself() -> None:
    """Strict decoding by the same types gives the same document: nothing is lost in the file."""
    assert msgspec.json.decode(encode(sample_run()), type=ResultsDocument) == document(sample_run())


def test_a_half_written_file_is_never_seen(tmp_path: Path) -> None:
    """The file appears whole, and no temporary one stays behind."""
    assert ResultsJson().render(sample_run(), tmp_path) == [tmp_path / "results.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_times_are_rfc_3339_in_utc() -> None:
    """Unix nanoseconds become a time that every reader understands."""
    assert timestamp(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456Z"
