"""Market hours by real exchange calendars (R21, R23): the library `exchange_calendars`, no network.

It is imported only when production is asked for. Whatever it cannot say is a refusal.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from blackstart.errors import PermitError

NS = 1_000_000_000
INSTALL = "pip install 'blackstart[production]'"
_BACK, _AHEAD = dt.timedelta(days=20), dt.timedelta(days=40)


class Session(NamedTuple):
    """A day of trading, from open to close, in wall-clock nanoseconds; a break at noon belongs to it."""

    open_ns: int
    close_ns: int


Sessions = Callable[[str, int], Sequence[Session]]
"""Gives the sessions of a market around a moment, in order."""


def next_open(market: str, now_ns: int, margin_s: float, sessions: Sessions | None = None) -> int:
    """Return when a market that is closed now opens next, in wall-clock nanoseconds.

    Raises PermitError when it is open, has been closed for less than `margin_s` or opens in less than that,
    and in every doubt.
    """
    days = (sessions or calendar)(market, now_ns)
    margin_ns = round(margin_s * NS)
    coming = [one for one in days if one.close_ns + margin_ns > now_ns]
    if not coming or coming[0] is days[0]:
        raise PermitError(
            f"its calendar does not cover {said(now_ns)}",
            where=f"market {market}",
            hint="upgrade it: " + INSTALL,
        )
    first = coming[0]
    if now_ns >= first.open_ns - margin_ns:
        hours = f"{said(first.open_ns)} to {said(first.close_ns)}, and {margin_s / 60:g} min around them"
        hint = f"production is for other hours; this session ends {said(first.close_ns + margin_ns)}"
        raise PermitError(f"market hours: {hours}", where=f"market {market}", hint=hint)
    return first.open_ns


def calendar(market: str, now_ns: int) -> list[Session]:
    """Ask the library for the sessions around a moment. Raises PermitError when it cannot say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own affair with pandas
        library = _library()
        day = dt.datetime.fromtimestamp(now_ns // NS, tz=dt.UTC).date()
        try:
            found = library.get_calendar(market, start=str(day - _BACK), end=str(day + _AHEAD))
            pairs = zip(found.opens_nanos.tolist(), found.closes_nanos.tolist(), strict=True)
            return sorted(Session(int(begin), int(end)) for begin, end in pairs)
        except library.errors.InvalidCalendarName:
            known = ", ".join(name for name in library.get_calendar_names() if name.startswith("X"))
            raise PermitError("no such market", where=f"market {market}", hint=f"known: {known}") from None
        except Exception as error:
            what = f"its calendar cannot be asked: {type(error).__name__}: {error}"
            raise PermitError(what, where=f"market {market}", hint="upgrade it: " + INSTALL) from error


def _library() -> Any:
    try:
        import exchange_calendars  # noqa: PLC0415 - two seconds, and only production needs it
        import exchange_calendars.errors  # noqa: PLC0415
    except ImportError as error:
        what = "market hours cannot be told: the library exchange_calendars is not there"
        raise PermitError(what, where="production", hint=INSTALL) from error
    return exchange_calendars


def said(wall_ns: int) -> str:
    """Say a moment for people, in UTC."""
    return f"{dt.datetime.fromtimestamp(wall_ns // NS, tz=dt.UTC):%a %Y-%m-%d %H:%M} UTC"
