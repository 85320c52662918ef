"""One text for one value, whoever wrote it down.

So that the two sides of a stream can be compared byte by byte.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SIDES = {True: "true", False: "false"}


def text(value: Any) -> str:  # noqa: PLR0911 - one line a type
    """Return the canonical text of a value.

    A text stays as it is: `"3.10"` and `"3.1"` are two. A number has one shortest decimal text, whatever its
    type: `7`, `7.0` and `Decimal("7.00")` are the text `"7"`. Bytes are their text.
    """
    if isinstance(value, str):
        return value
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
        return bytes(value).decode("utf-8", "backslashreplace")
    return msgspec.json.encode(value, order="sorted", enc_hook=str).decode()


def content(
    record: Mapping[str, Any],
    fields: Iterable[str],
    rename: Mapping[str, str] | None = None,
    *,
    stream: str = "",
) -> str:
    """Return the canonical text of several fields. `rename` says what a field is called in this record.

    Raises TargetError when the record has not one of them: nothing could be said about its content.
    """
    values = [text(field(record, name, rename, stream=stream)) for name in fields]
    return msgspec.json.encode(values).decode()


def field(
    record: Mapping[str, Any], name: str, rename: Mapping[str, str] | None = None, *, stream: str = ""
) -> Any:
    """Return the field of an event that the manifest names. Raises TargetError naming field and stream."""
    called = (rename or {}).get(name, name)
    if called not in record:
        raise TargetError(
            f"an event without the field `{called}`: it has {sorted(map(str, record))}",
            where=f"streams.{stream}" if stream else "",
            hint="what is not there cannot be compared: name the right field, or say its name in `rename`",
        )
    return record[called]


def _number(value: Decimal) -> str:
    if not value.is_finite():
        return str(value)
    plain = format(value, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in {"-0", ""} else plain
