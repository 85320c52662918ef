"""Compare two snapshots of a system's state by meaning, entries by identity (`blackstart diff`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

IDENTITIES: tuple[tuple[str, ...], ...] = (
    ("cl_ord_id",),
    ("exec_id",),
    ("symbol", "name"),
    ("component", "name"),
    ("kind", "name"),
    ("symbol",),
    ("name",),
    ("id",),
    ("key",),
)
PASSING = ("mono_ns", "wall_ns")
"""A stamp moves on by itself: fields that are, or end in, one of these are not compared."""


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> CheckResult:
    """Compare two snapshots (document name to document).

    A difference is a FAIL; what one side could not read is UNKNOWN.
    """
    findings = [f for name in sorted({*before, *after}) for f in _document(name, before, after)]
    return conclude("diff", findings, looked=bool(before) and bool(after))


def _document(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Finding]:
    for side, snapshot in (("first", before), ("second", after)):
        if snapshot.get(name) is None:
            text = f"{name}: not in the {side} snapshot"
            yield Finding(verdict=Verdict.UNKNOWN, code="not-read", text=text)
            return
    for place, old, new in differences(before[name], after[name], name):
        data = {"place": place, "before": old, "after": new}
        yield Finding(verdict=Verdict.FAIL, code="differs", text=_text(place, old, new), data=data)


def _text(place: str, old: Any, new: Any) -> str:
    if old is None:
        return f"{place}: new ({plain(new)})"
    was = plain(old)
    return f"{place}: gone (was {was})" if new is None else f"{place}: {was} → {plain(new)}"


def plain(value: Any) -> str:
    """Write a value as people read it: `symbol=ALFA quantity=300`, lists and what is nested in brackets."""
    if isinstance(value, dict):
        return " ".join(f"{key}={_nested(one)}" for key, one in value.items()) or "empty"
    return _nested(value)


def _nested(value: Any) -> str:
    if isinstance(value, dict):
        return f"({plain(value)})"
    if isinstance(value, list):
        return f"[{', '.join(map(_nested, value))}]"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def differences(old: Any, new: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield (place, before, after) for everything that differs; None stands for what is not there."""
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _mappings(old, new, place, ".")
    elif isinstance(old, list) and isinstance(new, list):
        identity = _identity([*old, *new])
        if identity is None:
            yield from _mappings(dict(enumerate(old)), dict(enumerate(new)), place, "#")
        else:
            ours, theirs = ({_key(one, identity): one for one in side} for side in (old, new))
            yield from _mappings(ours, theirs, place, "/")
    elif old != new or isinstance(old, bool) is not isinstance(new, bool):
        yield place, old, new


def _mappings(
    old: Mapping[Any, Any], new: Mapping[Any, Any], place: str, sign: str
) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys([*old, *new]):
        if not str(key).endswith(PASSING):
            yield from differences(old.get(key), new.get(key), f"{place}{sign}{key}")


def _identity(entries: Iterable[Any]) -> tuple[str, ...] | None:
    """Return the fields that tell the entries of a list apart; None when nothing does."""
    found = list(entries)
    if not found or not all(isinstance(one, dict) for one in found):
        return None
    return next((names for names in IDENTITIES if all(all(n in one for n in names) for one in found)), None)


def _key(entry: Mapping[str, Any], identity: tuple[str, ...]) -> str:
    return " ".join(str(entry[name]) for name in identity)
