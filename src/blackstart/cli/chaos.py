"""`blackstart chaos run`, `start`, `status`, `stop`, `replay`: the commands and their options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blackstart.errors import ScenarioError

if TYPE_CHECKING:
    from blackstart.chaos.model import Orders

app = typer.Typer(
    help="Break the target again and again while it trades.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Target = Annotated[
    str,
    typer.Option("--target", "-t", metavar="MANIFEST", help="A manifest file, or the name of a shipped one."),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where run folders are made.")]
ProfileName = Annotated[
    str, typer.Option("--profile", metavar="NAME", help="development, staging, production, or a file.")
]
For = Annotated[
    str | None,
    typer.Option("--for", metavar="TIME", help="How long: 90s, 10m, 1h; default: the profile's."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Everything random comes from it.")]
Interval = Annotated[
    str | None,
    typer.Option("--interval", metavar="TIME", help="Between two faults: 10s, or a range 5s-20s."),
]
MaxFaults = Annotated[
    int | None, typer.Option("--max-faults", metavar="N", min=1, help="Not more than so many.")
]
Component = Annotated[
    list[str] | None,
    typer.Option("--component", metavar="NAME", help="Break nothing else than this; may be repeated."),
]
Symbol = Annotated[
    list[str] | None,
    typer.Option("--symbol", metavar="NAME", help="Disturb no other symbol than this; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout, progress on stderr.")]
OnAlert = Annotated[
    str, typer.Option("--on-alert", metavar="COMMAND", help="Gets each alert as JSON on its input.")
]
Scheduled = Annotated[
    bool, typer.Option("--scheduled", help="Only in a window of the profile, and not beyond its end.")
]
Now = Annotated[bool, typer.Option("--now", help="One session at once, whatever windows the profile has.")]
Approvals = Annotated[
    Path, typer.Option("--approvals", metavar="DIR", help="Where approvals for production lie.")
]
Into = Annotated[Path | None, typer.Option("--into", hidden=True, help="The run folder.")]

DEFAULT_TARGET = "paperfirm"
DEFAULT_PROFILE = "development"
DEFAULT_OUT = Path("runs")
DEFAULT_APPROVALS = Path("/var/lib/blackstart/approvals")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str, where: str) -> float:
    """Read a length of time. Raises ScenarioError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if found is None:
        raise ScenarioError(f"`{text}` is no length of time", where=where, hint="like 90s, 10m, 1h, 1d")
    return float(found.group(1)) * _UNIT_S[found.group(2)]


def span(text: str) -> tuple[float, float]:
    """Read an interval: one length of time, or from-to. Raises ScenarioError."""
    low, _, high = text.partition("-")
    first = seconds(low, "--interval")
    last = seconds(high, "--interval") if high else first
    if not 0 < first <= last:
        raise ScenarioError(f"`{text}`: from is not below to", where="--interval", hint="like 10s or 5s-20s")
    return first, last


@app.command()
def run(
    *,
    target: Target = DEFAULT_TARGET,
    profile: ProfileName = DEFAULT_PROFILE,
    lasting: For = None,
    seed: Seed = 7,
    interval: Interval = None,
    max_faults: MaxFaults = None,
    component: Component = None,
    symbol: Symbol = None,
    on_alert: OnAlert = "",
    scheduled: Scheduled = False,
    approvals: Approvals = DEFAULT_APPROVALS,
    out: Out = DEFAULT_OUT,
    as_json: Json = False,
    into: Into = None,
) -> int:
    """Run a session here, with a live view."""
    from blackstart.cli import chaos_work as command  # noqa: PLC0415

    orders = _orders(
        target,
        profile,
        seed=seed,
        lasting=lasting,
        interval=interval,
        max_faults=max_faults,
        component=component,
        symbols=symbol,
        on_alert=on_alert,
        scheduled=scheduled,
    )
    status: int = command.run(orders, out=out, folder=into, as_json=as_json, approvals=approvals)
    return status


@app.command()
def start(
    *,
    target: Target = DEFAULT_TARGET,
    profile: ProfileName = DEFAULT_PROFILE,
    lasting: For = None,
    seed: Seed = 7,
    interval: Interval = None,
    max_faults: MaxFaults = None,
    component: Component = None,
    symbol: Symbol = None,
    on_alert: OnAlert = "",
    now: Now = False,
    approvals: Approvals = DEFAULT_APPROVALS,
    out: Out = DEFAULT_OUT,
) -> int:
    """Start sessions in the background.

    One at once, or one in each window of the profile.
    """
    from blackstart.cli import chaos_work as command  # noqa: PLC0415

    given = {"seed": seed, "max_faults": max_faults, "symbols": symbol, "on_alert": on_alert}
    orders = _orders(target, profile, lasting=lasting, interval=interval, component=component, **given)
    words = ["--target", target, "--profile", profile, "--seed", str(seed), "--out", str(out)]
    words += [] if lasting is None else ["--for", lasting]
    words += [] if interval is None else ["--interval", interval]
    words += [] if max_faults is None else ["--max-faults", str(max_faults)]
    words += ["--on-alert", on_alert] if on_alert else []
    words += [word for one in component or () for word in ("--component", one)]
    words += [word for one in symbol or () for word in ("--symbol", one)]
    words += [] if approvals == DEFAULT_APPROVALS else ["--approvals", str(approvals.resolve())]
    status: int = command.start(orders, words, out=out, now=now, approvals=approvals)
    return status


def _orders(
    target: str,
    profile: str,
    *,
    lasting: str | None,
    interval: str | None,
    component: list[str] | None,
    **others: Any,
) -> Orders:
    from blackstart.cli import chaos_work as command  # noqa: PLC0415

    return command.orders(
        target,
        profile,
        for_s=None if lasting is None else seconds(lasting, "--for"),
        interval_s=None if interval is None else span(interval),
        components=component,
        **others,
    )


@app.command(hidden=True)
def keep(folder: Path, words: list[str]) -> int:
    """Start a session in each window of the profile (the process behind `start`)."""
    from blackstart.chaos import log, schedule  # noqa: PLC0415

    return schedule.run(log.load_orders(folder / log.ORDERS), words, folder)


@app.command()
def replay(
    recording: Annotated[Path, typer.Argument(help="The folder of a session, or its recording.json.")],
    *,
    approvals: Approvals = DEFAULT_APPROVALS,
    out: Out = DEFAULT_OUT,
    as_json: Json = False,
) -> int:
    """Break the same again, at the same moments after the start."""
    from blackstart.chaos import log  # noqa: PLC0415
    from blackstart.cli import chaos_work as command  # noqa: PLC0415

    orders = log.load_recording(recording)
    status: int = command.run(orders, out=out, folder=None, as_json=as_json, approvals=approvals)
    return status


@app.command()
def status(*, out: Out = DEFAULT_OUT, as_json: Json = False) -> int:
    """Show the sessions that are under way, and how they go."""
    from blackstart.cli import chaos_work as command  # noqa: PLC0415

    return int(command.status(out, as_json=as_json))


@app.command()
def stop(
    folder: Annotated[Path | None, typer.Argument(help="Its run folder, if several are under way.")] = None,
    *,
    out: Out = DEFAULT_OUT,
) -> int:
    """End a session in order.

    Everything is taken back, the books are audited, the reports written.
    """
    from blackstart.cli import chaos_work as command  # noqa: PLC0415

    return int(command.stop(folder, out=out))
