"""Figures as people read them. One place, so that terminal and HTML never disagree about the same number."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blackstart.model.approval import Grant

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

DASH = "\u2013"


def milliseconds(ns: int | None) -> float | None:
    """Nanoseconds as milliseconds for machines; None stays None."""
    return None if ns is None else ns / NS_PER_MS


def duration(ns: int | None) -> str:
    """`41.3 ms` below ten seconds, `12.4 s` below two minutes, `3 min 12 s` above; unknown is a dash."""
    if ns is None:
        return DASH
    if ns < 10 * NS_PER_S:
        return f"{ns / NS_PER_MS:,.1f} ms"
    if ns < 120 * NS_PER_S:
        return f"{ns / NS_PER_S:.1f} s"
    minutes, seconds = divmod(round(ns / NS_PER_S), 60)
    return f"{minutes} min {seconds} s"


def uncertainty(ns: int | None) -> str:
    """`± 0.2 ms`, or in microseconds below a tenth of that: a small uncertainty must not read as none."""
    if ns is None:
        return ""
    return f"\u00b1 {ns / NS_PER_US:,.1f} \u00b5s" if ns < NS_PER_MS // 10 else f"\u00b1 {duration(ns)}"


def bare_ms(ns: int | None) -> str:
    """Milliseconds without the unit, for columns whose heading has it; unknown is `?`, never a zero."""
    return "?" if ns is None else f"{ns / NS_PER_MS:,.1f}"


def limit(ns: int) -> str:
    """Write a limit that was reached, in whole seconds where it is one: `> 30 s`."""
    whole, rest = divmod(ns, NS_PER_S)
    return f"> {duration(ns)}" if rest else f"> {whole:,} s"


def count(number: int | None) -> str:
    """`18,204`; unknown is a dash."""
    return DASH if number is None else f"{number:,}"


def plural(number: int, noun: str) -> str:
    """`1 trial`, `9 trials`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def approved_text(grant: Grant) -> str:
    """Say who approved what, when, until when and what for, and who used it."""
    approval = grant.approval
    signed = " and ".join(
        f"{one.name} (uid {one.uid}, {moment(one.signed_wall_ns)})" for one in grant.signers
    )
    symbols = "all symbols" if approval.symbols is None else ", ".join(approval.symbols)
    limits = f"{', '.join(approval.kinds)} of {', '.join([*approval.components, *approval.links])}, {symbols}"
    clock = ", by a clock that nothing keeps" if approval.unsynchronised_clock else ""
    return (
        f"approved by {signed} until {moment(approval.until_wall_ns)}, outside the hours of "
        f"{', '.join(approval.markets)}{clock}: {limits}, {approval.concurrent} at once; {approval.reason} "
        f"(approval {grant.sha256[:12]}, used by {grant.used_by} {moment(grant.used_wall_ns)})"
    )


def moment(wall_ns: int) -> str:
    """Write a wall-clock moment in UTC, to the minute."""
    return f"{dt.datetime.fromtimestamp(wall_ns // NS_PER_S, tz=dt.UTC):%Y-%m-%d %H:%M} UTC"
