"""Run the programs behind docs/performance.md one by one, in order, one line a figure.

`python -m bench.run [--only NAME …] [--out FILE] [--write]`; `--write` puts the figures into the table of
docs/performance.md. The programs run alone, because two at a time would measure each other. Soaks run short:
one suite, six minutes of chaos; whoever wants thirty or an hour calls them by themselves.
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
LIMIT_S = 3600
TRIALS = 20
ERROR_MEDIAN_MS, ERROR_P99_MS, DEATH_MS = 1.0, 5.0, 0.3
FAILOVER_MEDIAN_MS, FAILOVER_MAX_MS = 100.0, 500.0
SUITE_S, FIRST_SUITE_S = 180.0, 120.0
FIRST = ("R1", "R2", "R3", "R24", "R25", "R33", "R7")
"""The scenarios of the first suite: whether those eleven trials still take no longer is measured, too."""
AUDIT_S, AUDIT_MB = 10.0, 2048
INJECTED_MS, KILLED_MS, FAR_DEATH_MS = 20.0, 100.0, 2.0
THOUSAND, COLUMNS = 1000, 4
SHORT = {
    "guardian_matrix": ("--jobs", "2"),
    "suite_soak": ("--runs", "1"),
    "chaos_soak": ("--minutes", "6"),
}
"""What is asked of programs that could run for hours."""


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
    whole = ("network", "faults", "halt", "guardian_matrix", "remote", "suite_soak", "chaos_soak")
    found |= {name: [sys.executable, "-m", f"bench.{name}", "--json", *SHORT.get(name, ())] for name in whole}
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


def over_a_link(found: dict[str, Any], _: float) -> list[Figure]:
    """Read what a message costs more by proxy and queue, how soon links break, and work again."""
    rows = []
    for way, cost in found["cost"].items():
        p50, p99, ratio = cost["p50"]["added_us"], cost["p99"]["added_us"], cost["throughput_ratio"]
        text = f"+{p50:.0f} \u00b5s p50, +{p99:.0f} \u00b5s p99, {ratio:.2f} \u00d7 the bytes a second"
        rows.append(Figure(f"message through the {way}", text, good=True))
    slowest = max(found["faults"], key=lambda kind: float(found["faults"][kind]["inject_ms"]))
    worst, killed = found["faults"][slowest]["inject_ms"], found["killed_ms"]
    text = f"at most {worst:.1f} ms ({slowest})"
    rows.append(Figure("network fault injected", text, worst <= INJECTED_MS))
    text = f"median {killed['median']:.1f} ms (max {killed['max']:.1f})"
    return [*rows, Figure("link works again", text, killed["median"] <= KILLED_MS)]


def broken(found: dict[str, Any], _: float) -> list[Figure]:
    """How soon each kind takes effect and is taken back; one that could not be tried makes it no good."""
    into, back = found["inject_ms"], found["revert_ms"]
    text = f"{found['measured']} of {found['of']} kinds: median {into['median']:.1f} ms"
    text += f", slowest {into['slowest']:.1f}" + (f" ({', '.join(found['slow'])})" if found["slow"] else "")
    text += f"; taken back: median {back['median']:.1f} ms, slowest {back['slowest']:.1f}"
    good = not found["slow"] and not found["mistakes"] and found["measured"] > 0
    return [Figure("each kind of fault injected", text, good)]


def halted(found: dict[str, Any], _: float) -> list[Figure]:
    """How soon everything is taken back, from the start of the command on."""
    last, pull, command = found["reverted_ms"], found["reverted_since_pull_ms"], found["command_ms"]
    text = (
        f"{last['median']:.0f} ms (max {last['max']:.0f}) from the start of the command, {pull['median']:.0f}"
    )
    text += f" (max {pull['max']:.0f}) from the pull; the whole command {command['median']:.0f} ms"
    text += f", LEFT: {len(found['left'])}" if found["left"] else ""
    return [Figure("kill switch", text, found["good"])]


def matrix(found: dict[str, Any], _: float) -> list[Figure]:
    """Read what was left in place, however Blackstart ended."""
    left = len(found["left"]) + len(found["left_on_the_host"])
    times = found["revert_ms"]["process and network"]
    text = f"{left or 'nothing'} in {found['cells']} cells of {found['kinds']} kinds"
    text += f"; median {times['median']:.0f} ms, max {times['max']:.0f}" if times["n"] else ""
    return [Figure("left in place", text, found["good"])]


def distant(found: dict[str, Any], _: float) -> list[Figure]:
    """Read what another host costs."""
    death, wake = found["death_known_ms"]["median"], found["runs_again_ms"]["median"]
    text = f"death known after {death:.2f} ms, runs again after {wake:.1f} ms, {found['outside']} outside"
    good = found["outside"] == 0 and death <= FAR_DEATH_MS and wake <= KILLED_MS
    return [Figure("another host", text, good)]


def soaked(found: dict[str, Any], _: float) -> list[Figure]:
    """Whether a suite from another seed passed whole."""
    text = ", ".join(f"{count} {name}" for name, count in found["verdicts"].items()) or "no trial"
    return [
        Figure("suite soak, short", text, set(found["verdicts"]) == {"PASS"} and not found["broken_runs"])
    ]


def chaotic(found: dict[str, Any], _: float) -> list[Figure]:
    """Whether a session of chaos held out."""
    bad = "; ".join(found["bad"])
    text = f"{found['faults']} faults, {found['lost']} lost" + (f", but {bad}" if bad else "")
    return [Figure("chaos on the reference firm, six minutes", text, not bad)]


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
    "network": (over_a_link,),
    "faults": (broken,),
    "halt": (halted,),
    "guardian_matrix": (matrix,),
    "remote": (distant,),
    "suite_soak": (soaked,),
    "chaos_soak": (chaotic,),
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
