"""Undos over plain HTTP: ask a server to take back what it was told to do."""

from __future__ import annotations

import shlex
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import ByHand, Outcome, Verb, Verify

_HTTP_LIMIT_S = 3.0


def _http(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Ask over plain HTTP: `url`, `method`. A server that is gone took its misbehaviours with it."""
    url = urlsplit(str(arguments["url"]))
    address = (str(url.hostname), url.port or 80)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    head = f"{arguments.get('method', 'DELETE')} {path} HTTP/1.1\r\nHost: {url.netloc}\r\n"
    try:
        link = socket.create_connection(address, timeout=_HTTP_LIMIT_S)
        link.sendall(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
    except ConnectionError as error:
        gone = {"gone": str(error)}
        return lambda: (True, gone)

    def verify() -> Outcome:
        line = _first_line(link)
        if not line:  # it may have died with the request in its hands
            return _refuses(address), {"answer": "none: the server went away"}
        return line.split(" ")[1:2] in (["200"], ["202"], ["204"], ["404"]), {"answer": line}

    return verify


def _first_line(link: socket.socket) -> str:
    try:
        with link:
            return link.recv(65536).split(b"\r\n", 1)[0].decode(errors="replace")
    except ConnectionError:
        return ""


def _refuses(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=_HTTP_LIMIT_S).close()
    except ConnectionError:
        return True
    return False


BY_HAND: dict[str, ByHand] = {
    "http": lambda arguments: f"curl -X {arguments.get('method', 'DELETE')} {shlex.quote(arguments['url'])}"
}
VERBS: dict[str, Verb] = {"http": _http}
