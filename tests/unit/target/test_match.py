from __future__ import annotations

import re

import pytest

from blackstart.model.match import matches, reach

EVENT = {"kind": "fill", "cum": 500, "detail": {"component": "router", "x.y": 1}, "a.b": 2, "id": "3-S01"}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, True),
        ({"cum": 500}, True),
        ({"cum": 501}, False),
        ({"cum": [400, 500]}, True),
        ({"id": r"~^\d+-S"}, True),
        ({"id": "~^S"}, False),
        ({"detail.component": "router"}, True),
        ({"detail.component": ["risk", "feed"]}, False),
        ({"a.b": 2}, True),
        ({"nothing.there": "~."}, False),
        ({"cum": 500, "kind": "order"}, False),
    ],
)
def test_fields_match_as_documented(where: dict[str, object], expected: bool) -> None:
    """Equality, one of several, regular expression, and dots into objects; all conditions must hold."""
    assert matches(where)(EVENT) is expected


def test_a_broken_expression_is_refused_at_once() -> None:
    """Not only when the first event comes."""
    with pytest.raises(re.error):
        matches({"a": "~("})


def test_reaching_into_nothing_is_nothing() -> None:
    """A missing object on the way is no error."""
    assert reach(EVENT, "kind.deeper") is None
