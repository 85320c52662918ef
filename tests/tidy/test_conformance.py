"""The table of FIX clauses names what is there, and everything that is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "reference" / "fix-conformance.md").read_text(encoding="utf-8")
SCRIPTS = {path.stem for path in (ROOT / "tests" / "conformance").rglob("*.fixscript")}
FIX_ROOMS = (
    "conformance",
    "real/paperexchange",
    "real/paperfirm",
    "real/paperfirm_services",
    "unit/fixsession",
    "unit/paperexchange",
)


def test_every_named_script_and_test_exists() -> None:
    """A script or a test that the table of FIX clauses names is there, so that its `yes` can be checked."""
    named = set(re.findall(r"`(\d\d-[\w-]+)`", TABLE))
    assert len(named) > 100, "the table is not read as it is written"
    assert sorted(named - SCRIPTS) == []
    for file, function in set(re.findall(r"`(test_\w+\.py)::(\w+)`", TABLE)):
        found = [path for room in FIX_ROOMS for path in (ROOT / "tests" / room).rglob(file)]
        assert any(f"def {function}(" in path.read_text(encoding="utf-8") for path in found), function


def test_every_script_stands_in_the_table() -> None:
    """No script is played whose clause the table does not name."""
    assert sorted(name for name in SCRIPTS if f"`{name}`" not in TABLE) == []


def test_every_clause_has_its_code_and_its_test() -> None:
    """Each row of a clause names a file of the code that exists, and something that shows it."""
    rows = [line for line in TABLE.splitlines() if re.match(r"\| \d+ \|", line)]
    assert {int(row.split("|")[1]) for row in rows} == set(range(1, 27))
    for row in rows:
        _, _, _, where, shown, state, _ = row.split("|")
        assert re.search(r"`\d\d-|::test_", shown), row
        assert state.strip().startswith("yes"), row
        for package, name in re.findall(r"(session|exchange) `([\w/]+\.py)`", where):
            assert (
                ROOT / "src" / f"{'fix' if package == 'session' else 'paper'}{package}" / name
            ).is_file(), row
