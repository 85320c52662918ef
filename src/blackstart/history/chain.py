"""The form of one line of a history, and the hash chain that ties each line to all lines before it.

A line is `{"n":N,"chain":"HEX","record":{…}}`. `chain` is SHA-256 over the previous line's digest, the line
number and the very bytes of `record`; the first line follows `GENESIS`. So each byte of the file is covered:
those of the envelope because they are compared with what they must be, those of the record by the digest.
"""

from __future__ import annotations

import hashlib

FILE_NAME = "history.jsonl"
GENESIS = hashlib.sha256(b"blackstart history 1").digest()
_TAIL = b"}\n"


def link(previous: bytes, number: int, record: bytes) -> bytes:
    """Digest line `number` (from 0) with its encoded `record`, after a line with the digest `previous`."""
    return hashlib.sha256(b"%b%d %b" % (previous, number, record)).digest()


def _head(number: int, digest: bytes) -> bytes:
    return b'{"n":%d,"chain":"%b","record":' % (number, digest.hex().encode())


_HEAD_LENGTH = len(_head(0, GENESIS)) - 1


def seal(previous: bytes, number: int, record: bytes) -> tuple[bytes, bytes]:
    """Return the whole line for `record`, and its digest for the next one."""
    digest = link(previous, number, record)
    return _head(number, digest) + record + _TAIL, digest


def unseal(line: bytes, previous: bytes, number: int) -> tuple[bytes, bytes] | None:
    """Return the record's bytes and the digest, or None when a byte of `line` is not what it must be."""
    record = line[_HEAD_LENGTH + len(str(number)) : -len(_TAIL)]
    sealed, digest = seal(previous, number, record)
    return (record, digest) if sealed == line else None
