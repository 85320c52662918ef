"""How fast is the ledger audit, and is it exact? Two Parquet files of known damage, checked key by key.

    python bench/audit.py [--events 10000000] [--memory 1GB] [--json]

The ratio compares with a physical limit of the same run: DuckDB reading the same columns of both files,
and nothing else.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from blackstart.check.audit import audit

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 10.0
# Which events are damaged: those whose number leaves the remainder of the kind, modulo a large prime.
STEP = 100_003
KINDS = {"lost": 1, "corrupted": 2, "duplicated": 3, "indeterminate": 4, "late": 5, "reordered": 6}


def key(number: int) -> str:
    return f"E{number:010d}"


def write(folder: Path, events: int) -> tuple[Path, Path]:
    """Write both sides; the held one is damaged, and has one phantom for every lost event."""
    ours, theirs = folder / "acknowledged.parquet", folder / "recovered.parquet"
    outcome = f"CASE WHEN i % {STEP} = {KINDS['indeterminate']} THEN 'info' ELSE 'ok' END"
    identity = "'E' || lpad(i::VARCHAR, 10, '0')"
    with duckdb.connect() as con:
        con.execute(f"""COPY (SELECT {identity} AS key, i AS seq, left(md5(i::VARCHAR), 16) AS content,
            1000000000 + i * 2500 AS mono_ns, {outcome} AS outcome, (i % 1000) * 10000 AS notional
            FROM range(1, {events + 1}) t(i)) TO '{ours}' (FORMAT parquet)""")
        content = f"CASE WHEN i % {STEP} = {KINDS['corrupted']} THEN 'x' ELSE left(md5(i::VARCHAR), 16) END"
        # A reordered event is held behind its successor; a late one far behind, and flagged.
        place = f"""CASE i % {STEP} WHEN {KINDS["reordered"]} THEN 10 * i + 15
            WHEN {KINDS["late"]} THEN 10 * i + 9995 ELSE 10 * i END"""
        row = f"{identity} AS key, {place} AS seq, {content} AS content, i % {STEP} = {KINDS['late']} AS late"
        numbers = f"FROM range(1, {events + 1}) t(i)"
        gone = f"({KINDS['lost']}, {KINDS['indeterminate']})"
        con.execute(f"""COPY (SELECT {row} {numbers} WHERE i % {STEP} NOT IN {gone}
            UNION ALL SELECT {row} {numbers} WHERE i % {STEP} = {KINDS["duplicated"]}
            UNION ALL SELECT 'GHOST' || i, 10 * i, 'x', false {numbers} WHERE i % {STEP} = {KINDS["lost"]}
            ) TO '{theirs}' (FORMAT parquet)""")
    return ours, theirs


def expected(events: int) -> dict[str, list[str]]:
    found = {kind: [key(n) for n in range(rest, events + 1, STEP)] for kind, rest in KINDS.items()}
    found["phantom"] = [f"GHOST{n}" for n in range(KINDS["lost"], events + 1, STEP)]
    if found["reordered"] and found["reordered"][-1] == key(events):
        found["reordered"].pop()  # the very last event has nobody to be behind
    return found


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, used = time.perf_counter(), time.process_time()
    answer = work()
    return answer, time.perf_counter() - wall, time.process_time() - used


def scan(ours: Path, theirs: Path, threads: int) -> None:
    """Read every column that the audit reads, of every row."""
    with duckdb.connect(config={"threads": threads}) as con:
        for path, columns in ((ours, "key, seq, content, outcome"), (theirs, "key, seq, content, late")):
            con.execute(f"SELECT bit_xor(hash({columns})) FROM read_parquet('{path}')").fetchall()


def exact(result: Any, events: int) -> dict[str, bool]:
    """Compare whole lists, as written to files, with what was done to the ledger."""
    answers = {}
    for kind, wanted in expected(events).items():
        path = result.files.get(kind)
        lines = Path(path).read_text().splitlines() if path else []
        answers[kind] = sorted(json.loads(line)["key"] for line in lines) == sorted(wanted)
    return answers


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    ours, theirs = write(folder, options.events)
    _, scan_s, _ = timed(lambda: scan(ours, theirs, options.threads))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result, wall_s, cpu_s = timed(
        lambda: audit(ours, theirs, out=folder / "out", threads=options.threads, memory_limit=options.memory)
    )
    return {
        "events_a_side": options.events,
        "threads": options.threads,
        "memory_limit": options.memory,
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_s, 3),
        "cpu_s_per_thread": round(cpu_s / options.threads, 3),
        "scan_s": round(scan_s, 3),
        "ratio_to_scan": round(wall_s / scan_s, 2),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "rss_before_mb": before // 1024,
        "counts": result.counts,
        "exact": exact(result, options.events),
        "limit_s": LIMIT_S,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="blackstart-bench-") as folder:
        figures = measure(Path(folder), options)
    good = all(figures["exact"].values()) and figures["wall_s"] <= LIMIT_S
    if options.json:
        print(json.dumps({**figures, "passed": good}))
    else:
        print("\n".join(f"{name:>18}  {value}" for name, value in figures.items()))
        print(f"{'':>18}  {'passed' if good else 'NOT REACHED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
