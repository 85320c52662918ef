"""The work behind `blackstart chaos`: orders from options, sessions here or in the background, reports."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import uvloop
from rich.text import Text

from blackstart.chaos import background, calendar, log, profiles, programme, report
from blackstart.chaos.live import LiveView, clock, left_out_lines
from blackstart.chaos.model import Orders, Radius
from blackstart.chaos.result import NOT_JUDGED
from blackstart.cli import status as statuses
from blackstart.cli.folder import made
from blackstart.cli.hold import holding
from blackstart.engine.approval import PLACE
from blackstart.errors import ScenarioError, TargetError
from blackstart.report import terminal
from blackstart.report.wording import DASH, approved_text, plural
from blackstart.target import manifest as manifests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from blackstart.chaos.model import ChaosResult


def orders(
    target: str,
    profile: str,
    *,
    seed: int,
    for_s: float | None,
    interval_s: tuple[float, float] | None,
    max_faults: int | None,
    components: Sequence[str] | None,
    symbols: Sequence[str] | None = None,
    on_alert: str = "",
    scheduled: bool = False,
) -> Orders:
    """Put together what a session is to do. Raises ScenarioError, PermitError."""
    manifest = manifests.load(target)
    chosen = profiles.laid_over(profiles.load(profile), manifest)
    changes: dict[str, object] = {}
    if interval_s is not None:
        changes["interval_s"] = interval_s
    if components:
        unknown = [one for one in components if one not in manifest.components]
        if unknown:
            hint = f"it has: {', '.join(manifest.components)}"
            raise ScenarioError(f"no component {', '.join(unknown)}", where=manifest.name, hint=hint)
        changes["components"] = tuple(components)
    if symbols:
        radius = chosen.radius or Radius()
        changes["radius"] = msgspec.structs.replace(radius, symbols=tuple(symbols), share=None)
    found = Orders(
        target=target if target in manifests.packaged() else str(Path(target).resolve()),
        profile=msgspec.structs.replace(chosen, **changes),
        seed=seed,
        for_s=chosen.for_s if for_s is None else for_s,
        max_faults=max_faults,
        on_alert=on_alert,
        scheduled=scheduled,
    )
    programme.check(found, manifest)
    return found


def run(wanted: Orders, *, out: Path, folder: Path | None, as_json: bool, approvals: Path = PLACE) -> int:
    """Run a session, write its reports, return the exit status."""
    manifest = manifests.load(wanted.target)
    console = terminal.console(sys.stderr if as_json else sys.stdout)
    with holding() as hold:
        with LiveView(console, wanted) as view:
            work = programme.run(
                wanted, manifest, out=made(out), folder=folder, progress=view, place=approvals
            )
            result = uvloop.run(work)
        hold()
        page = report.render(result, Path(result.folder))
    if as_json:
        sys.stdout.buffer.write(report.encode(result))
    show(result, console, page)
    return statuses.of_verdicts([result.verdict])


def _uptime(share: float | None) -> str:
    return "uptime not measured (no `ready` probe)" if share is None else f"uptime {share:.2%}"


def show(result: ChaosResult, console: Console, page: Path) -> None:
    """Print what it came to."""
    counts, summary = result.counts, result.summary
    lost = DASH if summary.rpo.events is None else f"{summary.rpo.events:,} of {summary.rpo.acknowledged:,}"
    tally = f"{counts['pass']} pass, {counts['fail']} fail, {counts['unknown']} unknown"
    tally += f", {counts[NOT_JUDGED]} not judged" if counts[NOT_JUDGED] else ""
    alarms = f"{plural(len(result.alerts), 'alert')}, {result.false_alarms} without a fault"
    injections = plural(len(result.injections), "injection")
    lines = [
        f"{result.verdict}: {injections} in {clock(summary.duration_s)}: {tally}",
        f"lost {lost} acknowledged events · {alarms} · {_uptime(summary.figures.uptime)}",
        *result.reasons[:10],
        *left_out_lines(result.left_out),
        approved_text(result.approval) if result.approval is not None else "",
        f"replay: {terminal.copyable(result.replay)}",
        f"report: {page}",
    ]
    for line in filter(None, lines):
        console.print(Text(line), soft_wrap=True)


def start(wanted: Orders, words: Sequence[str], *, out: Path, now: bool, approvals: Path = PLACE) -> int:
    """Start one in the background; return once it breaks things. Raises TargetError, PermitError.

    Where the profile has windows, unless `now`: whoever starts one in each of them.
    """
    windows, moment = wanted.profile.windows, time.time_ns()
    by_schedule = windows is not None and not now
    programme.granted(wanted, manifests.load(wanted.target), approvals, moment, timed=not by_schedule)
    if windows is not None and by_schedule:
        folder = background.start(words, made(out), orders=wanted)
        print(f"chaos {wanted.profile.name} keeps its schedule: {folder}")
        print(f"  next window: {profiles.next_window(windows, moment)}")
        if (window := calendar.current(windows, moment)) is not None:
            print(f"  open now: {calendar.said(window, windows)}")
    else:
        profiles.within(wanted, moment)
        folder = background.start(words, made(out))
        print(f"chaos {wanted.profile.name} is under way: {folder}")
    print("  \u2192 blackstart chaos status; blackstart chaos stop; blackstart halt")
    return 0


def status(out: Path, *, as_json: bool) -> int:
    """Show what is under way; status 0 either way."""
    found = background.running(out)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
        return 0
    if not found:
        print(f"no chaos is under way below {out}")
    for one in found:
        _print_status(one)
    return 0


def _print_status(one: log.Status) -> None:
    if one.next_window:
        print(f"{one.folder}")
        print(f"  {one.profile} on {one.target}: keeps its schedule; next window: {one.next_window}")
        session = background.read(Path(one.session)) if one.session else None
        if session is not None and one.state == "session":
            _print_status(session)
        elif one.session:
            print(f"  newest session: {one.session}")
        return
    left = "until stopped" if one.for_s is None else f"{clock(max(0.0, one.for_s - one.at_s))} left"
    figures = one.figures
    print(f"{one.folder}")
    print(f"  {one.profile} on {one.target}, seed {one.seed}: {one.state}, {clock(one.at_s)} so far, {left}")
    if figures:
        trading = "trading" if figures["trading"] else "NOT TRADING"
        print(f"  {trading}, {figures['rate_per_s']:,.0f} orders/s, {_uptime(figures['uptime'])}")
    counts = ", ".join(f"{number} {name}" for name, number in one.counts.items())
    alerts = plural(one.alerts, "alert")
    print(f"  broken now: {' + '.join(one.active) or 'nothing'}; injections: {counts}; {alerts}")
    for line in one.last:
        print(f"    {line}")


def stop(folder: Path | None, *, out: Path) -> int:
    """End one in order. Raises TargetError when several are under way and none is named."""
    found = background.running(folder.parent if folder is not None else out)
    if folder is not None:
        found = [one for one in found if Path(one.folder).samefile(folder)]
    if len(found) > 1:
        folders = "\n    ".join(one.folder for one in found)
        raise TargetError(f"{len(found)} are under way", where=str(out), hint=f"name one:\n    {folders}")
    if not found:
        print(f"no chaos is under way below {folder or out}")
        return 0
    background.stop(found[0])
    print(f"ended: {found[0].folder}")
    if not found[0].next_window:
        return _told(Path(found[0].folder))
    last = background.read(Path(found[0].folder)) or found[0]
    if found[0].state != "session":
        print("no session was under way")
    elif last.session != last.worst:
        print(f"the session that was under way: {_verdict(Path(last.session)) or 'no result'}")
    if not last.worst:
        return 0
    print("the worst session of the schedule:")
    return _told(Path(last.worst))


def _told(folder: Path) -> int:
    """Say what the session came to, and return its status."""
    verdict = _verdict(folder)
    if verdict is None:
        print(f"no result: see {folder / 'chaos.log'}", file=sys.stderr)
        return 2
    print(f"{verdict}: {folder / report.PAGE}")
    return {"PASS": 0, "FAIL": 1}.get(verdict, 2)


def _verdict(folder: Path) -> str | None:
    try:
        verdict: str = msgspec.json.decode((folder / report.JSON).read_bytes())["verdict"]
    except OSError:
        return None
    return verdict
