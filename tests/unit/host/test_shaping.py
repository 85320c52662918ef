"""Bad lines as pure rules: when a packet arrives, how often, and with which bits."""

from __future__ import annotations

import random
import struct

import pytest

from blackstart.host.shaping import Line, Shape

MS = 1_000_000


def packet(payload: bytes, *, protocol: int = 17, flow: tuple[int, int] = (1000, 2000)) -> bytes:
    """Make an IPv4 packet with a right checksum."""
    head = struct.pack(">HH", *flow)
    if protocol == 17:
        body = bytearray(head + struct.pack(">HH", 8 + len(payload), 0) + payload)
        place = 6
    else:
        body = bytearray(head + bytes(8) + bytes([5 << 4, 0]) + bytes(6) + payload)
        place = 16
    struct.pack_into(">H", body, place, checksum(bytes(body), protocol))
    ip = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0, b"\x7f\0\0\1", b"\x7f\0\0\1"
    )
    return ip + bytes(body)


def checksum(body: bytes, protocol: int) -> int:
    """Sum as RFC 768 and RFC 9293 say, the plain way."""
    data = b"\x7f\0\0\1\x7f\0\0\1" + struct.pack(">BBH", 0, protocol, len(body)) + body
    total = sum(int.from_bytes(data[k : k + 2].ljust(2, b"\0"), "big") for k in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF


def line(**shape: float | str) -> Line:
    """Make a line with a fixed chance."""
    return Line(Shape(**shape), random.Random(5))  # type: ignore[arg-type]


def test_jitter_varies_the_delay_and_keeps_the_order_of_a_flow() -> None:
    """Each packet comes within delay ± jitter of its sending or of the one before it, and none overtakes."""
    bad = line(delay_ms=10, jitter_ms=5)
    due = [bad.pass_on(packet(b"x"), 40, now * MS).due_ns or 0 for now in range(200)]
    assert due == sorted(due)
    assert len(set(due)) > 50
    assert all(5 * MS <= one - now * MS <= 15 * MS for now, one in enumerate(due))


def test_flows_do_not_wait_for_each_other() -> None:
    """A full line of one connection does not hold up another."""
    bad = line(bytes_per_s=1000)
    assert bad.pass_on(packet(b"x", flow=(1, 2)), 1000, 0).due_ns == 1000 * MS
    assert bad.pass_on(packet(b"x", flow=(3, 2)), 1000, 0).due_ns == 1000 * MS
    assert bad.pass_on(packet(b"x", flow=(1, 2)), 1000, 0).due_ns == 2000 * MS


def test_what_waits_beyond_the_buffer_is_lost() -> None:
    """A narrow line with a buffer drops the tail, and takes packets again when it has room."""
    bad = line(bytes_per_s=1000, buffer_bytes=1500)
    fates = [bad.pass_on(packet(b"x"), 1000, 0).due_ns for _ in range(4)]
    assert fates == [1000 * MS, 2000 * MS, None, None]
    assert bad.pass_on(packet(b"x"), 1000, 1000 * MS).due_ns == 3000 * MS


def test_shares_are_kept() -> None:
    """Doubled, late and damaged packets are as many as was asked, within chance."""
    bad = line(duplicate=0.2, reorder=0.1, reorder_ms=7)
    fates = [bad.pass_on(packet(b"x"), 40, 0) for _ in range(2000)]
    assert 300 < sum(one.copies for one in fates) < 500
    assert 140 < sum(one.due_ns == 7 * MS for one in fates) < 260


@pytest.mark.parametrize("protocol", [6, 17])
@pytest.mark.parametrize("payload", [b"even", b"odd"])
def test_exactly_one_bit_of_the_payload_turns(protocol: int, payload: bytes) -> None:
    """The headers stay; with `right` the checksum fits the damaged bytes, with `wrong` the old ones."""
    whole = packet(payload, protocol=protocol)
    begin = len(whole) - len(payload)
    for kind in ("wrong", "right"):
        changed = line(corrupt=1, checksum=kind).pass_on(whole, len(whole), 0).payload
        assert changed is not None
        turned = int.from_bytes(whole[begin:], "big") ^ int.from_bytes(changed[begin:], "big")
        assert turned.bit_count() == 1
        place = 20 + (16 if protocol == 6 else 6)
        if kind == "wrong":
            assert changed[:begin] == whole[:begin]
        else:
            blank = changed[20:place] + b"\0\0" + changed[place + 2 :]
            assert int.from_bytes(changed[place : place + 2], "big") == checksum(blank, protocol)
            assert changed[:place] == whole[:place]


def test_a_packet_without_payload_stays_as_it_is() -> None:
    """A bare acknowledgement has nothing to be damaged."""
    bare = packet(b"", protocol=6)
    assert line(corrupt=1).pass_on(bare, len(bare), 0).payload is None
