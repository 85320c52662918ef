"""`blackstart validate`: whether the manifest is right, and which scenarios it can carry."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, get_args, get_type_hints

import msgspec
from rich.table import Table
from rich.text import Text

from blackstart.chaos.profiles import OVERLAY
from blackstart.check.expectations import undeclared
from blackstart.engine import permit
from blackstart.errors import BlackstartError, PermitError
from blackstart.faults import registry
from blackstart.model.scenario import Scenario
from blackstart.report.terminal import console
from blackstart.report.wording import plural
from blackstart.scenario import load as scenarios
from blackstart.scenario import plan
from blackstart.target import commands, managed
from blackstart.target import manifest as manifests
from blackstart.target.doubts import doubts
from blackstart.target.problems import never_passes

if TYPE_CHECKING:
    from blackstart.model.manifest import Manifest


class Fit(msgspec.Struct, frozen=True):
    """Whether a scenario fits: the trials it makes, or why not.

    `not_told` are signs that it expects and the manifest does not describe: its trials cannot be PASS.
    `standard` ones are what `suite` runs; the others are run by name.
    """

    id: str
    title: str
    trials: tuple[str, ...]
    why_not: str | None
    not_told: tuple[str, ...] = ()
    standard: bool = True


def fit(manifest: Manifest, scenario: Scenario) -> Fit:
    """Ask planner and fault whether a target can carry a scenario."""
    why_not = plan.carry(manifest, scenario)
    trials: tuple[str, ...] = ()
    if why_not is None:
        try:
            steps = (scenario.fault, *scenario.then)
            found = (registry.unavailable(registry.make(step.kind), manifest, step) for step in steps)
            why_not = next((reason for reason in found if reason is not None), None)
            trials = tuple(one.trial_id for one in plan.plan(scenario, manifest, seed=0))
        except BlackstartError as error:
            why_not = error.what
    if why_not is not None:
        return Fit(scenario.id, scenario.title, (), why_not, standard=scenario.standard)
    not_told = tuple(undeclared(manifest, scenario.expect))
    return Fit(scenario.id, scenario.title, trials, None, not_told, standard=scenario.standard)


def warnings(manifest: Manifest) -> list[str]:
    """Say what a right manifest still will not do: run here, ever be PASS, or see all that it should."""
    try:
        permit.check(manifest)
        refused = []
    except PermitError as error:
        without = "" if manifest.environment is None else "without an approval "
        told = f"{without}every run will be refused (status {error.exit_status})"
        refused = [f"{told}: {error.what}; {error.hint}"]
    absent = [f"every run will be UNKNOWN as long as {problem}" for problem in managed.problems(manifest)]
    return (
        refused
        + absent
        + [f"this manifest can never PASS, because {reason}" for reason in never_passes(manifest)]
        + list(commands.absent(manifest))
        + doubts(manifest)
        + _aimless(manifest)
    )


def _aimless(manifest: Manifest) -> list[str]:
    """Name the objectives that hold for nothing shipped: a misspelt trial would be judged without them."""
    known = {OVERLAY, *get_args(get_type_hints(Scenario)["recovery"])}
    for scenario in scenarios.packaged() if manifest.objectives else ():
        known.add(scenario.id)
        with suppress(BlackstartError):
            known |= {one.trial_id for one in plan.plan(scenario, manifest, seed=0)}
    return [
        f'objectives."{name}" holds for no shipped scenario and no trial of this target'
        for name in manifest.objectives
        if name not in known
    ]


def validate(target: str, *, as_json: bool) -> int:
    """Print what fits; status 1 when nothing does. Raises ManifestError with what is wrong."""
    manifest = manifests.load(target)
    fits = [fit(manifest, scenario) for scenario in scenarios.packaged()]
    if as_json:
        document: dict[str, object] = {
            "manifest": str(manifests.find(target)),
            "target": manifest.name,
            "scenarios": fits,
        }
        document["warnings"] = warnings(manifest)
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    else:
        _print(manifest, str(manifests.find(target)), fits)
    return 0 if any(one.why_not is None for one in fits) else 1


def _print(manifest: Manifest, path: str, fits: list[Fit]) -> None:
    out = console(sys.stdout)
    out.print(
        Text.assemble(("\u2713 ", "bold green"), f"{path}: {manifest.title or manifest.name}"), soft_wrap=True
    )
    components = plural(len(manifest.components), "component")
    out.print(f"  environment {manifest.environment}, {components}", soft_wrap=True)
    for text in warnings(manifest):
        out.print(Text.assemble(("! ", "bold yellow"), text), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for one in fits:
        mark = Text("\u2713", "bold green") if one.why_not is None else Text("\u2013", "bold yellow")
        detail = Text(", ".join(one.trials)) if one.why_not is None else Text(one.why_not, "dim")
        if not one.standard:
            detail.append("  by name only, not in the suite", "dim")
        if one.not_told:
            detail.append(f"  UNKNOWN until [signs] describes: {', '.join(one.not_told)}", "yellow")
        table.add_row(mark, Text(one.id), Text(one.title), detail)
    out.print(table)
    able = [one for one in fits if one.why_not is None]
    standard = sum(one.standard for one in able)
    out.print(f"{len(able)} of {len(fits)} scenarios fit, {standard} of them in the suite", soft_wrap=True)
