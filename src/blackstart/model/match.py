"""Does an event match? One meaning for triggers, phases and services."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Test = Callable[[Mapping[str, Any]], bool]


def reach(fields: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field; dotted names reach into objects (`detail.component`).

    None where there is nothing.
    """
    if name in fields:
        return fields[name]
    value: Any = fields
    for part in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def matches(where: Mapping[str, Any]) -> Test:
    """Return a test for the fields of an event.

    A plain value means equality; a string beginning with `~` is a regular expression that is searched in
    the field's text; a list means any of its values. Raises `re.error` for a broken expression.
    """
    tests = [_field_test(name, expected) for name, expected in where.items()]
    return lambda fields: all(test(fields) for test in tests)


def _field_test(name: str, expected: Any) -> Test:
    if isinstance(expected, str) and expected.startswith("~"):
        pattern = re.compile(expected[1:])
        return lambda fields: pattern.search(_text(reach(fields, name))) is not None
    if isinstance(expected, (list, tuple)):
        anyone = tuple(expected)
        return lambda fields: reach(fields, name) in anyone
    return lambda fields: bool(reach(fields, name) == expected)


def _text(value: Any) -> str:
    return "" if value is None else str(value)
