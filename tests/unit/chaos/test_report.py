"""What a session came to, and the files that say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest

from blackstart.chaos import log, profiles, report
from blackstart.chaos.model import (
    Alert,
    ChaosResult,
    Figures,
    Injection,
    LeftOut,
    Orders,
    Summary,
)
from blackstart.chaos.result import conclude
from blackstart.errors import PermitError, ScenarioError
from blackstart.model.manifest import Manifest, Service, WorkloadSpec
from blackstart.model.outcome import FaultRecord, Rpo, Rto
from blackstart.model.scenario import FaultStep, Trigger
from blackstart.model.verdict import CheckResult, Finding, Verdict
from blackstart.target import problems

SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "reference" / "chaos.schema.json"
MANIFEST = Manifest(schema=1, name="firm", title="a firm", environment="test")
FINE = {"rpo": CheckResult(check="rpo", verdict=Verdict.PASS)}


def injection(number: int = 1, **changes: Any) -> Injection:
    """Make an injection that passed."""
    settings: dict[str, Any] = {
        "number": number,
        "planned_s": 5.0,
        "at_s": 5.1,
        "name": "kill router",
        "steps": (FaultStep(kind="kill", components=("router",)),),
        "verdict": Verdict.PASS,
        "reasons": (),
        "faults": (FaultRecord(name="kill", mechanism="SIGKILL", witness={"bit": True}, reverted=True),),
        "recovered": True,
        "rto": Rto(total_ns=180_000_000),
        "after": Figures(ready=True, trading=True, positions_right=1.0, behind=0),
        **changes,
    }
    return Injection(**settings)


def result(
    *done: Injection, alerts: tuple[Alert, ...] = (), ending: Any = "complete", **summary: Any
) -> ChaosResult:
    """Conclude a session."""
    status = log.Status(
        pid=1, target="firm", profile="staging", folder="/runs/x", seed=7, started_wall_ns=10**18
    )
    settings: dict[str, Any] = {"validation": FINE, "rpo": Rpo(events=0, acknowledged=9), **summary}
    return conclude(
        status,
        MANIFEST,
        "1.0",
        done=done,
        alerts=alerts,
        left_out=(LeftOut(kind="oom", where="risk", reason="needs <cgroups>"),),
        summary=Summary(ending=ending, **settings),
    )


def test_all_well_passes() -> None:
    """Every injection passed, nobody was alarmed, nothing was lost: PASS, and no reason against it."""
    found = result(injection(1), injection(2))
    assert (found.verdict, found.reasons, found.counts["pass"]) == (Verdict.PASS, (), 2)


def test_nothing_broken_is_unknown() -> None:
    """A session without an injection shows nothing."""
    assert result().verdict is Verdict.UNKNOWN
    assert result(injection(at_s=None, verdict=Verdict.UNKNOWN)).reasons[-1].startswith("no-fault")


def test_what_is_not_judged_says_nothing_and_is_counted() -> None:
    """Nothing to break just then: it spoils no verdict, is shown, and alone it is no injection."""
    skipped = injection(2, judged=False, at_s=None, verdict=Verdict.UNKNOWN, reasons=("fault-failed: -",))
    found = result(injection(1), skipped)
    assert (found.verdict, found.counts["not judged"]) == (Verdict.PASS, 1)
    assert result(skipped).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("ending", "open_ended", "verdict"),
    [
        ("interrupted", False, Verdict.UNKNOWN),
        ("interrupted", True, Verdict.PASS),
        ("stopped", False, Verdict.FAIL),
        ("halted", True, Verdict.UNKNOWN),
        ("error", False, Verdict.UNKNOWN),
    ],
)
def test_how_it_ended_counts(ending: str, open_ended: bool, verdict: Verdict) -> None:
    """Broken off is unknown, unless it had no end of its own; a stop condition is a failure."""
    assert result(injection(), ending=ending, open_ended=open_ended, why="why").verdict is verdict


def test_alerts_fail_and_those_without_a_fault_are_counted() -> None:
    """Any alert is FAIL; one while nothing was broken is counted as without a fault."""
    of_fault = Alert(code="not-recovered", text="-", at_s=9.0, injection=1)
    of_none = Alert(code="died:5", text="-", at_s=11.0)
    found = result(injection(), alerts=(of_fault, of_none))
    assert (found.verdict, found.false_alarms) == (Verdict.FAIL, 1)


def test_books_that_nobody_read_are_unknown() -> None:
    """Without the audit nobody knows what was lost; what the audit found decides."""
    assert result(injection(), validation={}).verdict is Verdict.UNKNOWN
    lost = Finding(verdict=Verdict.FAIL, code="lost", text="1 of 9 acknowledged are lost")
    bad = {"rpo": CheckResult(check="rpo", verdict=Verdict.FAIL, findings=(lost,))}
    assert result(injection(), validation=bad).verdict is Verdict.FAIL


def test_junit_has_a_case_for_each_injection() -> None:
    """One case an injection and one for the session; what failed and what is unknown is not green."""
    bad = injection(2, verdict=Verdict.FAIL, reasons=("not-recovered: \x00 gone",))
    root = ET.fromstring(report.junit(result(injection(1), bad)))
    cases = list(root.iter("testcase"))
    assert [case.get("name") for case in cases] == ["00001 kill router", "00002 kill router", "session"]
    assert [len(list(case.iter("failure"))) for case in cases] == [0, 1, 1]
    assert root.get("failures") == "2"


def test_what_is_not_judged_turns_no_pipeline_red() -> None:
    """The session passes with 0: its case says `skipped`, with the reason, and no error is counted."""
    skipped = injection(2, judged=False, at_s=None, verdict=Verdict.UNKNOWN, reasons=("fault-failed: -",))
    root = ET.fromstring(report.junit(result(injection(1), skipped)))
    assert (root.get("errors"), root.get("failures"), root.get("skipped")) == ("0", "0", "1")
    (found,) = root.iter("skipped")
    assert found.get("message") == "not judged; fault-failed: -"
    judged = injection(2, at_s=None, verdict=Verdict.UNKNOWN, reasons=("component-down: -",))
    assert ET.fromstring(report.junit(result(injection(1), judged))).get("errors") == "2"


def test_a_session_that_hardly_found_anything_to_break_is_unknown() -> None:
    """One that passed beside two that found no place shows little; half of them is allowed."""
    skipped = injection(2, judged=False, at_s=None, verdict=Verdict.UNKNOWN, reasons=("fault-failed: -",))
    assert result(injection(1), skipped).verdict is Verdict.PASS
    found = result(injection(1), skipped, msgspec.structs.replace(skipped, number=3))
    assert found.verdict is Verdict.UNKNOWN
    assert found.reasons == ("seldom-placed: 2 of 3 injections found nothing to break",)
    broken_off = injection(2, judged=False, verdict=Verdict.UNKNOWN)
    assert result(broken_off, injection(1), skipped).verdict is Verdict.PASS


def test_the_page_says_it_all_and_escapes_it() -> None:
    """Every injection, alert and left-out kind stands in the page, as text."""
    alert = Alert(code="rate-low", text="<b>slow</b>", at_s=3.0)
    page = report.html(result(injection(), alerts=(alert,)))
    assert "kill router" in page
    assert "&lt;b&gt;slow" in page
    assert "needs &lt;cgroups&gt;" in page
    assert "<b>slow" not in page


def test_the_documented_schema_is_that_of_the_types() -> None:
    """A field that changes without the schema being written again fails here."""
    written = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert written == json.loads(msgspec.json.encode(msgspec.json.schema(ChaosResult))), (
        "write it again: .venv/bin/python tools/chaos_schema.py"
    )


def test_a_result_is_read_back_as_it_was() -> None:
    """`chaos.json` holds everything."""
    found = result(injection(1), injection(2))
    assert msgspec.json.decode(report.encode(found), type=ChaosResult) == found


def test_a_recording_says_what_was_really_done(tmp_path: Path) -> None:
    """The moments are those at which it was broken; what never came is not in it; also of a dead session."""
    orders = Orders(target="firm", profile=profiles.load("staging"), seed=7)
    step = FaultStep(kind="pause", components=("risk",), trigger=Trigger(at="delay", delay_s=0.25))
    done = [injection(1, at_s=6.5), injection(2, at_s=None, steps=()), injection(3, at_s=20.0, steps=(step,))]
    log.write(tmp_path / log.ORDERS, orders)
    for one in done:
        log.append(tmp_path / log.INJECTIONS, one)
    with (tmp_path / log.INJECTIONS).open("ab") as file:
        file.write(b'{"number": 4, "torn')
    found = log.load_recording(tmp_path)
    assert found.replayed is not None
    assert [(one.number, one.at_s) for one in found.replayed] == [(1, 6.5), (3, 20.0)]
    assert found.replayed[1].steps == (step,)
    log.write(tmp_path / log.RECORDING, found)
    assert log.load_recording(tmp_path / log.RECORDING) == found


def test_a_recording_of_nothing_is_refused(tmp_path: Path) -> None:
    """There is nothing to replay where nothing was broken, and nothing to read where nothing is."""
    with pytest.raises(ScenarioError, match="cannot be read as a recording"):
        log.load_recording(tmp_path)
    log.write(tmp_path / log.ORDERS, Orders(target="firm", profile=profiles.load("staging"), seed=7))
    with pytest.raises(ScenarioError, match="nothing was broken"):
        log.load_recording(tmp_path)


@pytest.mark.parametrize("name", ["development", "staging", "production"])
def test_the_packaged_profiles_load(name: str) -> None:
    """All three are there; production needs an approval and allows the least."""
    profile = profiles.load(name)
    assert profile.name == name
    assert profile.approval == (name == "production")
    assert profile.for_s is None or name != "development"


def test_staging_wishes_all_eight_of_the_source_document() -> None:
    """R18: kill, latency, loss, disk, processor, memory, clock, data."""
    kinds = {one.kind for one in profiles.load("staging").fault}
    assert kinds >= {
        "kill",
        "latency",
        "packet_loss",
        "disk_error",
        "cpu_stress",
        "memory_pressure",
        "clock_skew",
        "flip_file_bits",
    }


def test_permits_fail_closed() -> None:
    """A profile for another environment is refused with status 3; that of production for everything else."""
    with pytest.raises(PermitError, match="is for production"):
        profiles.check(profiles.load("production"), MANIFEST)
    with pytest.raises(PermitError, match="is for"):
        profiles.check(profiles.load("development"), msgspec.structs.replace(MANIFEST, environment="staging"))
    profiles.check(profiles.load("staging"), MANIFEST)
    assert PermitError.exit_status == 3


def test_a_manifest_may_change_the_stop_conditions() -> None:
    """`[objectives.chaos]` lies over the profile's `[stop]`, and unknown names are refused."""
    changed = msgspec.structs.replace(
        MANIFEST, objectives={"chaos": {"not_recovered_s": 5, "lost_events": 2}}
    )
    stop = profiles.laid_over(profiles.load("staging"), changed).stop
    assert (stop.not_recovered_s, stop.lost_events) == (5.0, 2)
    wrong = msgspec.structs.replace(MANIFEST, objectives={"chaos": {"speed": 5}})
    with pytest.raises(ScenarioError, match=r"objectives\.chaos"):
        profiles.laid_over(profiles.load("staging"), wrong)


