"""What becomes of a packet on a bad line: when it arrives, how often, and with which bits. Pure.

The times are nanoseconds of one monotonic clock; the caller brings clock and chance.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random

_MS = 1_000_000
_TCP, _UDP = 6, 17


class Shape(NamedTuple):
    """A bad line. Shares are between 0 and 1.

    `delay_ms` ± `jitter_ms` (order is kept); a share of the packets is doubled, comes `reorder_ms` late, or
    has a bit turned in its payload. With `checksum` = "wrong" the kernel finds that out and drops the packet,
    with "right" the program gets it. `bytes_per_s` is drained, what waits beyond `buffer_bytes` is lost.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_ms: float = 5.0
    corrupt: float = 0.0
    checksum: str = "wrong"
    bytes_per_s: float = 0.0
    buffer_bytes: float = 0.0

    @property
    def touches_payload(self) -> bool:
        """Whether packets must be read wholly."""
        return self.duplicate > 0 or self.corrupt > 0


class Fate(NamedTuple):
    """What becomes of one packet. `due_ns` None: it is lost. `payload` None: it stays as it is."""

    due_ns: int | None
    payload: bytes | None = None
    copies: int = 0


class Line:
    """The memory of a line: who sent last, and until when it is busy."""

    def __init__(self, shape: Shape, rng: random.Random) -> None:
        self.shape, self._rng = shape, rng
        self._last: dict[bytes, int] = {}
        self._busy: dict[bytes, int] = {}

    def pass_on(self, packet: bytes, length: int, now: int) -> Fate:
        """Decide on one packet; `length` is its whole length where `packet` is only the beginning."""
        return self.fate(_flow(packet), packet, length, now, begin=_payload(packet))

    def fate(self, flow: bytes, data: bytes, length: int, now: int, *, begin: int | None = 0) -> Fate:
        """Decide on data of one flow; `begin` is where in them the payload begins."""
        shape = self.shape
        ready = self._drained(flow, length, now)
        if ready is None:
            return Fate(None)
        jitter = self._rng.uniform(-shape.jitter_ms, shape.jitter_ms) if shape.jitter_ms else 0.0
        due = max(ready + round(max(0.0, shape.delay_ms + jitter) * _MS), self._last.get(flow, 0))
        if self._hit(shape.reorder):
            return Fate(due + round(shape.reorder_ms * _MS), copies=int(self._hit(shape.duplicate)))
        self._last[flow] = due
        payload = self._corrupted(data, begin) if self._hit(shape.corrupt) else None
        return Fate(due, payload, int(self._hit(shape.duplicate)))

    def _drained(self, flow: bytes, length: int, now: int) -> int | None:
        """When the line has carried it; None where it has no room."""
        shape = self.shape
        if not shape.bytes_per_s:
            return now
        begin = max(now, self._busy.get(flow, 0))
        if shape.buffer_bytes and (begin - now) * shape.bytes_per_s / 1e9 > shape.buffer_bytes:
            return None
        self._busy[flow] = begin + round(length * 1e9 / shape.bytes_per_s)
        return self._busy[flow]

    def _hit(self, share: float) -> bool:
        return share > 0 and self._rng.random() < share

    def _corrupted(self, packet: bytes, begin: int | None) -> bytes | None:
        """Turn one bit of the payload; None where there is none."""
        if begin is None or begin >= len(packet):
            return None
        changed = bytearray(packet)
        place = self._rng.randrange(begin, len(packet))
        changed[place] ^= 1 << self._rng.randrange(8)
        if begin and self.shape.checksum == "right":
            _seal(changed)
        return bytes(changed)


def _transport(packet: bytes | bytearray) -> int:
    return (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40  # noqa: PLR2004 - version and header of IP


def _protocol(packet: bytes | bytearray) -> int:
    return packet[9] if packet[0] >> 4 == 4 else packet[6]  # noqa: PLR2004 - see above


def _flow(packet: bytes) -> bytes:
    begin = _transport(packet)
    return packet[begin : begin + 4]


def _payload(packet: bytes) -> int | None:
    begin, protocol = _transport(packet), _protocol(packet)
    if protocol == _UDP:
        return begin + 8
    return begin + (packet[begin + 12] >> 4) * 4 if protocol == _TCP else None


def _seal(packet: bytearray) -> None:
    """Compute the checksum of TCP or UDP anew (RFC 9293, section 3.1)."""
    begin, protocol = _transport(packet), _protocol(packet)
    place = begin + (16 if protocol == _TCP else 6)
    packet[place : place + 2] = b"\0\0"
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]  # noqa: PLR2004 - see above
    data = bytes(addresses) + struct.pack(">II", len(packet) - begin, protocol) + bytes(packet[begin:])
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into(">H", packet, place, ~total & 0xFFFF or 0xFFFF)
