"""Undos of network faults: the packet filter's table is gone with all its rules, the proxy lets all pass."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING, Any

from blackstart.host import namespaces, netfilter, netlink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import ByHand, Outcome, Verb, Verify

_OWNER_LIMIT_S = 5.0


def _filter(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Remove a table of the packet filter: `table`, in the network `namespace` of that number.

    One that belongs to a living process cannot be removed by others: it goes with that process, which has a
    `kill` undo of its own.
    """
    table, number = str(arguments["table"]), int(arguments["namespace"])
    here = namespaces.identity(namespaces.NETWORK) == number

    def gone() -> bool:
        return _removed(table) if here else namespaces.member(namespaces.NETWORK, number) is None

    def verify() -> Outcome:
        end = time.monotonic() + _OWNER_LIMIT_S
        while not (done := gone()) and time.monotonic() < end:
            time.sleep(0.001)
        return done, {"table": table} if here else {"table": table, "namespace_gone": done}

    return verify


def _proxy(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Have a proxy take the fault `by` from its links: `pid`. One that is gone breaks nothing any more."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(_OWNER_LIMIT_S)
    try:
        link.connect(f"\0blackstart-proxy-{int(arguments['pid'])}")
    except ConnectionRefusedError:
        link.close()
        return lambda: (True, {"gone": True})
    with contextlib.suppress(ConnectionError):  # it ends just now: seen when the answer is read
        link.sendall(json.dumps({"by": arguments["by"]}).encode() + b"\n")

    def verify() -> Outcome:
        with link:
            said = link.recv(64).decode().strip()
        return said == "released", {"answer": said}

    return verify


def _removed(table: str) -> bool:
    """Remove it, unless it is somebody's: to try in vain takes the kernel ten milliseconds."""
    with netlink.netfilter() as link:
        owned = netfilter.owned(link, table)
        if owned is False:
            with contextlib.suppress(PermissionError):
                netfilter.remove(link, table)
                return True
    return owned is None


VERBS: dict[str, Verb] = {"filter": _filter, "proxy": _proxy}
BY_HAND: dict[str, ByHand] = {"filter": lambda arguments: f"nft delete table inet {arguments['table']}"}
