"""Plays scripted conversations against a peer: `python -m fixsession.testing.player HOST PORT SCRIPT…`."""

from __future__ import annotations

import argparse
import re
import sys
from itertools import count
from typing import TYPE_CHECKING, Protocol

from fixsession import tags
from fixsession.clock import SECOND_NS, format_utc, parse_utc
from fixsession.codec import Framer, Garbled, decode, frame, write_fields
from fixsession.errors import FixError
from fixsession.testing.script import Script, Step, parse_script, read_script
from fixsession.testing.tcp import TcpPeer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fixsession.message import Message, Pair

ORDER = "define order D 11=@id 1=FIRM 55=ALFA 54=1 38=100 40=2 44=1.00 59=0 60=@now 21=1"
_ABOUT_NS = 15 * SECOND_NS
_PLACE = re.compile(r"@id-\d+|\$[a-z]+")
_HEADER_FIRST = (tags.MSG_TYPE, tags.SENDER, tags.TARGET, tags.MSG_SEQ_NUM, tags.SENDING_TIME)


class ScriptFailure(AssertionError):  # noqa: N818  # a verdict, not an error of the player
    """The peer did something else than the script expects; the text names script, line and both messages."""


class Peer(Protocol):
    """The side that a script is played against. Connections have names."""

    def connect(self, name: str, gateway: str = "") -> None:
        """Open a connection; `gateway` names another listener of the same side."""

    def send(self, name: str, data: bytes) -> None:
        """Send bytes."""

    def receive(self, name: str, limit_s: float) -> bytes | None:
        """Give what came: bytes; empty where the other side closed; None where nothing came in time."""

    def disconnect(self, name: str) -> None:
        """Close a connection."""

    def wait(self, seconds: float) -> None:
        """Let time pass."""

    def wall_ns(self) -> int:
        """Unix time."""


class _Connection:
    """`session` is whose numbers are counted on it: a gateway and a CompID."""

    def __init__(self, session: tuple[str, str]) -> None:
        self.session = session
        self.framer = Framer()
        self.inbox: list[Message | Garbled] = []
        self.closed = False


