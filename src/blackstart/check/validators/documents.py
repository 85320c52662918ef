"""How validators get at documents, and become checks: what was not read is UNKNOWN."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from blackstart.check.facts import Facts
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from blackstart.model.record import StateRead

T = TypeVar("T")
AHEAD_NS = 50_000_000
Body = Callable[[Facts], Iterable[Finding]]
Validator = Callable[[Facts], CheckResult]


class UnreadError(Exception):
    """A document that nobody read, or that is none."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def validator(name: str) -> Callable[[Body], Validator]:
    """Make a check of a function that yields findings; what it found before documents ran out stays."""

    def wrap(body: Body) -> Validator:
        @functools.wraps(body)
        def check(facts: Facts) -> CheckResult:
            return conclude(name, _until_unread(body(facts)))

        return check

    return wrap


def _until_unread(findings: Iterable[Finding]) -> Iterator[Finding]:
    try:
        yield from findings
    except UnreadError as error:
        yield Finding(verdict=Verdict.UNKNOWN, code=error.code, text=str(error))


def fail(code: str, text: str, **data: Any) -> Finding:
    """Something is wrong."""
    return Finding(verdict=Verdict.FAIL, code=code, text=text, data=data)


def unknown(code: str, text: str, **data: Any) -> Finding:
    """Something could not be seen."""
    return Finding(verdict=Verdict.UNKNOWN, code=code, text=text, data=data)


def remark(code: str, text: str, **data: Any) -> Finding:
    """Something worth saying that decides nothing."""
    return Finding(verdict=Verdict.PASS, code=code, text=text, data=data)


def twice(keys: Iterable[str], what: str) -> Iterable[Finding]:
    """Fail what a document names more than once, because nobody knows which of them counts."""
    for key, count in Counter(keys).items():
        if count > 1:
            yield fail("duplicate-entry", f"{what} {key} is named {count} times", key=key, count=count)


def gone(before: Iterable[str], now: Iterable[str], what: str) -> Iterable[Finding]:
    """Fail what was named before the fault and is not any more: what is not named cannot be wrong."""
    for key in sorted(set(before) - set(now)):
        yield fail("entry-missing", f"{what} {key}: was there before the fault", key=key)


def ahead(stamp_ns: int, read_ns: int, what: str) -> Iterable[Finding]:
    """Fail a stamp from the future: it would look fresh for ever."""
    if stamp_ns - read_ns > AHEAD_NS:
        text = f"{what}: stamped {(stamp_ns - read_ns) / 1e9:.3f} s after it was read"
        yield fail("future-stamp", text, ahead_ns=stamp_ns - read_ns)


def raw(facts: Facts, name: str, *, side: str = "target", moment: str = "after") -> tuple[Any, StateRead]:
    """Return a document and how it was read. Raises UnreadError."""
    read = facts.state(side, name, moment=moment)
    what = f"{side} document '{name}' ({moment})"
    if read is None:
        raise UnreadError("not-read", f"{what} was not read")
    if read.error is not None:
        raise UnreadError("not-read", f"{what} could not be read: {read.error}")
    if read.document is None:
        raise UnreadError("not-read", f"{what} is empty")
    return read.document, read


def document(facts: Facts, name: str, kind: type[T], *, side: str = "target", moment: str = "after") -> T:
    """Return a document in its documented shape. Raises UnreadError naming the field that is not."""
    found, _ = raw(facts, name, side=side, moment=moment)
    return shaped(found, kind, f"{side} document '{name}' ({moment})")


def earlier(facts: Facts, name: str, kind: type[T]) -> Generator[Finding, None, T | None]:
    """Return the document from before the fault; without it nobody compared anything with it: UNKNOWN."""
    try:
        return document(facts, name, kind, moment="before")
    except UnreadError as error:
        yield unknown(error.code, f"{error}: nothing from before the fault to compare with")
        return None


def optional(facts: Facts, name: str, kind: type[T], *, moment: str = "after") -> T | None:
    """Return a document of the target, or None when there is none to be had."""
    try:
        return document(facts, name, kind, moment=moment)
    except UnreadError:
        return None


def shaped(found: Any, kind: type[T], what: str) -> T:
    """Convert to a shape. Raises UnreadError."""
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise UnreadError("malformed-document", f"{what}: {error}") from error
