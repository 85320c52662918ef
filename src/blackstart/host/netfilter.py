"""Packet filter rules for the ports of a link: drop, lose, reset, queue; and how they are taken away again.

Rules sit on the INPUT hook of the loopback interface: on OUTPUT held packets would stay charged to their
sender. Each fault has a table of its own. Standard library only: the guardian removes tables, too.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import NamedTuple

from blackstart.host import netlink
from blackstart.host.netlink import attribute, be32, nested, text

FAMILY_INET = 1
MARK = 0xB5
"""Packets with this mark were sent by us: a copy must not be copied again."""

_TABLES = 10 << 8
_BEGIN, _END = 0x10, 0x11
_NEW_TABLE, _GET_TABLE, _DEL_TABLE, _NEW_CHAIN, _NEW_RULE, _GET_RULE, _DEL_RULE = 0, 1, 2, 3, 6, 7, 8
_FLAGS, _OWNER = 2, 2
_INPUT, _CHAIN = 1, "input"
_META_MARK, _META_CARD, _META_PROTOCOL = 3, 6, 16
_EQUAL, _LESS = 0, 2
_NETWORK, _TRANSPORT = 1, 2
_DROP, _ACCEPT = 0, 1
_RESET_FLAG = 4
_MILLION = 1_000_000
_AT_ONCE = 250  # so many rules fit into the buffer of an ordinary user's socket
PROTOCOLS = {"tcp": 6, "udp": 17}


class Rule(NamedTuple):
    """What is done to the packets of one port, or of one connection.

    `side` says whose port it is: `to_server` matches the destination, `to_client` the source. `peer` is the
    other port of a connection, None for all. `share` of the packets are hit. `group` is a multicast group,
    whose port is the destination of what its server sends.
    """

    protocol: str
    port: int
    side: str
    verdict: str  # drop, reset, queue
    peer: int | None = None
    share: float = 1.0
    group: str | None = None
    queue: int = 0


class Count(NamedTuple):
    """What a rule has met, and what it has hit."""

    seen: int
    hit: int


def install(link: socket.socket, table: str, rules: list[Rule], *, owned: bool = False) -> tuple[int, int]:
    """Make a table with these rules, up to hundreds at once. Raises OSError; hundreds more may be half made.

    Returns the instants (monotonic ns) just before and just after. With `owned` the kernel removes it the
    moment `link` is closed, by whatever cause, and nobody else can.
    """
    for compatible in (False, True):
        parts = _table(table, rules, owned=owned, compatible=compatible)
        before = time.monotonic_ns()
        try:
            for begin in range(0, len(parts), _AT_ONCE):
                _batch(link, parts[begin : begin + _AT_ONCE])
        except FileNotFoundError:  # a kernel without the newer form of queues
            if compatible:
                raise
            continue
        return before, time.monotonic_ns()
    raise AssertionError("unreachable")


def _table(table: str, rules: list[Rule], *, owned: bool, compatible: bool) -> list[bytes]:
    flags = [be32(_FLAGS, _OWNER)] if owned else []
    chain = text(1, table) + text(3, _CHAIN) + nested(4, be32(1, _INPUT), be32(2, 0)) + text(7, "filter")
    return [
        _message(_NEW_TABLE, text(1, table) + b"".join(flags)),
        _message(_NEW_CHAIN, chain),
        _rule(table, [_meta(_META_MARK), _compare(struct.pack("=I", MARK)), _verdict(_ACCEPT)]),
        *(_rule(table, _expressions(rule, compatible=compatible)) for rule in rules),
    ]


def empty(link: socket.socket, table: str) -> None:
    """Take the rules away and leave the table: no packet meets them from now on. Raises OSError."""
    _batch(link, [_message(_DEL_RULE, text(1, table) + text(2, _CHAIN))])


def remove(link: socket.socket, table: str) -> bool:
    """Take a table away with all its rules; False when there is none. Raises OSError.

    The kernel drops whatever waits in a queue then, ours or another's: `empty` it first, and serve the queue.
    """
    try:
        _batch(link, [_message(_DEL_TABLE, text(1, table))])
    except FileNotFoundError:
        return False
    return True


def owned(link: socket.socket, table: str) -> bool | None:
    """Ask the kernel whether a table belongs to a socket, with which it goes; None: none. Raises OSError."""
    flags = netlink.REQUEST | netlink.ACK
    request = netlink.message(_TABLES | _GET_TABLE, flags, 1, _head(FAMILY_INET) + text(1, table))
    try:
        found = netlink.dump(link, request)
    except FileNotFoundError:
        return None
    values = [value for payload in found for kind, value in netlink.attributes(payload[4:]) if kind == _FLAGS]
    return any(struct.unpack(">I", value)[0] & _OWNER for value in values)


def counts(link: socket.socket, table: str) -> list[Count]:
    """Read the counters of the rules, in their order. Raises OSError."""
    request = netlink.message(
        _TABLES | _GET_RULE,
        netlink.REQUEST | netlink.DUMP,
        1,
        _head(FAMILY_INET) + text(1, table) + text(2, _CHAIN),
    )
    found = [_counted(payload[4:]) for payload in netlink.dump(link, request)]
    return [Count(one[0], one[-1]) for one in found if one]


def _expressions(rule: Rule, *, compatible: bool) -> list[bytes]:
    card = b"lo".ljust(16, b"\0")
    found = [_meta(_META_CARD), _compare(card)]
    found += [_meta(_META_PROTOCOL), _compare(bytes([PROTOCOLS[rule.protocol]]))]
    destination = rule.side == "to_server" or rule.group is not None
    found += [_payload(_TRANSPORT, 2 if destination else 0, 2), _compare(struct.pack(">H", rule.port))]
    if rule.peer is not None:
        found += [_payload(_TRANSPORT, 0 if destination else 2, 2), _compare(struct.pack(">H", rule.peer))]
    if rule.verdict == "reset":  # or our own resets would be stopped, too
        found += [_payload(_TRANSPORT, 13, 1), _masked(_RESET_FLAG), _compare(b"\0")]
    if rule.group is not None:
        found += [_payload(_NETWORK, 16, 4), _compare(socket.inet_aton(rule.group))]
    found.append(_expression("counter"))
    if rule.share < 1.0:
        found += _chance(rule.share)
    return [*found, _expression("counter"), _ending(rule, compatible=compatible)]


def _chance(share: float) -> list[bytes]:
    number = _expression("numgen", be32(1, 1), be32(2, _MILLION), be32(3, 1))
    order = _expression("byteorder", be32(1, 1), be32(2, 1), be32(3, 1), be32(4, 4), be32(5, 4))
    return [number, order, _compare(struct.pack(">I", round(share * _MILLION)), _LESS)]


def _ending(rule: Rule, *, compatible: bool) -> bytes:
    if rule.verdict == "reset":
        return _expression("reject", be32(1, 1), attribute(2, b"\0"))
    return _queue(rule.queue, compatible) if rule.verdict == "queue" else _verdict(_DROP)


def _queue(number: int, compatible: bool) -> bytes:  # noqa: FBT001 - the only question here
    """Hand it to a queue, or pass it on where nobody serves that: also by the older form (x_tables)."""
    if compatible:
        information = struct.pack("=HHHxx", number, 1, 1)
        return _expression("target", text(1, "NFQUEUE"), be32(2, 3), attribute(3, information))
    place, total, bypass = (struct.pack(">H", one) for one in (number, 1, 1))
    return _expression("queue", attribute(1, place), attribute(2, total), attribute(3, bypass))


def _meta(key: int) -> bytes:
    return _expression("meta", be32(1, 1), be32(2, key))


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", be32(1, 1), be32(2, base), be32(3, offset), be32(4, length))


def _masked(mask: int) -> bytes:
    value = [nested(kind, attribute(1, bytes([bits]))) for kind, bits in ((4, mask), (5, 0))]
    return _expression("bitwise", be32(1, 1), be32(2, 1), be32(3, 1), *value)


def _compare(value: bytes, operator: int = _EQUAL) -> bytes:
    return _expression("cmp", be32(1, 1), be32(2, operator), nested(3, attribute(1, value)))


def _verdict(code: int) -> bytes:
    return _expression("immediate", be32(1, 0), nested(2, nested(2, be32(1, code))))


def _expression(name: str, *inside: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *inside))


def _rule(table: str, expressions: list[bytes]) -> bytes:
    payload = text(1, table) + text(2, _CHAIN) + nested(4, *expressions)
    return _message(_NEW_RULE, payload, netlink.APPEND)


def _message(kind: int, payload: bytes, flags: int = 0) -> bytes:
    create = 0 if kind in {_DEL_TABLE, _DEL_RULE} else netlink.CREATE
    flags |= netlink.REQUEST | create
    return netlink.message(_TABLES | kind, flags, 1, _head(FAMILY_INET) + payload)


def _batch(link: socket.socket, parts: list[bytes]) -> None:
    """All or nothing. Only the last is acknowledged, so that the answers to hundreds need no room."""
    begin = netlink.message(_BEGIN, netlink.REQUEST, 0, _head(0, 10))
    end = netlink.message(_END, netlink.REQUEST, 0, _head(0, 10))
    netlink.ask(link, [begin, *parts[:-1], netlink.acknowledged(parts[-1]), end], acknowledgements=1)


def _head(family: int, resource: int = 0) -> bytes:
    return struct.pack(">BBH", family, 0, resource)


def _counted(payload: bytes) -> list[int]:
    """Find the packet counts of a rule's counters."""
    found: list[int] = []
    expressions = dict(netlink.attributes(payload)).get(4, b"")
    for _, element in netlink.attributes(expressions):
        expression = dict(netlink.attributes(element))
        if expression.get(1, b"").rstrip(b"\0") == b"counter":
            found.append(int.from_bytes(dict(netlink.attributes(expression[2]))[2], "big"))
    return found
