"""Change the bytes of an encoded FIX message: what a broken counterparty would send."""

from fixsession.clock import format_utc, parse_utc
from fixsession.codec import decode, encode
from paperexchange.gateway.store import field


def with_field(data: bytes, tag: int, value: str) -> bytes:
    """Give the message with another value in `tag` (all occurrences) and a right length and checksum."""
    pairs = decode(data).pairs
    return encode([(t, value if t == tag else v) for t, v in pairs])


def skewed(data: bytes, tag: int, skew_ms: float) -> bytes:
    """Give the message with the time in `tag` moved by `skew_ms`; unchanged when it has no such time."""
    wall_ns = parse_utc(field(data, str(tag).encode()))
    if wall_ns is None:
        return data
    return with_field(data, tag, format_utc(wall_ns + int(skew_ms * 1e6)))


def corrupted(data: bytes) -> bytes:
    """Give the message with one bit of its body flipped; the checksum no longer fits."""
    place = len(data) // 2
    while data[place] in b"\x01=":
        place += 1
    return data[:place] + bytes([data[place] ^ 0x04]) + data[place + 1 :]
