"""What may stand at a place of a document: for errors that give what is allowed and what was meant."""

from __future__ import annotations

import difflib
import math
import re
import types
import typing
from typing import Any

import msgspec

if typing.TYPE_CHECKING:
    from collections.abc import Iterator

NOT_SUGGESTED = ("production",)
"""What nobody may come to by way of a misspelling: it is where things are broken that earn money."""

_ENUM = re.compile(r"^Invalid enum value '?([^']*)'?$")


def type_at(root: Any, path: str) -> Any:
    """Walk from a struct along `a.b[...]` to the type wanted there; None when there is no such place."""
    kind = root
    for part in re.findall(r"[^.\[\]]+", path):
        kind = _inside(kind, part)
    return _given(kind)


def allowed(root: Any, path: str, message: str) -> str:
    """Return what an enum at `path` may be, and which value was meant; empty for another `message`."""
    wrong = _ENUM.match(message)
    kind = type_at(root, path)
    if wrong is None or typing.get_origin(kind) is not typing.Literal:
        return ""
    values = [str(value) for value in typing.get_args(kind)]
    suggested = [value for value in values if value not in NOT_SUGGESTED]
    close = difflib.get_close_matches(wrong.group(1), suggested, n=1, cutoff=0.5)
    meant = f"did you mean '{close[0]}'? " if close else ""
    return f"{meant}allowed: {', '.join(repr(value) for value in values)}"


_HANDED_ON = ("where", "keep", "settings", "parameters", "stop_status")
"""Tables of others and exit statuses, whose numbers mean what those say."""


def no_amounts(document: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Name every number that is no amount, and what is wrong: it would silently disable what it limits."""
    if isinstance(document, int | float):
        if not math.isfinite(document) or document < 0:
            yield key, f"{document} is no amount; write a finite number, 0 or more"
        return
    inner: Iterator[tuple[str, Any]] = iter(())
    if isinstance(document, msgspec.Struct):
        names = (name for name in document.__struct_fields__ if name not in _HANDED_ON)
        inner = ((name, getattr(document, name)) for name in names)
    elif isinstance(document, dict):
        inner = ((str(name), value) for name, value in document.items())
    elif isinstance(document, tuple | list):
        inner = ((f"[{number}]", value) for number, value in enumerate(document))
    for name, value in inner:
        yield from no_amounts(value, f"{key}.{name}".replace(".[", "[").lstrip("."))


def _given(kind: Any) -> Any:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return next(one for one in typing.get_args(kind) if one is not type(None))
    return kind


def _inside(kind: Any, part: str) -> Any:
    kind = _given(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return typing.get_type_hints(kind).get(part)
    arguments = typing.get_args(kind)
    return arguments[0 if typing.get_origin(kind) is tuple else -1] if arguments else None
