"""The whole suite again and again, each time from another seed: a correct system must never fail.

`python -m bench.suite_soak [--runs 30] [--seed 1] [--target T] [--only ID …] [--jobs N] [--keep DIR]`.
Must: no FAIL, and where root is available no UNKNOWN. Runs with anything but PASS are kept, with the line
that replays each.
"""

from __future__ import annotations

import argparse
import collections
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT_S = 900


def once(seed: int, options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Run the suite once; what did not pass stays in `out`."""
    command = [
        sys.executable,
        "-m",
        "blackstart.cli",
        "suite",
        "--json",
        "--seed",
        str(seed),
        "--out",
        str(out),
    ]
    command += ["--target", options.target] if options.target else []
    command += ["--jobs", str(options.jobs)] if options.jobs else []
    command += [part for name in options.only for part in ("--only", name)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    took_s = time.monotonic() - began
    if not done.stdout:
        return {"seed": seed, "took_s": took_s, "trials": [], "error": done.stderr.strip()[-500:]}
    found = json.loads(done.stdout)["trials"]
    bad = [
        {
            "trial": one["id"],
            "verdict": one["verdict"],
            "reasons": one["reasons"][:3],
            "replay": one["replay"],
        }
        for one in found
        if one["verdict"] != "PASS"
    ]
    if not bad:
        shutil.rmtree(out, ignore_errors=True)
    return {"seed": seed, "took_s": took_s, "trials": [one["verdict"] for one in found], "bad": bad}


def main() -> int:
    """Print a line a run and the sum; status 1 when anything did not pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", default="")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=None, help="where runs that did not pass are kept")
    parser.add_argument("--json", action="store_true", help="as always: for `bench.run`")
    options = parser.parse_args()
    root = options.keep or Path(tempfile.mkdtemp(prefix="suite-soak-"))
    total: collections.Counter[str] = collections.Counter()
    times, errors = [], 0
    for number in range(options.runs):
        run = once(options.seed + number, options, root / f"seed-{options.seed + number}")
        total.update(run["trials"])
        times.append(run["took_s"])
        errors += "error" in run
        told = run.get("error") or "; ".join(
            f"{b['trial']} {b['verdict']} {b['reasons'][:1]}" for b in run["bad"]
        )
        print(
            f"{number + 1:3} seed {run['seed']} {run['took_s']:.0f} s {told or 'all PASS'}",
            file=sys.stderr,
            flush=True,
        )
    summary = {
        "runs": options.runs,
        "trials": total.total(),
        "verdicts": dict(total),
        "broken_runs": errors,
        "suite_s": {"median": round(statistics.median(times), 1), "max": round(max(times), 1)},
        "kept": str(root),
    }
    print(json.dumps(summary, indent=2))
    return 0 if not errors and set(total) == {"PASS"} else 1


if __name__ == "__main__":
    sys.exit(main())
