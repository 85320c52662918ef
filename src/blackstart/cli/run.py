"""`blackstart suite` and `blackstart run`: plan, run, report (R43)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import uvloop

from blackstart.cli import host, status
from blackstart.cli.hold import holding
from blackstart.cli.main import DEFAULT_TARGET
from blackstart.engine import worker
from blackstart.engine.approval import PLACE
from blackstart.engine.conductor import Kit
from blackstart.engine.suite import RunOptions, run_suite
from blackstart.errors import BlackstartError, ScenarioError
from blackstart.model.outcome import LeftOut
from blackstart.report import terminal
from blackstart.report.html import FILE_NAME, Html
from blackstart.report.junit import Junit
from blackstart.report.live import LiveView
from blackstart.report.results_json import ResultsJson, encode
from blackstart.scenario import load as scenarios
from blackstart.scenario.plan import carry, plan
from blackstart.target import manifest as manifests

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from rich.console import Console

    from blackstart.contracts import Reporter
    from blackstart.model.manifest import Manifest
    from blackstart.model.outcome import Run
    from blackstart.model.scenario import Plan, Scenario

REPORTERS: tuple[Reporter, ...] = (ResultsJson(), Junit(), Html())


class ReportError(BlackstartError):
    """A report could not be written; the histories are there, and `recheck` makes it again."""

    exit_status = 2


def suite(
    target: str,
    *,
    out: Path,
    seed: int,
    only: Sequence[str],
    repeat: int,
    as_json: bool,
    jobs: int = 1,
    approvals: Path = PLACE,
    everything: bool = False,
) -> int:
    """Run what was asked for and return the exit status.

    Without `only` that is every standard scenario that fits; with `everything`, every packaged one.
    """
    manifest = manifests.load(target)
    console = terminal.console(sys.stderr if as_json else sys.stdout)
    aim = "" if target == DEFAULT_TARGET else target if target in manifests.packaged() else str(_path(target))
    left_out = () if only else _left_out(manifest, everything=everything)
    for one in left_out:
        console.print(f"[dim]left out: {one.id} {one.title}: {one.reason}[/dim]", soft_wrap=True)
    chosen = _chosen(only) if only else _fitting({one.id for one in left_out}, everything=everything)
    plans = [
        one
        for scenario, component, source in chosen
        for one in plan(
            scenario, manifest, seed=seed, only=component, repeat=repeat, target=aim, source=source
        )
    ]
    if not plans:
        raise ScenarioError(
            "no scenario fits this target", where=target, hint="`blackstart validate` says why"
        )
    with holding() as hold:
        run = _run(manifest, plans, console, _options(out, seed, jobs, approvals), hold)
        run = msgspec.structs.replace(run, left_out=left_out)
        _report(run, console, as_json=as_json)
    if run.interrupted:
        text = f"interrupted: {len(plans) - len(run.trials)} of {len(plans)} trials not run"
        console.print(text, soft_wrap=True, highlight=False)
    return status.of_run(run)


def _options(out: Path, seed: int, jobs: int, approvals: Path) -> RunOptions:
    """Each trial is conducted in a process of its own."""
    return RunOptions(runs=out, seed=seed, jobs=jobs, conduct=worker.run, approvals=approvals)


def _chosen(only: Sequence[str]) -> list[tuple[Scenario, str | None, str]]:
    """Return scenario, component and, for a scenario of the user's own, the file that replays it."""
    packaged, found = scenarios.packaged(), []
    for name in scenarios.files(only):
        file = name.rpartition(":")[0] if ".toml:" in name else name
        source = str(_path(file)) if scenarios.is_file(name) else ""
        found += [(one, component, source) for one, component in scenarios.select(packaged, [name])]
    return found


def _path(name: str) -> Path:
    """Return a path that means the same in every folder: replay lines are copied out of reports."""
    return Path(name).expanduser().absolute()


def _meant(*, everything: bool) -> list[Scenario]:
    return [scenario for scenario in scenarios.packaged() if scenario.standard or everything]


def _left_out(manifest: Manifest, *, everything: bool) -> tuple[LeftOut, ...]:
    """Tell what the target cannot carry, and why."""
    reasons = ((one, carry(manifest, one)) for one in _meant(everything=everything))
    return tuple(LeftOut(id=one.id, title=one.title, reason=why) for one, why in reasons if why is not None)


def _fitting(left_out: Collection[str], *, everything: bool) -> list[tuple[Scenario, str | None, str]]:
    return [(one, None, "") for one in _meant(everything=everything) if one.id not in left_out]


def _run(
    manifest: Manifest,
    plans: Sequence[Plan],
    console: Console,
    options: RunOptions,
    hold: Callable[[], None],
) -> Run:
    async def whole(options: RunOptions) -> Run:
        try:
            return await run_suite(manifest, plans, options)
        finally:  # still inside the loop: its end may take a moment, too
            hold()

    with LiveView(console) as view:
        run = uvloop.run(whole(msgspec.structs.replace(options, kit=Kit(progress=view))))
    return msgspec.structs.replace(run, environment=host.facts(Path(run.folder)))


def _report(run: Run, console: Console, *, as_json: bool) -> None:
    folder = Path(run.folder)
    try:
        for reporter in REPORTERS:
            reporter.render(run, folder)
    except OSError as error:
        terminal.print_run(run, console)
        hint = f"make room, then: blackstart recheck {folder}"
        raise ReportError(
            f"the report cannot be written: {error.strerror}", where=str(folder), hint=hint
        ) from error
    terminal.print_run(run, console, report=folder / FILE_NAME)
    if as_json:
        sys.stdout.buffer.write(encode(run))
