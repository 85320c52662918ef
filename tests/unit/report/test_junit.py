from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import msgspec
import pytest

from blackstart.model.outcome import LeftOut
from blackstart.model.verdict import CheckResult, Verdict
from blackstart.report.junit import encode
from blackstart.testing.samples import sample_run, sample_trial, sample_trials

if TYPE_CHECKING:
    from blackstart.model.outcome import Trial


def suites(*trials: Trial) -> list[ET.Element]:
    """Report `trials` and return their suites."""
    run = msgspec.structs.replace(sample_run(), trials=trials)
    return list(ET.fromstring(encode(run)))


def case(suite: ET.Element, name: str) -> ET.Element:
    """Find a case of a suite by its name."""
    return next(one for one in suite.iter("testcase") if one.get("name") == name)


def test_each_trial_is_a_suite_and_each_check_a_case() -> None:
    """Besides the verdict as a whole there is a case for every check and for each of the eight validators."""
    (suite,) = suites(sample_trial("R1", "hot failover"))
    names = [one.get("name") for one in suite.iter("testcase")]
    assert names[:3] == ["verdict", "rto", "fault"]
    assert [name for name in names if str(name).startswith("state.")] == [
        f"state.{name}" for name in sample_trial("R1", "").validation
    ]


@pytest.mark.parametrize(
    ("verdict", "element"), [(Verdict.FAIL, "failure"), (Verdict.UNKNOWN, "error"), (Verdict.PASS, None)]
)
def test_the_verdict_decides_the_element(verdict: Verdict, element: str | None) -> None:
    """FAIL is a failure, UNKNOWN an error (which no pipeline shows as green), PASS neither."""
    (suite,) = suites(sample_trial("R2", "warm restart", verdict=verdict, reasons=("no-load: 211/s",)))
    found = [child.tag for child in case(suite, "verdict") if child.tag != "system-out"]
    assert found == ([element] if element else [])
    assert suite.get("failures") == ("1" if element == "failure" else "0")
    assert suite.get("errors") == ("1" if element == "error" else "0")


def test_a_failed_check_is_counted_once() -> None:
    """What a check failed by does not fail the trial's own case as well; that one keeps the figures."""
    trial = sample_trial("R1", "hot failover", verdict=Verdict.FAIL, reasons=("position-mismatch: ALFA",))
    failed = CheckResult(check="positions", verdict=Verdict.FAIL)
    (suite,) = suites(msgspec.structs.replace(trial, validation={"positions": failed}))
    assert suite.get("failures") == "1"
    assert [child.tag for child in case(suite, "verdict")] == ["system-out"]


def test_an_unknown_check_is_an_error_that_says_why_and_how_to_replay() -> None:
    """A validator that could not look shows as an error, with the line that replays the trial."""
    trial = sample_trial("R1", "hot failover")
    blind = CheckResult(check="risk", verdict=Verdict.UNKNOWN)
    (suite,) = suites(msgspec.structs.replace(trial, validation={"risk": blind}))
    (error,) = case(suite, "state.risk")
    assert error.tag == "error"
    assert trial.replay in str(error.text)


def test_a_validator_that_does_not_apply_is_skipped_with_its_reason() -> None:
    """Nothing is left out silently: the case is there, skipped, with the manifest's reason."""
    trial = sample_trial("R1", "hot failover")
    others = {name: result for name, result in trial.validation.items() if name != "strategy"}
    why = {"strategy": "a database has none"}
    (suite,) = suites(msgspec.structs.replace(trial, validation=others, not_applicable=why))
    skipped = case(suite, "state.strategy").find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "a database has none"


def test_a_scenario_that_was_not_run_is_skipped_with_its_reason() -> None:
    """A pipeline sees what the suite would have had besides, and why this target cannot carry it."""
    out = LeftOut(id="R5", title="network partition", reason="the manifest has no link `exchange`")
    root = ET.fromstring(encode(msgspec.structs.replace(sample_run(), trials=(), left_out=(out,))))
    (suite,) = root
    assert (root.get("tests"), root.get("skipped"), root.get("errors")) == ("1", "1", "0")
    skipped = case(suite, "verdict").find("skipped")
    assert skipped is not None
    assert (suite.get("name"), skipped.get("message")) == (f"{out.id} {out.title}", out.reason)


def test_a_failed_check_names_the_finding() -> None:
    """The message of the failure is the text of the finding that decided it."""
    (suite,) = suites(next(trial for trial in sample_trials() if trial.id == "R33"))
    failure = case(suite, "state.positions").find("failure")
    assert failure is not None
    assert "ALFA" in str(failure.get("message"))


def test_the_totals_of_the_file_are_those_of_its_cases() -> None:
    """Jenkins reads the attributes, people count the cases: both see the same numbers."""
    tree = ET.fromstring(encode(sample_run()))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("tests", "testcase")):
        assert int(str(tree.get(attribute))) == len(list(tree.iter(tag)))
        assert sum(int(str(suite.get(attribute))) for suite in tree) == len(list(tree.iter(tag)))
