"""The HTML report: one file, no network, readable in a browser, on paper and with a screen reader."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from blackstart.errors import HistoryError
from blackstart.history.view import load
from blackstart.model.instant import Stamp, StampName
from blackstart.model.outcome import LOSS_KINDS, PHASES, Rto, Run, StreamLoss, Trial, counted
from blackstart.model.verdict import CheckResult, Verdict
from blackstart.report.drawing import FlowDrawing, Segment, draw_flow, phase_bar
from blackstart.report.flow import Flow, flow, service_times
from blackstart.report.junit import checks
from blackstart.report.legend import legend
from blackstart.report.results_json import timestamp
from blackstart.report.rows import Row, Tally, merged, phase_values, repeated, row, tally
from blackstart.report.wording import DASH, NS_PER_MS, approved_text, count, duration, plural, uncertainty

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE_NAME = "report.html"
LISTED = 200
_TEMPLATES = Path(__file__).parent / "templates"
_SYMBOL = {Verdict.PASS: "\u2713", Verdict.FAIL: "\u2717", Verdict.UNKNOWN: "?"}
VALIDATORS = (
    "positions",
    "orders",
    "risk",
    "pnl",
    "connectivity",
    "market_data",
    "strategy",
    "infrastructure",
)


class PhaseLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table under the phase bar."""

    name: str
    length: str
    share: str
    until: str
    source: str
    uncertainty: str
    inferred: bool


class StreamLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table of losses, and the identifiers behind it."""

    name: str
    loss: StreamLoss
    counts: dict[str, int | None]
    lists: tuple[tuple[str, int, tuple[str, ...]], ...]


class Gaps(msgspec.Struct, frozen=True, kw_only=True):
    """The longest gap of a service that never stopped, beside the usual one, as shares of the longer."""

    longest: str
    usual: str
    longest_share: float
    usual_share: float


class TrialView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the template shows of one trial."""

    anchor: str
    trial: Trial
    row: Row
    bar: tuple[Segment, ...]
    phases: tuple[PhaseLine, ...]
    gaps: Gaps | None
    flow: Flow | None
    drawing: FlowDrawing | None
    no_flow: str
    streams: tuple[StreamLine, ...]
    validators: tuple[tuple[str, CheckResult | None, str], ...]
    checks: tuple[CheckResult, ...]
    witness: str
    fault_parts: tuple[tuple[str, str], ...]


def phase_lines(rto: Rto, *, merge: bool = False) -> tuple[PhaseLine, ...]:
    """Describe each phase by its end: the stamp that closes it, who says so, and how well it is known."""
    values = phase_values(rto, merge=merge)
    names = list(StampName)
    lines = [
        _phase_line(phase, value, rto.stamps.get(names[number + 1]), rto)
        for number, (phase, value) in enumerate(zip(PHASES, values, strict=True))
    ]
    if merge and values[3] is None and values[4] is not None:
        lines[3] = msgspec.structs.replace(lines[3], length=DASH, source="nothing to validate")
    return tuple(lines)


def _phase_line(phase: str, value: int | None, stamp: Stamp | None, rto: Rto) -> PhaseLine:
    share = "" if value is None or not rto.total_ns else f"{value / rto.total_ns:.0%}"
    zero = rto.stamps.get(StampName.FAILURE)
    at = None if stamp is None or zero is None else stamp.mono_ns - zero.mono_ns
    return PhaseLine(
        name=phase,
        length="unknown" if value is None else precise(value),
        share=share,
        until="" if at is None else precise(at),
        source="no stamp" if stamp is None else stamp.source,
        uncertainty=uncertainty(stamp.uncertainty_ns) if stamp and stamp.uncertainty_ns else "",
        inferred=stamp is not None and stamp.inferred,
    )


def precise(ns: int) -> str:
    """Milliseconds to the microsecond below ten of them, else as everywhere."""
    return f"{ns / NS_PER_MS:.3f} ms" if abs(ns) < 10 * NS_PER_MS else duration(ns)


def gaps(rto: Rto) -> Gaps | None:
    """Compare gaps where the service never stopped, or may have."""
    calm = rto.interrupted is False or rto.at_most_ns is not None
    if not calm or rto.longest_gap_ns is None:
        return None
    usual = rto.usual_gap_ns or 0
    longer = max(rto.longest_gap_ns, usual, 1)
    return Gaps(
        longest=duration(rto.longest_gap_ns),
        usual=duration(rto.usual_gap_ns),
        longest_share=100 * rto.longest_gap_ns / longer,
        usual_share=100 * usual / longer,
    )


def stream_lines(trial: Trial) -> tuple[StreamLine, ...]:
    """List each stream with the identifiers of what went wrong in it."""
    return tuple(
        StreamLine(
            name=name,
            loss=loss,
            counts={kind: counted(kind, loss.counts, loss.not_checked) for kind in LOSS_KINDS},
            lists=tuple(
                (kind, loss.counts.get(kind, len(keys)), keys[:LISTED])
                for kind in LOSS_KINDS
                if (keys := getattr(loss, kind))
            ),
        )
        for name, loss in trial.rpo.streams.items()
    )


