"""The result table of a run in a terminal."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from blackstart.check.fault import LEFT_IN_PLACE
from blackstart.model.verdict import Verdict
from blackstart.report.legend import legend
from blackstart.report.rows import repeated, row, tally
from blackstart.report.wording import NS_PER_S, approved_text, plural

if TYPE_CHECKING:
    from typing import TextIO

    from blackstart.model.outcome import Run
    from blackstart.report.rows import Row

_STYLE = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red", Verdict.UNKNOWN: "bold yellow"}
_PHASES = ("detect", "respond", "recover", "validate", "resume")
_FULL_WIDTH = 128
_LOG_WIDTH = 180


class _Patient(Console):
    """A console whose reader may go (`| head`): the work goes on unseen and ends with its own status."""

    def on_broken_pipe(self) -> None:
        """Say nothing more; nothing that is still in the stream's buffer breaks it again."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def console(stream: TextIO) -> Console:
    """Make a console for `stream`: a terminal keeps its width; a file or pipe gets wide lines."""
    found = _Patient(file=stream, highlight=False, soft_wrap=False)
    return found if found.is_terminal else _Patient(file=stream, highlight=False, width=_LOG_WIDTH)


def headline(run: Run) -> Text:
    """Return `Blackstart 0.1.0 · reference firm · 9 trials · seed 7 · 48.2 s`."""
    parts = (
        run.target_title or run.target,
        plural(len(run.trials), "trial"),
        f"seed {run.seed}",
        f"{run.duration_ns / NS_PER_S:.1f} s",
    )
    return Text.assemble(("Blackstart ", "bold"), f"{run.version} · ", " · ".join(parts))


def closing(run: Run, report: Path | None) -> Text:
    """Return the closing line: tally, report, and how to replay the trial that matters most."""
    counts = tally(run)
    verdicts = f"{counts.passed} pass, {counts.failed} fail, {counts.unknown} unknown"
    text = Text.assemble((f"{plural(len(run.trials), 'trial')}: ", "bold"), verdicts)
    if run.interrupted:
        text.append(" · interrupted", "bold yellow")
    if report is not None:
        text.append(f" · report: {report}")
    worst = sorted(run.trials, key=lambda trial: ("FAIL", "UNKNOWN", "PASS").index(trial.verdict))
    if worst:
        text.append(f" · replay one: {copyable(worst[0].replay)}")
    return text


def copyable(line: str) -> str:
    """Return a command of ours as this shell understands it: with its path where PATH finds another or none.

    A program that is not called `blackstart` (`python -m`) says nothing about where that lies.
    """
    name, program = "blackstart", Path(sys.argv[0])
    found = shutil.which(name)
    if program.name != name or not program.is_file() or (found and program.samefile(found)):
        return line
    path = os.path.relpath(program)
    return shlex.quote(path if "/" in path else f"./{path}") + line.removeprefix(name)


def table(run: Run, *, width: int) -> Table:
    """Lay out the summary. Below full width the five phases make room for what they add up to."""
    wide = width >= _FULL_WIDTH
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", collapse_padding=True)
    grid.add_column("", no_wrap=True)
    grid.add_column("", no_wrap=True)
    grid.add_column("verdict", no_wrap=True)
    grid.add_column("RTO", justify="right", no_wrap=True)
    for phase in _PHASES if wide else ():
        grid.add_column(phase, justify="right", no_wrap=True)
    grid.add_column("RPO", justify="right", no_wrap=True)
    grid.add_column("state", no_wrap=True)
    grid.add_column("", overflow="fold")
    for trial in run.trials:
        grid.add_row(*_cells(row(trial), wide=wide))
    return grid


def _cells(line: Row, *, wide: bool) -> list[Text]:
    verdict = Text(line.verdict, _STYLE[line.verdict])
    phases = [Text(text, "dim") for text in (line.phases or ("",) * len(_PHASES))] if wide else []
    plain = (Text(text) for text in (line.rpo, line.state))
    return [
        Text(line.id),
        Text(line.title),
        verdict,
        Text(line.rto, "bold"),
        *phases,
        *plain,
        Text(line.note),
    ]


def left_in_place(run: Run) -> list[str]:
    """Return the commands that take back what Blackstart could not; none, if all is well."""
    found = (f for trial in run.trials for check in trial.checks for f in check.findings)
    return list(dict.fromkeys(str(f.data["by_hand"]) for f in found if f.code == LEFT_IN_PLACE))


def print_run(run: Run, out: Console, *, report: Path | None = None) -> None:
    """Print headline, table and closing line."""
    out.print(headline(run), soft_wrap=True)
    if run.trials:
        out.print(table(run, width=out.width))
    for meaning in legend(map(row, run.trials), phases=out.width >= _FULL_WIDTH):
        out.print(Text(meaning, "dim"), soft_wrap=True)
    for line in repeated(run):
        out.print(Text(line), soft_wrap=True)
    for text in dict.fromkeys(approved_text(one.approval) for one in run.trials if one.approval is not None):
        out.print(Text(text), soft_wrap=True)
    for command in left_in_place(run):
        out.print(
            Text(f"LEFT IN PLACE, take it back by hand:  {command}", "bold white on red"), soft_wrap=True
        )
    end = closing(run, report)
    narrow = out.is_terminal and end.cell_len > out.width  # no word in two: reports and commands are copied
    for part in end.split(" · ") if narrow else [end]:
        out.print(part, soft_wrap=True)
