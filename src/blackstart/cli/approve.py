"""`blackstart approve`, `confirm`, `approvals`: the commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blackstart.cli.chaos import DEFAULT_APPROVALS, Approvals, seconds

Target = Annotated[
    str,
    typer.Option("--target", "-t", metavar="MANIFEST", help="A manifest file, or the name of a shipped one."),
]
Profile = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="Chaos by this profile: production, or a file."),
]
Scenario = Annotated[
    list[str] | None,
    typer.Option("--scenario", metavar="ID", help="Trials of this scenario; may be repeated."),
]
Kind = Annotated[list[str], typer.Option("--kind", metavar="KIND", help="A kind of fault; may be repeated.")]
Component = Annotated[
    list[str] | None, typer.Option("--component", metavar="NAME", help="What may be broken; may be repeated.")
]
Link = Annotated[
    list[str] | None, typer.Option("--link", metavar="NAME", help="A link that may; may be repeated.")
]
Symbol = Annotated[
    list[str] | None,
    typer.Option("--symbol", metavar="NAME", help="A symbol that may be disturbed; may be repeated."),
]
AllSymbols = Annotated[bool, typer.Option("--all-symbols", help="Every symbol may be disturbed.")]
Concurrent = Annotated[int, typer.Option("--concurrent", metavar="N", min=1, help="So many faults at once.")]
Interval = Annotated[
    str | None,
    typer.Option("--interval", metavar="TIME", help="At least so long between two; default: the profile's."),
]
From = Annotated[
    str | None, typer.Option("--from", metavar="MOMENT", help="2026-11-28T06:00+01:00; default: now.")
]
Until = Annotated[str, typer.Option("--until", metavar="MOMENT", help="At most 24 h later.")]
Market = Annotated[
    list[str],
    typer.Option("--market", metavar="CODE", help="Not in its hours: XNYS, XSWX; may be repeated."),
]
Margin = Annotated[str, typer.Option("--margin", metavar="TIME", help="Nor so long before and after them.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="What it is for.")]
Clock = Annotated[
    bool, typer.Option("--unsynchronised-clock", help="Though nothing keeps this machine's clock right.")
]
Hash = Annotated[str, typer.Argument(metavar="HASH", help="The whole hash, as `approve` showed it.")]


def add_to(app: typer.Typer) -> None:
    """Add the three commands."""
    app.command()(approve)
    app.command()(confirm)
    app.command()(approvals)


def approve(
    *,
    target: Target,
    profile: Profile = None,
    scenario: Scenario = None,
    kind: Kind,
    component: Component = None,
    link: Link = None,
    symbol: Symbol = None,
    all_symbols: AllSymbols = False,
    concurrent: Concurrent = 1,
    interval: Interval = None,
    from_: From = None,
    until: Until,
    market: Market,
    margin: Margin = "30m",
    reason: Reason,
    unsynchronised_clock: Clock = False,
    place: Approvals = DEFAULT_APPROVALS,
) -> int:
    """Propose what may be done in production.

    It is nothing yet: another person, with an account of their own, confirms it.
    """
    from blackstart.cli import approve_work as command  # noqa: PLC0415

    limits = {
        "kinds": tuple(sorted(set(kind))),
        "components": tuple(sorted(set(component or ()))),
        "links": tuple(sorted(set(link or ()))),
        "symbols": command.symbols(symbol, everything=all_symbols),
        "concurrent": concurrent,
        "markets": tuple(sorted(set(market))),
        "margin_s": seconds(margin, "--margin"),
        "unsynchronised_clock": unsynchronised_clock,
        "reason": reason,
    }
    interval_s = None if interval is None else seconds(interval, "--interval")
    aim = command.Aim(target=target, profile=profile, scenarios=tuple(scenario or ()), interval_s=interval_s)
    status: int = command.approve(aim, limits, begin=from_, end=until, place=place)
    return status


def confirm(sha256: Hash, *, target: Target, place: Approvals = DEFAULT_APPROVALS) -> int:
    """Sign what another person proposed, as the second of two."""
    from blackstart.cli import approve_work as command  # noqa: PLC0415

    status: int = command.confirm(sha256, target, place)
    return status


def approvals(
    sha256: Annotated[str, typer.Argument(metavar="HASH", help="Its beginning; default: all.")] = "",
    *,
    place: Approvals = DEFAULT_APPROVALS,
) -> int:
    """Show what was approved, by whom, and what is missing."""
    from blackstart.cli import approve_work as command  # noqa: PLC0415

    status: int = command.show(sha256, Path(place))
    return status