def read_flow(trial: Trial, folder: Path) -> tuple[Flow | None, str]:
    """Read the order flow from the trial's history; without one, say why there is none."""
    try:
        service, times = service_times(load(folder).records())
    except HistoryError as error:
        return None, f"The history cannot be read: {error.what}."
    zero = trial.rto.stamps.get(StampName.FAILURE)
    if zero is None:
        return None, "The fault was never injected, so there is no moment to look around."
    end = trial.rto.total_ns
    if trial.rto.interrupted is False:
        end = 0
    series = flow(service, times, t0_ns=zero.mono_ns, end_ns=None if end is None else zero.mono_ns + end)
    return series, "" if series else "No event of the service stream was seen."


def trial_view(trial: Trial, folder: Path) -> TrialView:
    """Prepare one trial."""
    series, why_not = read_flow(trial, folder)
    return TrialView(
        anchor="trial-" + "".join(c if c.isalnum() else "-" for c in trial.id),
        trial=trial,
        row=row(trial),
        bar=phase_bar(trial.rto),
        phases=phase_lines(trial.rto, merge=merged(trial)),
        gaps=gaps(trial.rto),
        flow=series,
        drawing=draw_flow(series, trial.rto) if series else None,
        no_flow=why_not,
        streams=stream_lines(trial),
        validators=tuple((n, trial.validation.get(n), trial.not_applicable.get(n, "")) for n in VALIDATORS),
        checks=tuple(result for result in checks(trial) if not result.check.startswith("state.")),
        witness=_witnesses(trial),
        fault_parts=_fault_parts(trial),
    )


def _witnesses(trial: Trial) -> str:
    seen = [one.witness for one in (trial.fault, *trial.then) if one is not None and one.witness]
    return json.dumps(seen[0] if len(seen) == 1 else seen, indent=2, default=str) if seen else ""


def _fault_parts(trial: Trial) -> tuple[tuple[str, str], ...]:
    fault = trial.fault
    if fault is None:
        return (("fault", "none was injected"),)
    reverted = {True: "yes, verified", False: "NO", None: "nothing to take back, or not verifiable"}
    load = "" if trial.load_per_s is None else f"{trial.load_per_s:,.0f}/s at the fault"
    faults = {"fault": fault, **{f"then ({k})": one for k, one in enumerate(trial.then, 1)}}
    broken = (
        pair
        for name, one in faults.items()
        for pair in ((name, one.name), ("mechanism", one.mechanism), ("reverted", reverted[one.reverted]))
    )
    parts = (
        *broken,
        ("load", load),
        ("objectives", ", ".join(f"{name} \u2264 {value:g}" for name, value in trial.objectives.items())),
        ("approval", approved_text(trial.approval) if trial.approval is not None else ""),
    )
    return tuple(part for part in parts if part[1])


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": count, "duration": duration, "symbol": _SYMBOL.__getitem__}
    environment.filters["uncertainty"] = uncertainty
    environment.filters["words"] = lambda name: name.replace("_", " ").replace("pnl", "P&L")
    return environment


def flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested facts to lines, `cpu.count` and so on, for a plain table."""
    lines: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += flat(value, f"{prefix}{name}.")
        else:
            lines.append((f"{prefix}{name}", str(value)))
    return lines


def folder_of(trial: Trial, run_folder: Path) -> Path:
    """Find a trial's folder, also after the whole run was moved elsewhere."""
    own = Path(trial.folder) if trial.folder else run_folder
    moved = run_folder / own.name
    return own if own.is_dir() or not moved.is_dir() else moved


def encode(run: Run, folder: Path) -> str:
    """Render the whole report; `folder` is where the run's histories lie."""
    views: Sequence[TrialView] = [trial_view(trial, folder_of(trial, folder)) for trial in run.trials]
    counts: Tally = tally(run)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            views=views,
            tally=counts,
            title=run.target_title or run.target,
            started=timestamp(run.started_wall_ns)[:19].replace("T", " ") + " UTC",
            trials=plural(len(views), "trial"),
            left_out=plural(len(run.left_out), "scenario"),
            environment=flat(run.environment),
            repeated=repeated(run),
            legend=list(legend((view.row for view in views), phases=True)),
            phases=PHASES,
            loss_kinds=LOSS_KINDS,
        )
    )


class Html:
    """Reporter: writes `report.html` into the run folder."""

    name = "html"

    def render(self, run: Run, folder: Path) -> list[Path]:
        """Write the file."""
        path = folder / FILE_NAME
        path.write_text(encode(run, folder), encoding="utf-8")
        return [path]