def test_the_load_is_lightened_with_what_it_must_reach() -> None:
    """A quarter of the load asks a quarter of the rate of it, and never less than an event a second."""
    heavy = msgspec.structs.replace(
        MANIFEST,
        workload=WorkloadSpec(rate_per_s=400),
        services={
            "orders": Service(source="workload", minimum_per_s=300),
            "rows": Service(source="workload", minimum_per_s=1),
        },
    )
    light = profiles.lighter(heavy, msgspec.structs.replace(profiles.load("staging"), load_share=0.25))
    assert light.workload is not None
    assert light.workload.rate_per_s == 100
    assert [one.minimum_per_s for one in light.services.values()] == [75, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        "interval_s = [5.0, 1.0]",
        "overlap = 2.0",
        "load_share = 0.0",
        "speed = 1",
        "concurrent_faults = 0",
        "recovery_limit_s = nan",
        "stop = { not_recovered_s = inf }",
        'windows = { open = [{ begin = "25:00", end = "26:00" }] }',
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(tmp_path: Path, wrong: str) -> None:
    """Each nonsense is told with the file."""
    head = 'name="x"\ntitle="x"\nenvironments=["test"]\nschedule="-"\nfault=[]\n'
    file = tmp_path / "mine.toml"
    file.write_text(head + wrong, encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"mine\.toml"):
        profiles.load(str(file))


def test_a_manifest_file_may_name_them_and_nothing_else() -> None:
    """`blackstart validate` knows the stop conditions of chaos, and tells a misspelt one."""
    right = msgspec.structs.replace(MANIFEST, objectives={"chaos": {"not_recovered_s": 5}})
    wrong = msgspec.structs.replace(MANIFEST, objectives={"chaos": {"not_recoverd_s": 5}})
    assert not [one for one in problems.problems(right) if "objectives" in one]
    assert any("objectives.chaos" in one and "not_recoverd_s" in one for one in problems.problems(wrong))
