"""One text for one value, whoever wrote it down.

Sso that the two sides of a stream can be compared byte by byte.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DECIMAL = re.compile(r"-?\d+\.\d+")
_SIDES = {True: "true", False: "false"}


def text(value: Any) -> str:  # noqa: PLR0911 - one line a type
    """Return the canonical text of a value.

    `7`, `7.0`, `Decimal("7.00")` and `"7.00"` are one, as are bytes and their text.
    """
    if isinstance(value, str):
        return _number(Decimal(value)) if _DECIMAL.fullmatch(value) else value
    if value is None:
        return ""
    if isinstance(value, bool):
        return _SIDES[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(Decimal(repr(value)))
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return text(bytes(value).decode("utf-8", "backslashreplace"))
    return msgspec.json.encode(value, order="sorted", enc_hook=str).decode()


def content(record: Mapping[str, Any], fields: Iterable[str], rename: Mapping[str, str] | None = None) -> str:
    """Return the canonical text of several fields. `rename` says what a field is called in this record."""
    names = rename or {}
    values = [text(record.get(names.get(field, field))) for field in fields]
    return msgspec.json.encode(values).decode()


def _number(value: Decimal) -> str:
    if not value.is_finite():
        return str(value)
    plain = format(value, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in {"-0", ""} else plain
