from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st

from blackstart.model.verdict import Verdict
from blackstart.report.junit import encode
from blackstart.testing.samples import sample_run, sample_trial

SCHEMA = xmlschema.XMLSchema(Path(__file__).with_name("junit.xsd"))


def test_the_file_of_every_shape_of_trial_is_valid() -> None:
    """Pass, fail, unknown, censored and uninterrupted trials all give a file that the schema accepts."""
    SCHEMA.validate(ET.fromstring(encode(sample_run())))


def test_a_run_without_trials_is_valid() -> None:
    """Somebody pressed Ctrl-C before the first trial: the file is still one that a pipeline can read."""
    SCHEMA.validate(ET.fromstring(encode(msgspec.structs.replace(sample_run(), trials=()))))


def test_the_schema_refuses_what_is_not_junit() -> None:
    """The schema has teeth: a case without its class, or a failure without its type, is refused."""
    tree = ET.fromstring(encode(sample_run()))
    case = next(tree.iter("testcase"))
    del case.attrib["classname"]
    with pytest.raises(xmlschema.XMLSchemaValidationError):
        SCHEMA.validate(tree)


@given(st.text())
@settings(max_examples=60, deadline=None)
def test_any_text_in_reasons_gives_a_valid_file(text: str) -> None:
    """Control characters and lone surrogates out of broken logs never make the file unreadable."""
    trial = sample_trial("R1", "hot failover", reasons=(text,), note=text)
    run = msgspec.structs.replace(
        sample_run(), trials=(msgspec.structs.replace(trial, verdict=Verdict.FAIL),)
    )
    SCHEMA.validate(ET.fromstring(encode(run)))
