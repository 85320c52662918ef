"""One ledger line: `CRC32(hex8) SPACE JSON NEWLINE`. Reading names the first damaged place exactly."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgspec

_CHUNK = 1 << 20
_HEADER = 9  # eight hexadecimal digits and a space


class Header(msgspec.Struct, gc=False):
    """What a reader needs of an entry to pick it."""

    seq: int
    kind: str
    mono_ns: int = 0
    account: str = ""


header_decoder = msgspec.json.Decoder(Header)


class Line(NamedTuple):
    """A sound entry: its number, the offset of its line in the file, and its JSON."""

    seq: int
    offset: int
    body: bytes


class Damage(msgspec.Struct, frozen=True):
    """The first damaged place: `offset` in bytes, `line` from 1, `after_seq` the last sound entry."""

    offset: int
    line: int
    after_seq: int
    reason: str
    torn: bool
    """The file ends inside this line: what a crash leaves behind, and nothing follows it."""

    def __str__(self) -> str:
        """One sentence for people."""
        return f"byte {self.offset} (line {self.line}, after entry {self.after_seq}): {self.reason}"


def encode_line(body: bytes) -> bytes:
    """Give the line that carries `body`."""
    return b"%08x %b\n" % (crc32(body), body)


def _raw_lines(path: Path, offset: int) -> Iterator[bytes]:
    """Lines with their newline; the last one may lack it."""
    rest = b""
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            for line in lines:
                yield line + b"\n"
    if rest:
        yield rest


def _fault(line: bytes, expected_seq: int | None) -> tuple[str, int]:
    """Why a line is unsound ('' if it is sound), and its entry's number."""
    if not line.endswith(b"\n"):
        return "the file ends inside this entry", 0
    body = line[_HEADER:-1]
    try:
        stated = int(line[: _HEADER - 1], 16) if line[_HEADER - 1 : _HEADER] == b" " else None
    except ValueError:
        stated = None
    if stated is None or len(line) < _HEADER:
        return "no checksum at the start of the line", 0
    if crc32(body) != stated:
        return f"checksum is {crc32(body):08x}, the line says {stated:08x}", 0
    try:
        seq = header_decoder.decode(body).seq
    except msgspec.DecodeError as error:
        return f"not an entry: {error}", 0
    if expected_seq is not None and seq != expected_seq:
        return f"entry {seq} where entry {expected_seq} belongs", seq
    return "", seq


class Reader:
    """Iterates over a ledger's sound entries; afterwards `damage` says where and why it stopped."""

    def __init__(self, path: Path, *, offset: int = 0, after_seq: int | None = 0) -> None:
        """Begin at `offset`, whose entry must follow `after_seq` (None: any)."""
        self.path = path
        self.damage: Damage | None = None
        self.end = offset
        self.last_seq = after_seq or 0
        self.last_body = b""
        self.line = 0
        self._after = after_seq

    def __iter__(self) -> Iterator[Line]:
        """Yield entries until the end or the first damage."""
        for raw in _raw_lines(self.path, self.end):
            self.line += 1
            expected = None if self._after is None else self._after + 1
            reason, seq = _fault(raw, expected)
            if reason:
                torn = not raw.endswith(b"\n")
                self.damage = Damage(self.end, self.line, self.last_seq, reason, torn)
                return
            self._after = self.last_seq = seq
            self.last_body = raw[_HEADER:-1]
            offset, self.end = self.end, self.end + len(raw)
            yield Line(seq, offset, self.last_body)


class Verification(msgspec.Struct, frozen=True):
    """What `ledger verify` found; `clean_end` when the exchange ended in order."""

    entries: int
    last_seq: int
    sound_bytes: int
    clean_end: bool
    damage: Damage | None


def verify(path: Path) -> Verification:
    """Check every line of a ledger."""
    reader = Reader(path)
    entries = sum(1 for _ in reader)
    clean = bool(entries) and header_decoder.decode(reader.last_body).kind == "stopped"
    return Verification(entries, reader.last_seq, reader.end, clean and reader.damage is None, reader.damage)