class Player:
    """Plays one script; `sender` and `target` are the CompIDs of what it sends.

    `gateway` is the peer's name for where connections go unless a script says otherwise (`at`);
    `more` are the words that the side adds to the script form; each is given the rest of its line.
    """

    def __init__(
        self,
        peer: Peer,
        *,
        sender: str = "FIRM",
        target: str = "PAPEREX",
        limit_s: float = 5.0,
        run: str = "S",
        gateway: str = "",
        more: Mapping[str, Callable[[str], None]] | None = None,
    ) -> None:
        self._peer = peer
        self._target = target
        self._session = (gateway, sender)
        self._limit_s = limit_s
        self._run = run
        self._used_ids: list[str] = []
        self._id_count = count(1)
        self._connections: dict[str, _Connection] = {}
        self._current = "main"
        self._next: dict[tuple[str, str], int] = {}
        self._remembered: dict[str, str] = {}
        self._more = more or {}
        self._defined: dict[str, Step] = {}
        self._steps: dict[str, Callable[[Step], None]] = {
            "define": self._define,
            "at": self._at,
            "connect": self._connect,
            "use": self._use,
            "send": self._send,
            "number": self._number,
            "raw": self._raw,
            "expect": self._expect,
            "expect-garbled": self._expect_garbled,
            "expect-disconnect": self._expect_disconnect,
            "quiet": self._quiet,
            "wait": lambda step: self._peer.wait(float(step.arguments[0])),
            "disconnect": self._disconnect,
        }

    def play(self, script: Script) -> None:
        """Play a script to its end, close what it opened; raises `ScriptFailure` at the first difference."""
        try:
            for step in (*parse_script("built in", ORDER).steps, *script.steps):
                try:
                    self._do(step)
                except ScriptFailure as failure:
                    raise ScriptFailure(f"{script.name}:{step.line}: {step.text}\n  {failure}") from None
        finally:
            for name in self._connections:
                self._peer.disconnect(name)

    # ---- steps

    def _do(self, step: Step) -> None:
        if step.word in self._more:
            self._more[step.word](self._filled_in(step.arguments[0]))
        else:
            self._steps[step.word](step)

    def _filled_in(self, text: str) -> str:
        """Replace `@id-N` and `$NAME` in the argument of an added word."""
        return _PLACE.sub(lambda found: self._value(found[0]), text)

    def _at(self, step: Step) -> None:
        gateway, comp_id = (*step.arguments, self._session[1])[:2]
        self._session = (gateway, comp_id)

    def _define(self, step: Step) -> None:
        self._defined[step.arguments[0]] = step

    def _connect(self, step: Step) -> None:
        self._current = step.arguments[0] if step.arguments else "main"
        self._connections[self._current] = _Connection(self._session)
        self._peer.connect(self._current, self._session[0])

    def _use(self, step: Step) -> None:
        self._current = step.arguments[0]

    def _number(self, step: Step) -> None:
        self._next[self._connections[self._current].session] = int(step.arguments[0])

    def _raw(self, step: Step) -> None:
        self._peer.send(self._current, step.arguments[0].replace("|", "\x01").encode("latin-1"))

    def _disconnect(self, _: Step) -> None:
        self._peer.disconnect(self._current)

    def _send(self, step: Step) -> None:
        known = self._defined.get(step.arguments[0])
        msg_type = known.arguments[1] if known else step.arguments[0]
        given = {tag for tag, _ in step.fields}
        fields = [pair for pair in known.fields if pair[0] not in given] if known else []
        pairs = [(tag, self._value(value)) for tag, value in (*fields, *step.fields)]
        self._peer.send(self._current, self._encode(msg_type, pairs))

    def _encode(self, msg_type: str, pairs: list[Pair]) -> bytes:
        session = self._connections[self._current].session
        ids = (session[1], self._target)
        header = dict(zip(_HEADER_FIRST, (msg_type, *ids, "", self._value("@now")), strict=True))
        header |= {tag: value for tag, value in pairs if tag in tags.OWNED}
        if not header[tags.MSG_SEQ_NUM]:
            header[tags.MSG_SEQ_NUM] = str(self._next.get(session, 1))
            self._next[session] = self._next.get(session, 1) + 1
        begin_string = header.pop(tags.BEGIN_STRING, "FIX.4.4")
        first = [(tag, value) for tag, value in header.items() if value != "!"]
        middle = [pair for pair in pairs if pair[0] in tags.HEADER]
        body = [pair for pair in pairs if pair[0] not in tags.SPECIAL]
        return frame(begin_string, write_fields([*first, *middle, *body]).encode("latin-1"))

    def _value(self, text: str) -> str:
        if text.startswith("@now"):
            return format_utc(self._peer.wall_ns() + int(float(text[4:] or 0) * SECOND_NS))
        if text == "@id":
            self._used_ids.append(f"{self._run}-{next(self._id_count)}")
            return self._used_ids[-1]
        if text.startswith("$"):
            if text[1:] not in self._remembered:
                raise ScriptFailure(f"nothing was remembered as ?{text[1:]}")
            return self._remembered[text[1:]]
        return self._used_ids[-int(text[4:])] if text.startswith("@id-") else text

    def _expect(self, step: Step) -> None:
        wanted = step.arguments[0].split(",")
        message = self._next_message(skip_heartbeats=tags.HEARTBEAT not in wanted)
        if message is None:
            closed = self._connections[self._current].closed
            raise ScriptFailure(
                "the connection was closed" if closed else "nothing came within the time limit"
            )
        if message.msg_type not in wanted:
            raise ScriptFailure(f"another message came: {message}")
        for tag, pattern in step.fields:
            if pattern.startswith("?"):
                self._remembered[pattern[1:]] = message.get(tag) or ""
                continue
            if not self._fits(message.get(tag), pattern):
                raise ScriptFailure(f"field {tag} is {message.get(tag)!r}, not {pattern!r}: {message}")

    def _fits(self, value: str | None, pattern: str) -> bool:
        if pattern.startswith("@about"):
            seen, due_ns = (
                parse_utc(value or ""),
                self._peer.wall_ns() + int(float(pattern[6:] or 0) * SECOND_NS),
            )
            return seen is not None and abs(seen - due_ns) < _ABOUT_NS
        return fits(value, self._value(pattern) if pattern[:1] in ("@", "$") else pattern)

    def _expect_garbled(self, _: Step) -> None:
        found = self._next_thing(self._limit_s)
        if not isinstance(found, Garbled):
            raise ScriptFailure(f"a sound message came, or nothing: {found}")

    def _expect_disconnect(self, _: Step) -> None:
        message = self._next_message(skip_heartbeats=True)
        if message is not None:
            raise ScriptFailure(f"a message came instead: {message}")
        if not self._connections[self._current].closed:
            raise ScriptFailure("the connection stayed open")

    def _quiet(self, step: Step) -> None:
        message = self._next_message(skip_heartbeats=True, limit_s=float(step.arguments[0]))
        if message is not None:
            raise ScriptFailure(f"a message came: {message}")
        if self._connections[self._current].closed:
            raise ScriptFailure("the connection was closed")

    # ---- receiving

    def _next_message(self, *, skip_heartbeats: bool, limit_s: float | None = None) -> Message | None:
        end_ns = self._peer.wall_ns() + int((self._limit_s if limit_s is None else limit_s) * SECOND_NS)
        while True:
            message = self._next_thing(max(0.0, (end_ns - self._peer.wall_ns()) / SECOND_NS))
            if isinstance(message, Garbled):
                raise ScriptFailure(f"garbled bytes came ({message.reason}): {message.data!r}")
            if message is None or not skip_heartbeats or message.msg_type != tags.HEARTBEAT:
                return message

    def _next_thing(self, limit_s: float) -> Message | Garbled | None:
        connection = self._connections[self._current]
        while not connection.inbox:
            data = self._peer.receive(self._current, limit_s)
            if not data:
                connection.closed = data is not None
                return None
            for found in connection.framer.feed(data):
                connection.inbox.append(found if isinstance(found, Garbled) else decode(found))
        return connection.inbox.pop(0)


