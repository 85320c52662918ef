"""Instants that come in as arguments, and their UTCTimestamp form (FIX 4.4 volume 1, UTCTimestamp)."""

from __future__ import annotations

from calendar import timegm
from functools import lru_cache
from time import gmtime, strftime

import msgspec

SECOND_NS = 1_000_000_000
_MILLI_NS = 1_000_000
_PREFIX = len("20240101-00:00:00")
_FRACTION_DIGITS = 9


class Now(msgspec.Struct, frozen=True, gc=False):
    """One instant on both clocks: `CLOCK_MONOTONIC` for time-outs, Unix time for SendingTime (52)."""

    mono_ns: int
    wall_ns: int


@lru_cache(maxsize=8)
def _whole_second(second: int) -> str:
    return strftime("%Y%m%d-%H:%M:%S", gmtime(second))


@lru_cache(maxsize=64)
def _parse_second(text: str) -> int | None:
    if not (text[8:9] == "-" and text[11:12] == text[14:15] == ":"):
        return None
    digits = (text[0:4], text[4:6], text[6:8], text[9:11], text[12:14], text[15:17])
    if not all(part.isdecimal() and part.isascii() for part in digits):
        return None
    year, month, day, hour, minute, second = map(int, digits)
    seconds = timegm((year, month, day, hour, minute, min(second, 59)))  # 60 is a leap second
    same = gmtime(seconds)[:5] == (year, month, day, hour, minute)
    return seconds if same and second <= 60 else None  # noqa: PLR2004


def format_utc(wall_ns: int) -> str:
    """Unix time as UTCTimestamp with milliseconds."""
    second, rest = divmod(wall_ns, SECOND_NS)
    return f"{_whole_second(second)}.{rest // _MILLI_NS:03d}"


def parse_utc(text: str) -> int | None:
    """UTCTimestamp (whole seconds, or a fraction down to ns) as Unix time in ns; None if it is none."""
    second = _parse_second(text[:_PREFIX])
    fraction = text[_PREFIX:]
    if second is None or not fraction:
        return None if second is None else second * SECOND_NS
    digits = fraction[1:]
    if fraction[0] != "." or not digits.isdecimal() or not digits.isascii() or len(digits) > _FRACTION_DIGITS:
        return None
    return second * SECOND_NS + int(digits.ljust(_FRACTION_DIGITS, "0"))
