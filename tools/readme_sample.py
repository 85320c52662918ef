"""Put a suite's summary from a `results.json` into README.md, between its `<!-- sample -->` markers.

python tools/readme_sample.py runs/latest/results.json
"""
# ruff: noqa: INP001  # a folder of scripts, not a package

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- sample -->", "<!-- /sample -->"
PHASES = ("detection", "response", "recovery", "validation", "resume")
COLUMNS = ("", "", "verdict", "RTO", "detect", "respond", "recover", "validate", "resume", "RPO", "state", "")
RIGHT = range(3, 10)


def recovery(rto: dict[str, Any]) -> str:
    """Write the recovery time as the reports do."""
    if rto["censored"]:
        return f"> {rto['censored_ms'] / 1000:,.1f} s"
    if rto["total_ms"] is not None:
        return f"{rto['total_ms']:,.1f} ms"
    if rto.get("at_most_ms") is not None:
        return f"\u2264 {rto['at_most_ms']:,.1f} ms"
    return "no interruption" if rto["interrupted"] is False else "-"


def line(trial: dict[str, Any]) -> tuple[str, ...]:
    """Make one line of the table."""
    rto, rpo = trial["rto"], trial["rpo"]
    values = [rto[f"{phase}_ms"] for phase in PHASES]
    phases = ["" if not any(values) else "?" if value is None else f"{value:,.1f}" for value in values]
    lost = "-" if rpo["events"] is None else f"{rpo['events']:,} of {rpo['acknowledged']:,}"
    results = trial["validation"].values()
    state = f"{sum(result['verdict'] == 'PASS' for result in results)}/{len(results)}"
    why = trial["reasons"][0].partition(":")[0] if trial["reasons"] else trial["note"] or ""
    return (trial["id"], trial["title"], trial["verdict"], recovery(rto), *phases, lost, state, why)


def sample(document: dict[str, Any]) -> str:
    """Return the table, indented as the README has it, and the tally."""
    rows = [COLUMNS, *map(line, document["trials"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        padded = (t.rjust(w) if n in RIGHT else t.ljust(w) for n, (t, w) in enumerate(cells))
        lines.append(f"    {'  '.join(padded)}".rstrip())
    verdicts = [trial["verdict"] for trial in document["trials"]]
    tally = ", ".join(f"{verdicts.count(v)} {v.lower()}" for v in ("PASS", "FAIL", "UNKNOWN"))
    return "\n".join([*lines, f"    {len(verdicts)} trials: {tally}"])


def put(text: str, table: str) -> str:
    """Replace what stands between the markers. Raises ValueError when they are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README} has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


if __name__ == "__main__":
    document = msgspec.json.decode(Path(sys.argv[1]).read_bytes())
    README.write_text(put(README.read_text(encoding="utf-8"), sample(document)), encoding="utf-8")
