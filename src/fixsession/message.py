"""A FIX message: ordered fields, with group support and the bytes it came in."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from fixsession.errors import FixError
from fixsession.tags import MSG_SEQ_NUM, MSG_TYPE, POSS_DUP, POSS_RESEND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Value = str | int | bytes | bool | Decimal | float
Pair = tuple[int, str]


class Message(msgspec.Struct):
    """Fields in wire order. Text is Latin-1, which keeps every byte; `raw` is what was received, if it was.

    `pairs` is not to be changed in place: lookups are answered from an index made at the first one.
    """

    pairs: list[Pair]
    raw: bytes = b""
    _index: dict[int, str] | None = None

    @classmethod
    def of(cls, msg_type: str, fields: Mapping[int, object] | Iterable[tuple[int, object]] = ()) -> Message:
        """Build a message of type `msg_type` (35).

        A value is str, int, bool (Y/N), bytes, Decimal or float; None leaves the field out. A list of
        groups, each a list of pairs or a mapping, becomes the count and the groups in order. The session adds
        header (8 9 34 35 49 52 56; 43 122 369 where due) and trailer; given here, they are dropped.
        """
        pairs: list[Pair] = [(MSG_TYPE, msg_type)]
        pairs.extend(_expand(fields))
        return cls(pairs)

    def get(self, tag: int) -> str | None:
        """Give the value of the first field `tag`, or None."""
        index = self._index
        if index is None:
            index = self._index = dict(reversed(self.pairs))
        return index.get(tag)

    def require(self, tag: int) -> str:
        """Give the value of the first field `tag`; raises `FixError` where the field is missing."""
        value = self.get(tag)
        if value is None:
            raise FixError(f"message of type {self.msg_type!r} has no field {tag}; the sender must supply it")
        return value

    def group(self, count_tag: int, members: Sequence[int]) -> list[dict[int, str]]:
        """Read the repeating group announced by `count_tag`; `members` are its tags, the delimiter first.

        Raises `FixError` where the count differs from the groups found.
        """
        count = self.get(count_tag)
        if count is None:
            return []
        groups: list[dict[int, str]] = []
        start = next(i for i, (tag, _) in enumerate(self.pairs) if tag == count_tag)
        for tag, value in self.pairs[start + 1 :]:
            if tag == members[0]:
                groups.append({})
            elif tag not in members or not groups:
                break
            groups[-1].setdefault(tag, value)
        if count != str(len(groups)):
            raise FixError(
                f"field {count_tag} announces {count} groups, {len(groups)} follow; correct the count"
            )
        return groups

    @property
    def msg_type(self) -> str:
        """MsgType (35); empty where there is none."""
        return self.get(MSG_TYPE) or ""

    @property
    def seq_num(self) -> int | None:
        """MsgSeqNum (34), or None where it is missing or no number from 1 up."""
        value = self.get(MSG_SEQ_NUM)
        return number(value)

    @property
    def poss_dup(self) -> bool:
        """PossDupFlag (43): sent again under the same number."""
        return self.get(POSS_DUP) == "Y"

    @property
    def poss_resend(self) -> bool:
        """PossResend (97): perhaps sent before, under another number."""
        return self.get(POSS_RESEND) == "Y"

    def __str__(self) -> str:
        return "|".join(f"{tag}={value}" for tag, value in self.pairs)


def number(value: str | None, *, minimum: int = 1) -> int | None:
    """Read the value as an integer of at most 18 digits and at least `minimum`, else None."""
    if value is None or not value.isascii() or not value.isdecimal() or len(value) > 18:  # noqa: PLR2004
        return None
    result = int(value)
    return result if result >= minimum else None


def _expand(fields: Mapping[int, object] | Iterable[tuple[int, object]]) -> Iterator[Pair]:
    items = fields.items() if hasattr(fields, "items") else fields
    for tag, value in items:
        if isinstance(value, str):
            yield tag, value
        elif isinstance(value, list):
            yield tag, str(len(value))
            for group in value:
                yield from _expand(group)
        elif value is not None:
            yield tag, _text(tag, value)


def _text(tag: int, value: object) -> str:
    if isinstance(value, bool):
        return "Y" if value else "N"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, Decimal | float):
        return format(Decimal(str(value)), "f")  # FIX has no exponents
    raise FixError(
        f"field {tag}: cannot write a {type(value).__name__}; give str, int, bool, bytes, Decimal or float"
    )