def fits(value: str | None, pattern: str) -> bool:
    """Whether a value is what a script expects: `*`, `!`, `~REGEX`, or the value itself."""
    if pattern == "!" or value is None:
        return pattern == "!" and value is None
    if pattern.startswith("~"):
        return re.fullmatch(pattern[1:], value) is not None
    return pattern in ("*", value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the scripts one after the other; exit status 0: all passed, 1: some failed, 64: usage."""
    parser = argparse.ArgumentParser(prog="python -m fixsession.testing.player", description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("scripts", nargs="+", metavar="SCRIPT")
    parser.add_argument("--sender", default="FIRM", help="our CompID (default: FIRM)")
    parser.add_argument("--target", default="PAPEREX", help="the acceptor's CompID (default: PAPEREX)")
    parser.add_argument("--limit-s", type=float, default=5.0, help="longest wait for a message")
    parser.add_argument("--has", action="append", default=[], metavar="OPTION=VALUE", help="a setting it has")
    options = parser.parse_args(arguments)
    try:
        scripts = [read_script(path) for path in options.scripts]
    except (FixError, OSError) as error:
        print(error, file=sys.stderr)
        return 64
    ends = [_report(script, options) for script in scripts]
    failures = ends.count("FAIL")
    passed, skipped = ends.count("pass"), ends.count("SKIP")
    print(f"{len(scripts)} scripts: {passed} passed, {failures} failed, {skipped} skipped")
    return 1 if failures else 0


def _report(script: Script, options: argparse.Namespace) -> str:
    """Play one script and print one line; gives its first word."""
    lacking = [
        f"{name}={value}" for name, value in script.needs.items() if f"{name}={value}" not in options.has
    ]
    if lacking:
        print(f"SKIP  {script.name}: needs {' '.join(lacking)}")
        return "SKIP"
    peer = TcpPeer(options.host, options.port, limit_s=options.limit_s)
    player = Player(
        peer,
        sender=options.sender,
        target=options.target,
        limit_s=options.limit_s,
        run=f"{script.name[:20]}-{peer.wall_ns()}",
    )
    try:
        player.play(script)
    except (ScriptFailure, OSError) as failure:
        print(f"FAIL  {failure}")
        return "FAIL"
    print(f"pass  {script.name}")
    return "pass"


if __name__ == "__main__":
    sys.exit(main())
