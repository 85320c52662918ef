"""Run the programs behind docs/performance.md one by one: `python -m bench.run [NAME …] [--out FILE]`.

Each prints one JSON document with `--json`; they run alone, because two at a time would measure each other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIMIT_S = 900


def programs() -> dict[str, list[str]]:
    """Return every program by name: the files beside this one, and the calibration."""
    files = sorted(path for path in HERE.glob("*.py") if path.name not in {"run.py", "__init__.py"})
    found = {path.stem: [sys.executable, str(path), "--json"] for path in files}
    found["calibrate"] = [sys.executable, "-m", "blackstart.cli.main", "calibrate", "--json"]
    return found


def measure(name: str, command: list[str]) -> dict[str, Any]:
    """Run one program; its result, or what it said instead."""
    print(f"{name} …", file=sys.stderr, flush=True)
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"error": f"not done within {LIMIT_S} s"}
    facts: dict[str, Any] = {"status": done.returncode, "took_s": round(time.monotonic() - began, 1)}
    try:
        return {**facts, "result": json.loads(done.stdout)}
    except json.JSONDecodeError:
        return {**facts, "error": (done.stderr or done.stdout).strip()[-2000:]}


def main() -> int:
    """Run what was asked for, print one document; status 1 when any program did not reach its goal."""
    known = programs()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(known)}")
    parser.add_argument("--out", type=Path, help="also write the document to this file")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no such program: {', '.join(unknown)}; there are: {', '.join(known)}")
    chosen = options.names or list(known)
    host = {"kernel": platform.release(), "python": platform.python_version(), "cpus": os.cpu_count()}
    results = {name: measure(name, known[name]) for name in chosen}
    text = json.dumps({"host": host, "programs": results}, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 1 if any(one.get("status") != 0 for one in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
