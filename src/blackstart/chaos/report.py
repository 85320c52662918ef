"""What a session leaves for others: `chaos.json`, `junit.xml` with a case for each injection, and a page."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from blackstart.chaos.result import NOT_JUDGED
from blackstart.model.verdict import Verdict
from blackstart.report.junit import clean
from blackstart.report.results_json import timestamp
from blackstart.report.rows import rto_text
from blackstart.report.wording import DASH, approved_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackstart.chaos.model import ChaosResult, Injection

JSON, JUNIT, PAGE = "chaos.json", "junit.xml", "chaos.html"
_ELEMENT = {Verdict.FAIL: "failure", Verdict.UNKNOWN: "error"}
_SYMBOL = {Verdict.PASS: "\u2713", Verdict.FAIL: "\u2717", Verdict.UNKNOWN: "?"}
_TEMPLATES = Path(__file__).parent / "templates"
_STYLE = Path(__file__).parents[1] / "report" / "templates" / "style.css"


def render(result: ChaosResult, folder: Path) -> Path:
    """Write all three into `folder`; returns the page."""
    (folder / JSON).write_bytes(encode(result))
    (folder / JUNIT).write_bytes(junit(result))
    page = folder / PAGE
    page.write_text(html(result), encoding="utf-8")
    return page


def encode(result: ChaosResult) -> bytes:
    """Return the result as JSON; its schema is docs/reference/chaos.schema.json."""
    return msgspec.json.format(msgspec.json.encode(result)) + b"\n"


def junit(result: ChaosResult) -> bytes:
    """Return a document with one case for each injection, and one for the session with its audit."""
    suite = ET.Element("testsuite", {"name": clean(f"chaos {result.profile} on {result.target}")})
    for one in result.injections:
        name = f"{one.number:05} {one.name}"
        told = f"RTO {rto_text(one.rto)}"
        _case(
            suite, result, name, verdict=one.verdict if one.judged else None, reasons=one.reasons, told=told
        )
    told = f"{result.false_alarms} false alarms, lost {result.summary.rpo.events}"
    _case(suite, result, "session", verdict=result.verdict, reasons=result.reasons, told=told)
    root = ET.Element("testsuites", {"name": "blackstart"})
    root.append(suite)
    for element in (suite, root):
        element.set("tests", str(len(list(suite.iter("testcase")))))
        element.set("failures", str(len(list(suite.iter("failure")))))
        element.set("errors", str(len(list(suite.iter("error")))))
        element.set("skipped", str(len(list(suite.iter("skipped")))))
        element.set("time", f"{result.summary.duration_s:.3f}")
    suite.set("timestamp", timestamp(result.started_wall_ns)[:19])
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _case(
    suite: ET.Element,
    result: ChaosResult,
    name: str,
    *,
    verdict: Verdict | None,
    reasons: Sequence[str],
    told: str,
) -> None:
    """Add a case; without a verdict nobody was judged: `skipped`, which turns no pipeline red."""
    attributes = {
        "classname": clean(f"blackstart.{result.target}.chaos"),
        "name": clean(name),
        "time": "0.000",
    }
    case = ET.SubElement(suite, "testcase", attributes)
    if verdict is None:
        ET.SubElement(case, "skipped", {"message": clean("; ".join([NOT_JUDGED, *reasons[:1]]))})
    elif verdict in _ELEMENT:
        message = reasons[0] if reasons else f"verdict {verdict}"
        text = "\n".join([*reasons, f"replay: {result.replay}"])
        found = ET.SubElement(case, _ELEMENT[verdict], {"type": verdict.value, "message": clean(message)})
        found.text = clean(text)
    ET.SubElement(case, "system-out").text = clean(told)


def html(result: ChaosResult) -> str:
    """Return the page: one file that needs no network."""
    lines = [_line(one) for one in result.injections]
    text: str = (
        _environment()
        .get_template("chaos.html.j2")
        .render(
            result=result,
            lines=lines,
            style=_STYLE.read_text(encoding="utf-8"),
            symbol=_SYMBOL[result.verdict],
            symbols=_SYMBOL,
            started=timestamp(result.started_wall_ns),
            dash=DASH,
            approval=approved_text(result.approval) if result.approval is not None else "",
        )
    )
    return text


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class Line(msgspec.Struct, frozen=True):
    """An injection as a line of the table."""

    number: int
    at: str
    name: str
    verdict: str
    symbol: str
    rto: str
    bit: str
    reverted: str
    positions: str
    told: str


def _line(one: Injection) -> Line:
    right = one.after.positions_right
    return Line(
        number=one.number,
        at=DASH if one.at_s is None else f"{one.at_s:,.1f} s",
        name=one.name,
        verdict=one.verdict.value if one.judged else "NA",
        symbol=_SYMBOL[one.verdict] if one.judged else "",
        rto=rto_text(one.rto),
        bit=", ".join(_yes(bool(f.witness and f.witness.get("bit"))) for f in one.faults) or DASH,
        reverted=", ".join(_yes(f.reverted) for f in one.faults) or DASH,
        positions=DASH if right is None else f"{right:.0%}",
        told="; ".join(one.reasons[:2]),
    )


def _yes(value: bool | None) -> str:  # noqa: FBT001 - a value, not a switch
    return {True: "yes", False: "no", None: "unknown"}[value]
