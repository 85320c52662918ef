"""Run the programs behind docs/performance.md one by one, in order, one line a figure.

`python -m bench.run [--only NAME …] [--out FILE] [--write]`; `--write` puts the figures into the table of
docs/performance.md. The programs run alone, because two at a time would measure each other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence  # noqa: TC003 - READERS is annotated with it
from pathlib import Path
from typing import Any, NamedTuple

from blackstart.model.outcome import LOSS_KINDS

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
LIMIT_S = 1800
TRIALS = 20
ERROR_MEDIAN_MS, ERROR_P99_MS, DEATH_MS = 1.0, 5.0, 0.3
FAILOVER_MEDIAN_MS, FAILOVER_MAX_MS = 100.0, 500.0
SUITE_S, FIRST_SUITE_S = 180.0, 120.0
FIRST = ("R1", "R2", "R3", "R24", "R25", "R33", "R7")
"""The scenarios of the first suite: whether those eleven trials still take no longer is measured, too."""
AUDIT_S, AUDIT_MB = 10.0, 2048
THOUSAND, COLUMNS = 1000, 4


class Figure(NamedTuple):
    """One figure of a program: the row of the table that begins so, its text, and whether it is good."""

    row: str
    text: str
    good: bool


def programs() -> dict[str, list[str]]:
    """Return every program by name, in the order in which they run."""
    own = ("exchange", "firm_path", "warm_restart", "cold_restart", "audit", "death_notice", "fix_session")
    found = {name: [sys.executable, str(HERE / f"{name}.py"), "--json"] for name in own}
    product = [sys.executable, "-m", "blackstart.cli.main"]
    found["fixsession"] = found.pop("fix_session")  # a script of that name would hide the package
    found["calibrate"] = [*product, "calibrate", "--json"]
    found["failover"] = [*product, "run", "R1", "--repeat", str(TRIALS), "--json"]
    found["first_suite"] = [*product, "suite", "--json", *(f"--only={name}" for name in FIRST)]
    found["suite"] = [*product, "suite", "--json"]
    return found


def measure(command: list[str]) -> dict[str, Any]:
    """Run one program; its result, or what it said instead."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="blackstart-bench-") as folder:
        root = str(HERE.parent)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
        target = ["--target", f"{root}/targets/paperfirm.toml"] if {"run", "suite"} & set(command) else []
        try:
            done = subprocess.run(
                [*command, *target],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done within {LIMIT_S} s"}
    facts: dict[str, Any] = {"status": done.returncode, "took_s": round(time.monotonic() - began, 1)}
    try:
        return {**facts, "result": json.loads(done.stdout)}
    except json.JSONDecodeError:
        return {**facts, "error": (done.stderr or done.stdout).strip()[-2000:]}


def calibrated(found: dict[str, Any], _: float) -> list[Figure]:
    """Figures of the calibration."""
    error, death = found["error"], found["death_notice"]
    good = error["median_ms"] <= ERROR_MEDIAN_MS and error["p99_ms"] <= ERROR_P99_MS
    good = good and not found["outside"] and not found["unmeasured"]
    text = f"median {error['median_ms']:.2f} ms, p99 {error['p99_ms']:.2f} ms, {found['outside']} outside"
    sums = found["outages"] - found["phases_not_summing"]
    return [
        Figure("RTO error", text, good),
        Figure("death of a process", f"median {death['median_ms']:.2f} ms", death["median_ms"] <= DEATH_MS),
        Figure("phases", f"{sums} of {found['outages']}", sums == found["outages"]),
    ]


def failed_over(found: dict[str, Any], _: float) -> list[Figure]:
    """Figures of the repeated failovers; one without a recovery time or a count of losses is not good."""
    trials = found["trials"]
    totals = sorted(t["rto"]["total_ms"] for t in trials if t["rto"]["total_ms"] is not None)
    lost = [t["rpo"]["events"] for t in trials]
    if not totals:
        return [Figure("hot failover", "no recovery time", good=False)]
    middle = totals[len(totals) // 2]
    known = sum(n for n in lost if n is not None)
    text = f"median {middle:.1f} ms, max {totals[-1]:.1f} ms, {known} lost, {len(totals)} trials"
    good = len(totals) == len(trials) == TRIALS and middle <= FAILOVER_MEDIAN_MS
    good = good and totals[-1] <= FAILOVER_MAX_MS
    return [Figure("hot failover", text, good and not any(n is None or n for n in lost))]


def suite(row: str, limit_s: float) -> Callable[[dict[str, Any], float], list[Figure]]:
    """Read how long a suite took; one with a trial that did not pass is no good time."""

    def read(found: dict[str, Any], took_s: float) -> list[Figure]:
        verdicts = [trial["verdict"] for trial in found["trials"]]
        passed = verdicts.count("PASS")
        text = f"{took_s:.0f} s, {passed} of {len(verdicts)} trials passed"
        return [Figure(row, text, took_s <= limit_s and passed == len(verdicts) > 0)]

    return read


def audited(found: dict[str, Any], _: float) -> list[Figure]:
    """How long the audit took and how much memory; with a list that is not exact neither is good."""
    wrong = [kind for kind in LOSS_KINDS if found["exact"][kind] is not True]
    lists = f"lists wrong: {', '.join(wrong)}" if wrong else "lists exact"
    text = f"{found['wall_s']:.1f} s, at most {found['peak_rss_mb']:,} MB, {lists}"
    good = found["wall_s"] <= AUDIT_S and found["peak_rss_mb"] <= AUDIT_MB and not wrong
    return [Figure("audit", text, good)]


def simple(
    row: str,
    key: str,
    unit: str,
    *,
    most: float = float("inf"),
    least: float = 0.0,
    zero: Sequence[str] = (),
    true: Sequence[str] = (),
    ratio: tuple[str, str] | None = None,
) -> Callable[[dict[str, Any], float], list[Figure]]:
    """Make a reader of one figure with bounds; dots in a key reach into objects.

    A fast program that got it wrong is no good: what `zero` names must be 0, what `true` names True. `ratio`
    is the key and the name of what the figure is compared with in the same run.
    """

    def read(found: dict[str, Any], _: float) -> list[Figure]:
        value = _at(found, key)
        wrong = [name for name in zero if _at(found, name) != 0]
        wrong += [name for name in true if _at(found, name) is not True]
        text = f"{value:,.4g}" if value < THOUSAND else f"{value:,.0f}"
        text += f" {unit}" + (f", {_at(found, ratio[0]):g} \u00d7 {ratio[1]}" if ratio else "")
        text += f", but {', '.join(wrong)} is wrong" if wrong else ""
        return [Figure(row, text, least <= value <= most and not wrong)]

    return read


def _at(found: dict[str, Any], key: str) -> Any:
    value: Any = found
    for part in key.split("."):
        value = value[part]
    return value


AUDITED = ("lost", "phantom", "duplicated", "accepted_lost")

READERS: dict[str, tuple[Callable[[dict[str, Any], float], list[Figure]], ...]] = {
    "exchange": (simple("exchange, sustained", "orders_per_s", "orders/s", least=2000),),
    "firm_path": (
        simple(
            "engine event path",
            "path_ms.p50",
            "ms",
            most=1,
            zero=[f"audit.{one}" for one in AUDITED],
            ratio=("ratio_to_floor", "one round trip and fdatasync"),
        ),
    ),
    "warm_restart": (
        simple(
            "warm restart",
            "total_s",
            "s",
            most=2,
            zero=("lost", "duplicated"),
            ratio=("ratio_to_floor", "start and raw read"),
        ),
    ),
    "cold_restart": (
        simple(
            "cold restart",
            "total_s",
            "s",
            most=10,
            zero=("lost", "duplicated"),
            ratio=("ratio_to_fetch", "the bare fetch"),
        ),
    ),
    "audit": (audited,),
    "death_notice": (simple("death notice alone", "median_ms", "ms", most=0.3),),
    "fixsession": (
        simple("FIX session, send", "file.send_us", "µs", most=100),
        simple("FIX session, receive", "file.receive_us", "µs", most=100),
    ),
    "calibrate": (calibrated,),
    "failover": (failed_over,),
    "first_suite": (suite("the first 11 trials", FIRST_SUITE_S),),
    "suite": (suite("`make suite`", SUITE_S),),
}


def figures(name: str, found: dict[str, Any]) -> list[Figure]:
    """Read a program's figures; one that did not run or lacks its figure says so."""
    if "result" not in found:
        return [Figure(name, f"no result: {found['error'].splitlines()[-1:]}", good=False)]
    try:
        return [one for read in READERS[name] for one in read(found["result"], found["took_s"])]
    except (KeyError, TypeError) as error:
        return [Figure(name, f"the result has no {error}", good=False)]


def written(page: str, chosen: list[Figure]) -> str:
    """Put figures into the `measured` column of the rows that begin with their names."""
    lines = page.splitlines()
    for number, line in enumerate(lines):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        fit = next((one for one in chosen if line.startswith(f"| {one.row}")), None)
        if fit is not None and len(cells) == COLUMNS:
            mark = "" if fit.good else " (missed)"
            lines[number] = f"| {' | '.join([*cells[:2], fit.text + mark, cells[3]])} |"
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run what was asked for, a line a figure; status 1 when any program did not reach its goal."""
    known = programs()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(known), default=list(known), metavar="NAME")
    parser.add_argument("--out", type=Path, help="also write everything that was measured to this file")
    parser.add_argument("--write", action="store_true", help="write the table of docs/performance.md")
    options = parser.parse_args()
    host = {"kernel": platform.release(), "python": platform.python_version(), "cpus": os.cpu_count()}
    results, chosen = {}, list[Figure]()
    for name in options.only:
        results[name] = measure(known[name])
        for one in figures(name, results[name]):
            print(f"{'ok    ' if one.good else 'MISSED'}  {name:13} {one.row:28} {one.text}", flush=True)
            chosen.append(one)
    if options.out is not None:
        options.out.write_text(json.dumps({"host": host, "programs": results}, indent=2) + "\n")
    if options.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), chosen), encoding="utf-8")
    return 0 if all(one.good for one in chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
