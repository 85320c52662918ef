"""JUnit XML for pipelines: a suite a trial, a case a check (R46).

JUnit knows no "unknown". A check that could not look is an `error`, because Jenkins, GitHub and GitLab all
show errors as not green; a validator that does not apply to the target is `skipped`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from blackstart.model.verdict import CheckResult, Verdict
from blackstart.report.results_json import timestamp
from blackstart.report.rows import merged, phase_texts, rpo_text, rto_text
from blackstart.report.wording import DASH, NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blackstart.model.outcome import LeftOut, Run, Trial

FILE_NAME = "junit.xml"

_ELEMENT = {Verdict.FAIL: "failure", Verdict.UNKNOWN: "error"}
_NOT_XML = re.compile("[^\\t\\n\\r\\u0020-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def clean(text: str) -> str:
    """`text` without the characters that XML 1.0 forbids; logs and broken identifiers contain them."""
    return _NOT_XML.sub("\ufffd", text)


def checks(trial: Trial) -> Iterator[CheckResult]:
    """Every check of a trial once, the eight validators last."""
    own = {result.check: result for result in trial.checks}
    state = {f"state.{name}": result for name, result in trial.validation.items()}
    yield from (result for name, result in own.items() if name not in trial.validation)
    yield from (CheckResult(check=name, verdict=r.verdict, findings=r.findings) for name, r in state.items())


def _message(result: CheckResult) -> str:
    decisive = [finding.text for finding in result.findings if finding.verdict is result.verdict]
    return decisive[0] if decisive else f"{result.check}: {result.verdict}, without a finding"


def _body(result: CheckResult, trial: Trial) -> str:
    lines = [f"{finding.verdict} {finding.code}: {finding.text}" for finding in result.findings]
    return "\n".join([*lines, f"replay: {trial.replay}"])


def _case(suite: ET.Element, trial: Trial, name: str, time_s: float) -> ET.Element:
    attributes = {"classname": clean(f"blackstart.{trial.target}.{trial.id}"), "name": clean(name)}
    return ET.SubElement(suite, "testcase", attributes | {"time": f"{time_s:.3f}"})


def _check_case(suite: ET.Element, trial: Trial, result: CheckResult) -> None:
    case = _case(suite, trial, result.check, 0.0)
    element = _ELEMENT.get(result.verdict)
    if element is not None:
        attributes = {"type": result.verdict.value, "message": clean(_message(result))}
        ET.SubElement(case, element, attributes).text = clean(_body(result, trial))


def _trial_case(suite: ET.Element, trial: Trial) -> None:
    """Add the trial as a whole, with its figures.

    It fails only where its verdict is worse than every single check (interrupted): a pipeline counts a failed
    check once.
    """
    case = _case(suite, trial, "verdict", trial.duration_ns / NS_PER_S)
    element = _ELEMENT.get(trial.verdict)
    if element is not None and all(result.verdict is not trial.verdict for result in checks(trial)):
        message = trial.reasons[0] if trial.reasons else f"verdict {trial.verdict}"
        text = "\n".join([*trial.reasons, f"replay: {trial.replay}"])
        attributes = {"type": trial.verdict.value, "message": clean(message)}
        ET.SubElement(case, element, attributes).text = clean(text)
    ET.SubElement(case, "system-out").text = clean(_figures(trial))


def _figures(trial: Trial) -> str:
    phases = " + ".join(phase_texts(trial.rto, merge=merged(trial))) or DASH
    return (
        f"RTO {rto_text(trial.rto)} (phases in ms: {phases}) · RPO {rpo_text(trial.rpo)} · seed {trial.seed}"
    )


def _suite(trial: Trial) -> ET.Element:
    suite = ET.Element("testsuite", {"name": clean(f"{trial.id} {trial.title}".strip())})
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("seed", str(trial.seed)),
        ("replay", trial.replay),
        ("requirement", trial.requirement),
    ):
        ET.SubElement(properties, "property", {"name": name, "value": clean(value)})
    _trial_case(suite, trial)
    for result in checks(trial):
        _check_case(suite, trial, result)
    for name, why in trial.not_applicable.items():
        ET.SubElement(_case(suite, trial, f"state.{name}", 0.0), "skipped", {"message": clean(why)})
    for attribute, total in _totals(suite).items():
        suite.set(attribute, str(total))
    suite.set("time", f"{trial.duration_ns / NS_PER_S:.3f}")
    suite.set("timestamp", timestamp(trial.started_wall_ns)[:19])
    return suite


def _left_out(one: LeftOut) -> ET.Element:
    """Return a scenario that was not run as a suite of one skipped case."""
    name = clean(f"{one.id} {one.title}".strip())
    suite = ET.Element("testsuite", {"name": name, "time": "0.000"})
    case = ET.SubElement(suite, "testcase", {"classname": clean(one.id), "name": "verdict", "time": "0.000"})
    ET.SubElement(case, "skipped", {"message": clean(one.reason)})
    for attribute, total in _totals(suite).items():
        suite.set(attribute, str(total))
    return suite


def _totals(element: ET.Element) -> dict[str, int]:
    return {
        "tests": len(list(element.iter("testcase"))),
        "failures": len(list(element.iter("failure"))),
        "errors": len(list(element.iter("error"))),
        "skipped": len(list(element.iter("skipped"))),
    }


def encode(run: Run) -> bytes:
    """Return the whole document, UTF-8 with an XML declaration."""
    root = ET.Element("testsuites", {"name": "blackstart"})
    root.extend([*map(_suite, run.trials), *map(_left_out, run.left_out)])
    for attribute, value in _totals(root).items():
        root.set(attribute, str(value))
    root.set("time", f"{run.duration_ns / NS_PER_S:.3f}")
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


class Junit:
    """Reporter: writes `junit.xml` into the run folder."""

    name = "junit"

    def render(self, run: Run, folder: Path) -> list[Path]:
        """Write the file."""
        path = folder / FILE_NAME
        path.write_bytes(encode(run))
        return [path]
