"""QuickFIX as a member, in a process of its own: commands on standard input, events on standard output.

Ended with `quit` or a signal, without QuickFIX's own `stop`, which crashes now and then under Python.
"""

import json
import os
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import quickfix as fix

_print_lock = threading.Lock()
TOLD = (35, 11, 41, 17, 150, 39, 14, 151, 6, 31, 32, 37, 43, 58, 102, 103, 911, 380)


def tell(event: str, **values: object) -> None:
    """Write one line; callbacks come from several threads."""
    with _print_lock:
        print(json.dumps({"event": event, **values}), flush=True)


def fields_of(text: str) -> dict[str, str]:
    """Give the fields worth telling."""
    pairs = [field.partition("=") for field in text.split("\x01") if field]
    return {tag: value for tag, _, value in reversed(pairs) if tag.isdecimal() and int(tag) in TOLD}


class Application(fix.Application):
    """Tells everything."""

    session_id = None

    def onCreate(self, session_id: object) -> None:  # noqa: D102, N802
        self.session_id = session_id

    def onLogon(self, session_id: object) -> None:  # noqa: ARG002, D102, N802
        tell("logon")

    def onLogout(self, session_id: object) -> None:  # noqa: ARG002, D102, N802
        tell("logout")

    def toAdmin(self, message: Any, session_id: object) -> None:  # noqa: ARG002, D102, N802
        fields = fields_of(message.toString())
        if fields["35"] == "3":
            tell("reject_sent", **fields)

    def fromAdmin(self, message: Any, session_id: object) -> None:  # noqa: ARG002, D102, N802
        fields = fields_of(message.toString())
        if fields["35"] == "3":
            tell("reject_received", **fields)

    def toApp(self, message: object, session_id: object) -> None:  # noqa: D102, N802
        pass

    def fromApp(self, message: Any, session_id: object) -> None:  # noqa: ARG002, D102, N802
        tell("message", **fields_of(message.toString()))


def message(fields: dict[str, str]) -> Any:
    """Make a message; "35" is its type."""
    result = fix.Message()
    result.getHeader().setField(fix.StringField(35, fields.pop("35")))
    now = datetime.now(UTC).strftime("%Y%m%d-%H:%M:%S.000")
    for tag, value in {"60": now, **fields}.items():
        result.setField(fix.StringField(int(tag), value))
    return result


def main(settings_file: str) -> None:
    """Serve one session until told to quit."""
    application = Application()
    settings = fix.SessionSettings(settings_file)
    store, log = fix.FileStoreFactory(settings), fix.FileLogFactory(settings)
    engine = fix.SocketInitiator(application, store, settings, log)
    engine.start()
    for line in sys.stdin:
        command = json.loads(line)
        if command == "logout":
            fix.Session.lookupSession(application.session_id).logout("done")
        elif command == "quit":
            break
        else:
            fix.Session.sendToTarget(message(command), application.session_id)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
