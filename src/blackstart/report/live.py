"""The live view of a run: what is going on right now, and a line for every trial that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.spinner import Spinner
from rich.text import Text

from blackstart.model.verdict import Verdict
from blackstart.report.lines import Lines
from blackstart.report.rows import row
from blackstart.report.wording import plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from blackstart.model.outcome import Trial

STAGES = {
    "open": "target is up",
    "steady": "steady under load",
    "preparing": "preparing the moment",
    "armed": "guardian armed",
    "triggered": "trigger reached",
    "injected": "fault injected, watching it come back",
    "witnessed": "fault witnessed, watching it come back",
    "observed": "back; a little longer",
    "reverted": "reverted, books settling",
    "quiesced": "books settled, reading state",
    "read": "state read, closing",
    "closed": "checking",
}
_STYLE = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.UNKNOWN: "bold yellow"}
_REFRESH_PER_S = 4  # drawing must not disturb what is measured beside it


class LiveView(Lines):
    """A progress callback for one run. In a terminal the last line lives; a log gets lines only."""

    def __init__(self, out: Console) -> None:
        super().__init__(out, below=self._below, refresh_per_s=_REFRESH_PER_S)
        self._running: dict[str, tuple[str, Spinner]] = {}
        self._handlers |= {
            "run-started": self._run_started,
            "leftovers": self._leftovers,
            "trial-started": self._trial_started,
            "stage": self._stage,
            "trial-ended": self._trial_ended,
            "run-stopped": self._run_stopped,
        }

    def _below(self) -> Group:
        return Group(*(spinner for _, spinner in self._running.values()))

    def _now(self, trial_id: str, what: str) -> None:
        """Say what a trial does; those that run side by side have a line each."""
        if trial_id in self._running:
            head, spinner = self._running[trial_id]
            spinner.update(text=Text.assemble((head, "bold"), ("  " + what, "dim")))

    def _run_started(self, figures: Mapping[str, Any]) -> None:
        self._print(Text(f"{plural(figures['trials'], 'trial')} into {figures['folder']}", "dim"))

    def _leftovers(self, figures: Mapping[str, Any]) -> None:
        self._print(Text(f"an earlier run had left things behind, cleared: {figures['folder']}", "yellow"))

    def _run_stopped(self, figures: Mapping[str, Any]) -> None:
        self._print(Text(f"no further trial begins: {figures['why']}", "bold red"))

    def _trial_started(self, figures: Mapping[str, Any]) -> None:
        number = f"{figures['index'] + 1}/{figures['of']}"
        head = f"{number:>5}  {figures['trial_id']}  {figures['title']}"
        self._running[figures["trial_id"]] = (head, Spinner("dots"))
        self._now(figures["trial_id"], "starting the target")

    def _stage(self, figures: Mapping[str, Any]) -> None:
        self._now(figures["trial_id"], STAGES.get(figures["stage"], figures["stage"]))

    def _trial_ended(self, figures: Mapping[str, Any]) -> None:
        trial: Trial = figures["trial"]
        self._running.pop(trial.id, None)
        self._now(trial.id, "")
        line = row(trial)
        number = f"{figures['index'] + 1}/{figures['of']}"
        parts = [line.rto, f"lost {line.rpo}", f"state {line.state}", line.note]
        details = " · ".join(part for part in parts if part)
        head = f"{number:>5}  {line.id:14} {line.title:28} "
        self._print(Text.assemble(head, (f"{line.verdict:8}", _STYLE[line.verdict]), (details, "dim")))
