from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from blackstart.errors import TargetError
from blackstart.target.reshape import search

PAGE = Path(__file__).parents[3] / "docs/reference/state-documents.md"
ROW = re.compile(
    r"^\| `(?P<given>[\[{].*?)`(?: \(.*\))? \| `{1,2}(?P<select>\{.*?\})`{1,2} \|$", re.MULTILINE
)
EXAMPLES = [(found["given"], found["select"]) for found in ROW.finditer(PAGE.read_text(encoding="utf-8"))]
EXPECTED: list[Any] = [
    {"positions": [{"symbol": "ALFA", "quantity": 5}, {"symbol": "BRAVO", "quantity": -2}]},
    {"positions": [{"symbol": "ALFA", "quantity": 5}]},
    {"orders": [{"cl_ord_id": "A1", "status": "new"}]},
    {
        "links": [
            {"name": "exchange", "kind": "exchange", "connected": True},
            {"name": "db", "kind": "database", "connected": False},
        ]
    },
    {"orders": [{"cl_ord_id": "A1", "status": "new", "price": 1000500}]},
    {"initialised": True, "indicators": [{"symbol": "*", "name": "ema", "value": 3.5, "samples": 0}]},
]


@pytest.mark.parametrize(("example", "expected"), list(zip(EXAMPLES, EXPECTED, strict=True)))
def test_every_example_of_the_documentation_works(example: tuple[str, str], expected: Any) -> None:
    """What the page promises about foreign documents is so."""
    given, select = example
    assert search(select, json.loads(given), where="x") == expected


@pytest.mark.parametrize(
    ("value", "ticks"), [("100.05", 1000500), (100.05, 1000500), (7, 70000), ("-0.0001", -1), (None, None)]
)
def test_prices_become_ticks_exactly(value: object, ticks: int | None) -> None:
    """No binary fraction gets in between."""
    assert search("ticks(p)", {"p": value}, where="x") == ticks


@pytest.mark.parametrize("expression", ["ticks(p)", "items(p)", "nothing(p)", "a[?"])
def test_what_cannot_be_applied_is_told_with_its_place(expression: str) -> None:
    """The address and the expression are named."""
    with pytest.raises(TargetError, match="http://h"):
        search(expression, {"p": "text"}, where="http://h")


def test_without_an_expression_the_document_stays() -> None:
    """Standard documents need no reshaping."""
    assert search(None, {"a": 1}, where="x") == {"a": 1}
