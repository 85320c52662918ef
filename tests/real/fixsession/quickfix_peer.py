"""QuickFIX in a process of its own: told what to do on standard input, tells what it saw on standard output.

It is ended with `quit` or a signal, without its own `stop`, which crashes now and then under Python.
"""

import json
import os
import sys
import threading
from datetime import UTC, datetime

import quickfix as fix

ORDER = [(21, "1"), (55, "ALFA"), (54, "1"), (38, "100"), (40, "2"), (44, "10.5"), (59, "0")]
REPORT = [
    (37, "O1"),
    (11, "a"),
    (150, "0"),
    (39, "0"),
    (55, "ALFA"),
    (54, "1"),
    (38, "100"),
    (151, "100"),
    (14, "0"),
    (6, "0"),
]
_print_lock = threading.Lock()


def tell(event: str, **values: object) -> None:
    """Write one line; callbacks come from several threads."""
    with _print_lock:
        print(json.dumps({"event": event, **values}), flush=True)


def field(text: str, tag: int) -> str:
    """Find a field in a message's text."""
    return text.partition(f"\x01{tag}=")[2].partition("\x01")[0]


class Application(fix.Application):
    """Tells everything."""

    session_id = None

    def onCreate(self, session_id: object) -> None:  # noqa: D102, N802
        self.session_id = session_id

    def onLogon(self, session_id: object) -> None:  # noqa: ARG002, D102, N802
        tell("logon")

    def onLogout(self, session_id: object) -> None:  # noqa: ARG002, D102, N802
        tell("logout")

    def toAdmin(self, message: object, session_id: object) -> None:  # noqa: ARG002, D102, N802
        self._look_for_reject(message.toString(), "sent")

    def fromAdmin(self, message: object, session_id: object) -> None:  # noqa: ARG002, D102, N802
        self._look_for_reject(message.toString(), "got")

    def toApp(self, message: object, session_id: object) -> None:  # noqa: D102, N802
        pass

    def fromApp(self, message: object, session_id: object) -> None:  # noqa: ARG002, D102, N802
        text = message.toString()
        key = field(text, 17 if field(text, 35) == "8" else 11)
        tell("received", key=key, duplicate=field(text, 43) == "Y")

    def _look_for_reject(self, text: str, how: str) -> None:
        if field(text, 35) == "3":
            tell("problem", how=how, text=text)


def message(msg_type: str, key_tag: int, key: str, fields: list[tuple[int, str]]) -> object:
    """Make a message with this key."""
    result = fix.Message()
    result.getHeader().setField(fix.StringField(35, msg_type))
    now = datetime.now(UTC).strftime("%Y%m%d-%H:%M:%S.000")
    for tag, value in [(key_tag, key), (60, now), *fields]:
        result.setField(fix.StringField(tag, value))
    return result


def main(role: str, settings_file: str) -> None:
    """Serve one session until told to quit."""
    application = Application()
    settings = fix.SessionSettings(settings_file)
    kind = fix.SocketInitiator if role == "initiator" else fix.SocketAcceptor
    store, log = fix.FileStoreFactory(settings), fix.FileLogFactory(settings)
    engine = kind(application, store, settings, log)
    engine.start()
    tell("started")
    for line in sys.stdin:
        word, _, key = line.strip().partition(" ")
        if word == "order":
            fix.Session.sendToTarget(message("D", 11, key, ORDER), application.session_id)
        elif word == "report":
            fix.Session.sendToTarget(message("8", 17, key, REPORT), application.session_id)
        elif word == "logout":
            fix.Session.lookupSession(application.session_id).logout(key)
        else:
            break
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
