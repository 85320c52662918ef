"""Which links a network fault is about."""

from __future__ import annotations

import pytest

from blackstart.contracts import AimsEarly
from blackstart.faults import registry
from blackstart.model.manifest import Link, Manifest
from blackstart.model.scenario import FaultStep

MANIFEST = Manifest(
    schema=1,
    name="x",
    isolation=("network",),
    links={"exchange": Link(ports=("1",)), "quotes": Link(ports=("2",), protocol="udp", to="exchange")},
)


@pytest.mark.parametrize(
    ("links", "words"),
    [
        (("@exchange",), "only for tcp; `quotes` is udp"),
        (("exchange", "quotes"), "only for tcp; `quotes` is udp"),
        (("@moon",), "the manifest has no link `@moon`"),
        ((), "which link?"),
    ],
)
def test_a_party_stands_for_all_links_to_it(links: tuple[str, ...], words: str) -> None:
    """What cannot be done to one of them is told, before a plan has named them; so is what leads nowhere."""
    why_not = registry.unavailable(registry.make("reset"), MANIFEST, FaultStep(kind="reset", links=links))
    assert why_not is not None
    assert words in why_not


def test_who_can_be_aimed_before_earlier_faults() -> None:
    """Every network fault, which looks nobody up; a kill must find who is there when its turn comes."""
    assert isinstance(registry.make("partition"), AimsEarly)
    assert not isinstance(registry.make("kill"), AimsEarly)
