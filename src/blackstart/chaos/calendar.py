"""When chaos may be let loose: windows of the week, blackouts, time zones. Pure."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import msgspec

from blackstart.errors import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blackstart.chaos.model import Opening, Windows

NS = 1_000_000_000
AHEAD_DAYS = 400
"""How far ahead a next window is looked for: further than the longest pause of a yearly pattern."""

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HINT = 'like timezone = "Europe/Zurich", open = [{ days = ["mon"], begin = "06:00", end = "07:00" }]'


class Window(msgspec.Struct, frozen=True, order=True):
    """A stretch of time, in wall-clock nanoseconds; the end does not belong to it."""

    begin_ns: int
    end_ns: int


def problem(windows: Windows) -> str | None:
    """Say what makes no sense, or None."""
    try:
        next(_opened(windows, dt.date(2026, 1, 1), 8), None)
        blackouts(windows)
    except ScenarioError as error:
        return error.what
    if windows.sessions < 1:
        return "`sessions` is at least 1"
    return None if windows.open else "`open` names no window"


def current(windows: Windows, now_ns: int) -> Window | None:
    """Return the window that is open now."""
    return next((one for one in _upcoming(windows, now_ns) if one.begin_ns <= now_ns), None)


def following(windows: Windows, now_ns: int) -> Window | None:
    """Return the next window that begins after now; None when there is none within AHEAD_DAYS."""
    return next((one for one in _upcoming(windows, now_ns) if one.begin_ns > now_ns), None)


def blackouts(windows: Windows) -> list[tuple[Window, str]]:
    """Return when nothing is broken, whatever is open, with the reasons, in order. Raises ScenarioError."""
    zone = _zone(windows)
    found = [(Window(_moment(one.begin, zone), _moment(one.end, zone)), one.why) for one in windows.closed]
    for one, _ in found:
        if one.end_ns <= one.begin_ns:
            raise ScenarioError("a blackout ends before it begins", where="windows.closed", hint=_HINT)
    return sorted(found)


def blackout(windows: Windows, now_ns: int) -> tuple[Window, str] | None:
    """Return the blackout that holds now."""
    return next(((one, why) for one, why in blackouts(windows) if one.begin_ns <= now_ns < one.end_ns), None)


def said(window: Window, windows: Windows) -> str:
    """Say it for people, in the time zone of the windows."""
    begin, end = (
        dt.datetime.fromtimestamp(ns / NS, _zone(windows)) for ns in (window.begin_ns, window.end_ns)
    )
    until = f"{end:%H:%M}" if end.date() == begin.date() else f"{end:%a %Y-%m-%d %H:%M}"
    return f"{begin:%a %Y-%m-%d %H:%M} to {until} {windows.timezone}"


def _upcoming(windows: Windows, now_ns: int) -> Iterator[Window]:
    """Yield every window that has not ended yet, in order: overlapping ones as one, blackouts cut out."""
    today = dt.datetime.fromtimestamp(now_ns / NS, _zone(windows)).date()
    closed = [one for one, _ in blackouts(windows)]
    first = today - dt.timedelta(days=1)  # one of yesterday may reach over midnight
    for whole in _merged(_opened(windows, first, AHEAD_DAYS)):
        for one in _without(whole, closed):
            if one.end_ns > now_ns:
                yield one


def _opened(windows: Windows, first: dt.date, days: int) -> Iterator[Window]:
    """Yield what the week's pattern opens, by its beginning."""
    zone = _zone(windows)
    for number in range(days):
        date = first + dt.timedelta(days=number)
        yield from sorted(_on(one, date, zone) for one in windows.open if _DAYS[date.weekday()] in _days(one))


def _on(opening: Opening, date: dt.date, zone: ZoneInfo) -> Window:
    begin, end = _time(opening.begin), _time(opening.end)
    last = date if end > begin else date + dt.timedelta(days=1)
    return Window(_ns(dt.datetime.combine(date, begin, zone)), _ns(dt.datetime.combine(last, end, zone)))


def _merged(found: Iterable[Window]) -> Iterator[Window]:
    before: Window | None = None
    for one in found:
        if before is not None and one.begin_ns <= before.end_ns:
            before = Window(before.begin_ns, max(before.end_ns, one.end_ns))
            continue
        if before is not None:
            yield before
        before = one
    if before is not None:
        yield before


def _without(window: Window, closed: Iterable[Window]) -> Iterator[Window]:
    """Cut the blackouts out; they are in order."""
    begin = window.begin_ns
    for one in closed:
        if one.begin_ns < window.end_ns and one.end_ns > begin:
            if one.begin_ns > begin:
                yield Window(begin, one.begin_ns)
            begin = one.end_ns
    if begin < window.end_ns:
        yield Window(begin, window.end_ns)


def _days(opening: Opening) -> tuple[str, ...]:
    unknown = [one for one in opening.days if one not in _DAYS]
    if unknown:
        raise ScenarioError(f"no day `{unknown[0]}`: {', '.join(_DAYS)}", where="windows.open", hint=_HINT)
    return opening.days or _DAYS


def _zone(windows: Windows) -> ZoneInfo:
    try:
        return ZoneInfo(windows.timezone)
    except (OSError, ValueError, LookupError):
        raise ScenarioError(
            f"no time zone `{windows.timezone}`", where="windows.timezone", hint=_HINT
        ) from None


def _time(text: str) -> dt.time:
    try:
        return dt.time.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise ScenarioError(f"`{text}` is no time of day", where="windows.open", hint=_HINT) from None


def _moment(text: str, zone: ZoneInfo) -> int:
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ScenarioError(
            f"`{text}` is no date", where="windows.closed", hint="2026-12-24, or 2026-12-24T18:00"
        ) from None
    return _ns(found if found.tzinfo is not None else found.replace(tzinfo=zone))


def _ns(moment: dt.datetime) -> int:
    """Turn a moment into wall-clock nanoseconds; an hour that the clocks skip begins when they have."""
    return round(moment.timestamp()) * NS
