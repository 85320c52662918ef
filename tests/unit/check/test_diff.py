"""Snapshots compared by meaning."""

from __future__ import annotations

from typing import Any

from blackstart.check.diff import diff
from blackstart.model.verdict import Verdict


def texts(before: Any, after: Any) -> list[str]:
    """Return what the comparison says."""
    return [finding.text for finding in diff(before, after).findings]


def test_order_of_entries_and_stamps_do_not_matter() -> None:
    """The same positions in another order at another time are the same state."""
    first = {
        "positions": {
            "mono_ns": 1,
            "positions": [{"symbol": "A", "quantity": 1}, {"symbol": "B", "quantity": 2}],
        }
    }
    second = {
        "positions": {
            "mono_ns": 9,
            "positions": [{"symbol": "B", "quantity": 2}, {"symbol": "A", "quantity": 1}],
        }
    }
    assert diff(first, second).verdict is Verdict.PASS


def test_a_changed_field_is_named_with_its_place() -> None:
    """A difference names document, entry and field, with both values."""
    first = {"orders": {"orders": [{"cl_ord_id": "1-C1", "leaves_quantity": 5}]}}
    second = {"orders": {"orders": [{"cl_ord_id": "1-C1", "leaves_quantity": 4}]}}
    assert texts(first, second) == ["orders.orders/1-C1.leaves_quantity: 5 → 4"]
    assert diff(first, second).verdict is Verdict.FAIL


def test_gone_and_new_entries_are_told_apart() -> None:
    """What is only on one side is gone or new."""
    first = {"d": {"l": [{"name": "x", "v": 1}]}}
    second = {"d": {"l": [{"name": "y", "v": 1}]}}
    assert texts(first, second) == [
        "d.l/x: gone (was name=x v=1)",
        "d.l/y: new (name=y v=1)",
    ]


def test_a_missing_document_is_unknown() -> None:
    """What was not read on one side cannot be compared."""
    assert diff({"a": {"x": 1}}, {}).verdict is Verdict.UNKNOWN
    assert diff({"a": {"x": 1}, "b": None}, {"a": {"x": 1}, "b": {}}).verdict is Verdict.UNKNOWN


def test_plain_lists_are_compared_by_place() -> None:
    """Entries without identity are compared one by one."""
    assert texts({"a": [1, 2]}, {"a": [1, 3, 4]}) == ["a#1: 2 → 3", "a#2: new (4)"]


def test_true_is_not_one() -> None:
    """A flag that became a number is a difference."""
    assert texts({"a": {"x": True}}, {"a": {"x": 1}}) == ["a.x: true → 1"]
