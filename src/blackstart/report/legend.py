"""What the marks of the summary table mean: the same words in the terminal and in the HTML report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.model.verdict import Verdict
from blackstart.report.rows import AT_MOST, NEARLY_ZERO, UNCHECKED
from blackstart.report.wording import DASH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blackstart.report.rows import Row

_VALIDATE = 3
UNKNOWN_PHASE = "?: nobody could measure this phase"
OPEN_PHASE = f"{UNKNOWN_PHASE}; beside a PASS: the fault ended no part of the target, or the service went on"
BOUNDED_PHASE = "<N: the phase is no longer than N; its stamps are no surer"
SHORT_PHASE = f"{NEARLY_ZERO}: the phase is shorter than 0.05 ms; its stamps are no surer"
NOTHING_TO_VALIDATE = (
    f"validate {DASH}: there was no state to validate; resume is the whole rest of the recovery"
)
NOT_BACK = ">: not back when watching ended, after that long"
NOT_TOLD_APART = (
    f"{AT_MOST}: no outage that could be told from a hiccup of the busy host, or one that had ended by then"
)
UNCHECKED_EVENTS = f"{UNCHECKED} under RPO: {{}} not checked in every stream; the report says in which"
NOTHING_KNOWN = f"{DASH} under RTO, RPO or state: nobody could measure it, or nothing was checked"


def legend(rows: Iterable[Row], *, phases: bool) -> Iterator[str]:
    """Explain each mark that stands in the table; `phases`: they are shown."""
    lines = list(rows)
    cells = [cell for line in lines for cell in line.phases] if phases else []
    if "?" in cells:
        passed = any("?" in line.phases for line in lines if line.verdict is Verdict.PASS)
        yield OPEN_PHASE if passed else UNKNOWN_PHASE
    if any(cell.startswith("<") for cell in cells):
        yield BOUNDED_PHASE
    if NEARLY_ZERO in cells:
        yield SHORT_PHASE
    if phases and any(line.phases[_VALIDATE : _VALIDATE + 1] == (DASH,) for line in lines):
        yield NOTHING_TO_VALIDATE
    if any(line.rto.startswith(">") for line in lines):
        yield NOT_BACK
    if any(line.rto.startswith(AT_MOST) for line in lines):
        yield NOT_TOLD_APART
    left = sorted({what for line in lines if line.rpo.endswith(UNCHECKED) for what in line.unchecked})
    if left:
        yield UNCHECKED_EVENTS.format(", ".join(left))
    if any(DASH in (line.rto, line.rpo, line.state) for line in lines):
        yield NOTHING_KNOWN
