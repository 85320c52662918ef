"""Rechecking a run from which something has gone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from blackstart.cli.recheck import recheck
from blackstart.errors import HistoryError
from blackstart.model.outcome import LeftOut
from blackstart.model.verdict import Verdict
from blackstart.report.results_json import ResultsJson
from blackstart.scenario.plan import folder_name
from blackstart.testing.samples import sample_run, write_histories

if TYPE_CHECKING:
    from blackstart.model.outcome import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run of two trials whose histories and results lie in a folder."""
    full = sample_run(tmp_path)
    trials = tuple(
        msgspec.structs.replace(one, folder=str(tmp_path / folder_name(one.id))) for one in full.trials[:2]
    )
    write_histories(trials, tmp_path)
    found = msgspec.structs.replace(full, trials=trials, interrupted=False)
    ResultsJson().render(found, tmp_path)
    return found


def rechecked(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> dict[str, dict[str, object]]:
    """Recheck a run and return its trials by id."""
    recheck([Path(run.folder)], as_json=True)
    document = msgspec.json.decode(capfdbinary.readouterr().out)
    return {one["id"]: one for one in document["trials"]}


def test_a_trial_whose_folder_has_gone_is_unknown(
    run: Run, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """What the first results list and nobody can look at again is UNKNOWN, not forgotten."""
    whole = rechecked(run, capfdbinary)
    assert set(whole) == {one.id for one in run.trials}
    gone = run.trials[1]
    shutil.rmtree(gone.folder)
    found = rechecked(run, capfdbinary)
    assert set(found) == set(whole)
    assert found[gone.id]["verdict"] == "UNKNOWN"
    assert str(found[gone.id]["reasons"]).startswith("['trial-missing")
    assert found[run.trials[0].id] == whole[run.trials[0].id]


def test_what_was_not_run_is_still_told(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A run that is judged again was no more whole than it was."""
    out = LeftOut(id="R5", title="network partition", reason="no link")
    ResultsJson().render(msgspec.structs.replace(run, left_out=(out,)), Path(run.folder))
    recheck([Path(run.folder)], as_json=True)
    document = msgspec.json.decode(capfdbinary.readouterr().out)
    assert document["left_out"] == [msgspec.to_builtins(out)]


def test_a_tail_torn_behind_the_end_is_mentioned(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Bytes behind the closing record change nothing and are told."""
    first = run.trials[0]
    before = rechecked(run, capfdbinary)[first.id]
    with (Path(first.folder) / "history.jsonl").open("ab") as file:
        file.write(b"half a li")
    after = rechecked(run, capfdbinary)[first.id]
    assert "9 bytes behind the end" in str(after["note"])
    assert {**after, "note": before["note"]} == before


def test_damaged_results_are_not_taken_for_none(run: Run) -> None:
    """Results that cannot be read say nothing about what is missing: that is an error."""
    (Path(run.folder) / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(HistoryError):
        recheck([Path(run.folder)], as_json=False)


def test_a_session_of_chaos_is_refused(run: Run) -> None:
    """Its stretches are no trials: judged as such they would all be UNKNOWN."""
    Path(run.folder, "chaos.json").write_text("{}", encoding="utf-8")
    with pytest.raises(HistoryError, match="a session of chaos cannot be rechecked"):
        recheck([Path(run.folder)], as_json=True)


def test_a_run_without_first_results_is_not_known_to_be_whole(
    run: Run, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before it wrote any: the trials that are there may pass, others may be missing: never 0."""
    passing = next(one for one in run.trials if one.verdict is Verdict.PASS)
    for one in run.trials:
        if one is not passing:
            shutil.rmtree(one.folder)
    (Path(run.folder) / "results.json").unlink()
    monkeypatch.setattr("blackstart.cli.recheck.again", lambda _: passing)
    assert recheck([Path(passing.folder)], as_json=True) == 0
    assert msgspec.json.decode(capfdbinary.readouterr().out)["interrupted"] is False
    assert recheck([Path(run.folder)], as_json=True) == 2
    assert msgspec.json.decode(capfdbinary.readouterr().out)["interrupted"] is True
