"""NFQUEUE: packets that the kernel hands to a program, which decides when they go on. Standard library only.

With `bypass` in the rule they pass untouched the moment the program has gone.
"""

from __future__ import annotations

import contextlib
import heapq
import random
import socket
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from blackstart.host import netlink
from blackstart.host.netfilter import MARK
from blackstart.host.netlink import attribute, be32
from blackstart.host.shaping import Line, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUEUE = 3 << 8
_PACKET, _VERDICT, _CONFIG = 0, 1, 2
_BIND, _COPY = 1, 2
_FAIL_OPEN, _WHOLE = 1, 4
_ACCEPT, _DROP = 1, 0
_SOL_NETLINK, _NO_ENOBUFS, _RCVBUFFORCE = 270, 5, 33
_ROOM = 1 << 17
_BUFFER = 1 << 25
_LONGEST = 32_768
_HEADS = 128
_AT_ONCE = 64
_AT_MOST = 1 << 17
_MOST = 0xFFFF - 4
"""So many bytes has a verdict room for. A full packet of the loopback interface is longer."""


class Queue:
    """One bound queue and the packets that it holds back."""

    def __init__(self, number: int, shape: Shape, seed: int) -> None:
        """Bind it. Raises OSError: no right, no such part of the kernel, or the number is in use."""
        self.number = number
        self.line = Line(shape, random.Random(seed))
        self.met = self.late = self.lost = self.changed = self.doubled = 0
        self._held: list[tuple[int, int, int, bytes | None, bytes, int]] = []
        self._order = 0
        self.link = netlink.netfilter()
        try:
            self._configure(shape)
        except BaseException:
            self.link.close()
            raise
        self._raw = _raw_socket() if shape.touches_payload else None

    def _configure(self, shape: Shape) -> None:
        self.link.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
        try:
            self.link.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BUFFER)
        except PermissionError:  # in a user namespace
            self.link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        length = 0xFFFF if shape.touches_payload else _HEADS
        # Segments that the kernel has not yet cut apart stay whole, unless their bytes are to be changed.
        flags = _FAIL_OPEN | (0 if shape.touches_payload else _WHOLE)
        netlink.ask(
            self.link,
            [
                self._config(attribute(1, struct.pack(">BxH", _BIND, 0))),
                self._config(attribute(2, struct.pack(">IB", length, _COPY)), be32(3, _LONGEST)),
                self._config(be32(4, _FAIL_OPEN | _WHOLE), be32(5, flags)),
            ],
            acknowledgements=3,
        )
        self.link.setblocking(False)

    def _config(self, *inside: bytes) -> bytes:
        return self._message(_CONFIG, b"".join(inside), netlink.REQUEST | netlink.ACK)

    def _message(self, kind: int, payload: bytes, flags: int = netlink.REQUEST) -> bytes:
        head = struct.pack(">BBH", 0, 0, self.number)
        return netlink.message(_QUEUE | kind, flags, 0, head + payload)

    def take(self) -> bool:
        """Take in what has come, up to some, and decide on it; returns whether there may be more."""
        for _ in range(_AT_ONCE):
            try:
                data = self.link.recv(_ROOM)
            except BlockingIOError:
                return False
            now = time.monotonic_ns()
            for packet in _packets(data):
                self._decide(packet, now)
        return True

    def _decide(self, packet: _Packet, now: int) -> None:
        self.met += 1
        fate = self.line.pass_on(packet.data, packet.length, now)
        if fate.due_ns is None:
            self.lost += 1
            self._say([self._verdict(packet.number, _DROP, None)])
            return
        payload = fate.payload
        if payload is not None and len(payload) > _MOST and not _is_ipv4(payload):
            payload = None  # neither a verdict nor a socket could carry it
        self.late += fate.due_ns > now
        self.changed += payload is not None
        self._order += 1
        copy = packet.data if fate.copies else b""
        entry = (fate.due_ns, self._order, packet.number, payload, copy, fate.copies)
        heapq.heappush(self._held, entry)

    def wait_s(self) -> float | None:
        """How long until the next one is due; None while none is held."""
        return max(0, self._held[0][0] - time.monotonic_ns()) / 1e9 if self._held else None

    def release(self, *, all_of_them: bool = False) -> None:
        """Let go what is due, in order."""
        now = time.monotonic_ns()
        verdicts: list[bytes] = []
        copies: list[bytes] = []
        instead: list[bytes] = []
        while self._held and (all_of_them or self._held[0][0] <= now) and len(verdicts) < _AT_ONCE:
            _, _, number, payload, copy, times = heapq.heappop(self._held)
            if payload is not None and len(payload) > _MOST:
                verdicts.append(self._verdict(number, _DROP, None))
                instead.append(payload)
            else:
                verdicts.append(self._verdict(number, _ACCEPT, payload))
            copies += [copy] * times
        self._say(verdicts)
        for packet in instead:
            self._send(packet)
        self.doubled += sum(self._send(copy) for copy in copies)

    def let_go(self) -> bool:
        """Let everything go, as it is and in its order: what is held, and some of what has come since.

        Returns whether there may be more.
        """
        self.line.shape = Shape()
        more = self.take()
        while self._held:
            self.release(all_of_them=True)
        return more

    @property
    def held(self) -> int:
        """How many are held back now."""
        return len(self._held)

    def _say(self, verdicts: list[bytes]) -> None:
        """Tell the kernel, with as much at once as its socket takes."""
        waiting = bytearray()
        for number, one in enumerate(verdicts, 1):
            waiting += one
            if number == len(verdicts) or len(waiting) + len(verdicts[number]) > _AT_MOST:
                with contextlib.suppress(FileNotFoundError):  # a packet whose card has gone
                    self.link.send(waiting)
                waiting.clear()

    def _verdict(self, number: int, verdict: int, payload: bytes | None) -> bytes:
        body = attribute(2, struct.pack(">II", verdict, number))
        return self._message(_VERDICT, body + (attribute(10, payload) if payload is not None else b""))

    def _send(self, packet: bytes) -> bool:
        """Send one past our own rule; IPv4 only: IPv6 has no such sockets. Says whether it went out."""
        if self._raw is None or not _is_ipv4(packet):
            return False
        with contextlib.suppress(OSError):
            self._raw.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
            return True
        return False


class _Packet(NamedTuple):
    number: int
    length: int
    data: bytes


def _packets(data: bytes) -> Iterator[_Packet]:
    for kind, _, payload in netlink.messages(data):
        if kind == _QUEUE | _PACKET:
            found = dict(netlink.attributes(payload[4:]))
            body = found[10]
            length = int.from_bytes(found[13], "big") if 13 in found else len(body)  # noqa: PLR2004 - CAP_LEN
            yield _Packet(int.from_bytes(found[1][:4], "big"), length, body)


def _is_ipv4(packet: bytes) -> bool:
    return packet[0] >> 4 == 4  # noqa: PLR2004 - the version of IP


def _raw_socket() -> socket.socket:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    return raw
