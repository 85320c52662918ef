"""The text form of a conversation: one step a line, `#` begins a comment.

    needs OPTION=VALUE …         play only against a side with these settings (`SessionConfig`)
    define NAME TYPE FIELDS      a message to be sent by name; `order` is defined already
    at GATEWAY [COMPID]          later connections go to this gateway, and speak as this CompID
    connect [NAME]               open a connection and use it; the name is `main` unless given
    use NAME                     go on with another open connection
    send TYPE|NAME FIELDS        header and trailer are added; 34 counts by itself for gateway and CompID
    number N                     the next 34 that is counted
    raw TEXT                     these bytes, `|` for SOH, untouched
    expect TYPE[,TYPE] FIELDS    the next message; Heartbeats that nobody asked for are skipped
    expect-garbled               the next thing that comes is no sound message
    expect-disconnect            nothing more comes, the connection is closed by the other side
    quiet SECONDS                nothing comes for so long
    wait SECONDS                 time passes
    disconnect                   close the connection

A field is `TAG=VALUE`. Values: `@now`, `@now+SECONDS`, `@now-SECONDS`, `@id` (a new unique id), `@id-1` (the
latest one), `@id-2` (the one before), `$NAME` (what `?NAME` remembered). To send, `!` leaves a header field
out, and no value is checked. To expect: `*` any value, `!` absent, `~REGEX` the whole value matches, `?NAME`
any value, which is remembered, `@about-SECONDS` a time within 15 s of that. `"…"` keeps blanks. Who plays
against more than a FIX session may add words.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec

from fixsession.errors import FixError

_WORDS = {  # step: least and most arguments
    "needs": (1, 99),
    "define": (2, 99),
    "at": (1, 2),
    "connect": (0, 1),
    "use": (1, 1),
    "send": (1, 99),
    "number": (1, 1),
    "raw": (1, 1),
    "expect": (1, 99),
    "expect-garbled": (0, 0),
    "expect-disconnect": (0, 0),
    "quiet": (1, 1),
    "wait": (1, 1),
    "disconnect": (0, 0),
}
_WITH_TYPE = ("send", "expect", "define")
MoreWords = tuple[str, ...]
"""Words that the player of a certain side adds; the rest of their line is one argument, untouched."""


class Step(msgspec.Struct, frozen=True):
    """One line: what to do, the leading words, and the fields."""

    line: int
    text: str
    word: str
    arguments: list[str]
    fields: list[tuple[int, str]]


class Script(msgspec.Struct, frozen=True):
    """A whole conversation; `needs` are the settings that it supposes."""

    name: str
    steps: list[Step]
    needs: dict[str, str]


def read_script(path: Path | str, more: MoreWords = ()) -> Script:
    """Read a `.fixscript` file; raises `FixError` with the line where it is not well-formed."""
    file = Path(path)
    return parse_script(file.stem, file.read_text(encoding="utf-8"), more)


def parse_script(name: str, text: str, more: MoreWords = ()) -> Script:
    """Parse a script; raises `FixError` with the line where it is not well-formed."""
    steps = [_step(name, i, line, more) for i, line in enumerate(text.splitlines(), 1) if _bare(line)]
    needs = dict(_need(name, step, word) for step in steps if step.word == "needs" for word in step.arguments)
    return Script(name, [step for step in steps if step.word != "needs"], needs)


def _bare(line: str) -> str:
    return "" if line.lstrip().startswith("#") else line.strip()


def _step(name: str, number: int, line: str, more: MoreWords) -> Step:
    text = _bare(line)
    word, _, rest = text.partition(" ")
    least, most = (1, 1) if word in more else _WORDS.get(word, (0, -1))
    try:
        arguments = [rest.strip()] if word in ("raw", *more) and rest.strip() else _split(rest)
    except ValueError as error:
        raise FixError(f"{name}:{number}: {error}; close the quotation") from error
    if not least <= len(arguments) <= most:
        raise FixError(f"{name}:{number}: {text!r} is no step; known are {', '.join([*_WORDS, *more])}")
    leading = {"define": 2}.get(word, 1) if word in _WITH_TYPE else len(arguments)
    fields = [_field(name, number, item) for item in arguments[leading:]]
    return Step(number, text, word, arguments[:leading], fields)


def _split(text: str) -> list[str]:
    """Split at blanks outside quotation marks; a backslash belongs to a pattern."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split = True
    lexer.escape = ""
    return list(lexer)


def fields_of(text: str) -> dict[str, str]:
    """Split `NAME=VALUE …`, as in the argument of an added word."""
    pairs = (item.partition("=") for item in _split(text))
    return {name: value for name, _, value in pairs}


def _field(name: str, number: int, item: str) -> tuple[int, str]:
    tag, equals, value = item.partition("=")
    if not equals or not tag.isdecimal():
        raise FixError(f"{name}:{number}: {item!r} is no TAG=VALUE")
    return int(tag), value


def _need(name: str, step: Step, word: str) -> tuple[str, str]:
    option, equals, value = word.partition("=")
    if not equals:
        raise FixError(f"{name}:{step.line}: {word!r} is no OPTION=VALUE")
    return option, value
