"""Undo of rules for system calls: the supervisor is asked to take them out (`host.seccomp`)."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import Outcome, Verb, Verify

_LIMIT_S = 5.0
_LINE = 1 << 17


def _drop(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Take rules out: `name`, `token`, `rules`.

    Without a supervisor there are none: its keeper has no rules.
    """
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.settimeout(_LIMIT_S)
    try:
        link.connect(f"\0{arguments['name']}")
    except ConnectionRefusedError:
        link.close()
        return lambda: (True, {"supervisor": "gone, and its rules with it"})
    link.send(json.dumps({"token": arguments["token"], "drop": arguments["rules"]}).encode())

    def verify() -> Outcome:
        with link:
            left = set(json.loads(link.recv(_LINE))["rules"]) & set(arguments["rules"])
        return not left, {"rules_left": sorted(left)}

    return verify


VERBS: dict[str, Verb] = {"seccomp": _drop}
