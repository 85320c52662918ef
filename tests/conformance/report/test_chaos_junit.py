"""The JUnit file of a chaos session is what others' schema says JUnit is."""

from __future__ import annotations

from pathlib import Path

import xmlschema

from blackstart.chaos import log, report
from blackstart.chaos.model import Figures, Injection, Summary
from blackstart.chaos.result import conclude
from blackstart.model.manifest import Manifest
from blackstart.model.outcome import Rto
from blackstart.model.verdict import Verdict

SCHEMA = xmlschema.XMLSchema(Path(__file__).with_name("junit.xsd"))


def test_every_verdict_gives_a_file_that_the_schema_accepts() -> None:
    """Pass, fail and unknown, with text that XML does not allow."""
    done = [
        Injection(
            number=number,
            planned_s=1.0,
            at_s=1.0,
            name="kill router",
            steps=(),
            verdict=verdict,
            reasons=("bad \x00 text",),
            faults=(),
            recovered=True,
            rto=Rto(),
            after=Figures(),
        )
        for number, verdict in enumerate(Verdict, 1)
    ]
    status = log.Status(pid=1, target="t", profile="p", folder="/x", seed=7, started_wall_ns=10**18)
    manifest = Manifest(schema=1, name="t", environment="test")
    found = conclude(
        status, manifest, "1", done=done, alerts=(), left_out=(), summary=Summary(ending="complete")
    )
    SCHEMA.validate(report.junit(found).decode())
