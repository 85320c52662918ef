"""A little netlink: messages and attributes as bytes, requests and their answers. Standard library only.

The guardian and the queue server speak it, too: it has to be quick to import, and to need no event loop.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NETFILTER = 12
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
CREATE, APPEND = 0x400, 0x800
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_NESTED = 0x8000
_ROOM = 1 << 18
_LIMIT_S = 3.0


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, *inside: bytes) -> bytes:
    """One attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(inside))


def text(kind: int, value: str) -> bytes:
    """One attribute that holds a name."""
    return attribute(kind, value.encode() + b"\0")


def be32(kind: int, value: int) -> bytes:
    """One attribute that holds a number in network order."""
    return attribute(kind, struct.pack(">I", value))


def message(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """One message."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, number, 0) + payload


def acknowledged(one: bytes) -> bytes:
    """Ask for an answer to a message, also where it succeeds."""
    length, kind, flags, number, port = _HEADER.unpack_from(one)
    return _HEADER.pack(length, kind, flags | ACK, number, port) + one[_HEADER.size :]


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Take a datagram apart: kind, number and payload of each message."""
    begin = 0
    while begin + _HEADER.size <= len(data):
        length, kind, _, number, _ = _HEADER.unpack_from(data, begin)
        if length < _HEADER.size:
            return
        yield kind, number, data[begin + _HEADER.size : begin + length]
        begin += (length + 3) & ~3


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Take attributes apart."""
    begin = 0
    while begin + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, begin)
        if length < 4:  # noqa: PLR2004 - the head of an attribute
            return
        yield kind & 0x3FFF, data[begin + 4 : begin + length]
        begin += (length + 3) & ~3


def netfilter() -> socket.socket:
    """Open a socket to the packet filter. Raises OSError."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
    link.bind((0, 0))
    link.settimeout(_LIMIT_S)
    return link


def ask(link: socket.socket, parts: Iterable[bytes], *, acknowledgements: int) -> None:
    """Send messages at once and wait until so many are acknowledged. Raises OSError."""
    link.send(b"".join(parts))
    try:
        while acknowledgements > 0:
            for kind, _, payload in messages(link.recv(_ROOM)):
                if kind == _ERROR:
                    _raise(payload)
                    acknowledgements -= 1
    except OSError:
        _drain(link)
        raise


def dump(link: socket.socket, request: bytes) -> list[bytes]:
    """Send one request and return the payloads of all answers. Raises OSError."""
    link.send(request)
    found: list[bytes] = []
    while True:
        for kind, _, payload in messages(link.recv(_ROOM)):
            if kind == _DONE:
                return found
            if kind == _ERROR:
                _raise(payload)
                return found
            found.append(payload)


def _drain(link: socket.socket) -> None:
    """Throw the other answers of a failed batch away; they are there, because the kernel answers at once."""
    link.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while link.recv(_ROOM):
            continue
    link.settimeout(_LIMIT_S)


def _raise(payload: bytes) -> None:
    (code,) = struct.unpack_from("=i", payload)
    if code:
        raise OSError(-code, os.strerror(-code))
