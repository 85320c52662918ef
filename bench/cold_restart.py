"""Time of a cold restart: nothing on the firm's disk, 100,000 executions at the exchange.

`--json` for figures only.

Measured from the start of the engine's process (the supervisor's stamp) to `trading_started`. The ratio
compares with merely fetching the same executions from the exchange over HTTP.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from firm_path import exchange, executions, firm, ready

START_LIMIT_S = 60.0


def events(folder: Path) -> list[dict[str, Any]]:
    """All events of supervisor and engines, in order of time."""
    found = []
    for path in (folder / "firm" / "events").glob("*.jsonl"):
        if path.stem.startswith(("engine", "supervisor")):
            found += [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(found, key=lambda event: event["mono_ns"])


def restart(found: list[dict[str, Any]], after_ns: int) -> dict[str, Any]:
    """Stages of the first engine that traded after `after_ns`, in seconds since its process started."""
    later = [event for event in found if event["mono_ns"] >= after_ns]
    traded = next(event for event in later if event["event"] == "trading_started")
    started = next(
        event["mono_ns"]
        for event in later
        if event["event"] == "component_started" and event["detail"]["component"] == traded["component"]
    )
    stages = {
        event["event"]: round((event["mono_ns"] - started) / 1e9, 3)
        for event in later
        if event["component"] == traded["component"] and started <= event["mono_ns"] <= traded["mono_ns"]
    }
    return {"total_s": stages["trading_started"], "stages_s": stages}


async def measure(folder: Path, count: int) -> dict[str, Any]:
    """Start exchange and firm, wait until it trades, compare the books."""
    with exchange(folder, "--preload-executions", str(count)) as market, firm(folder) as ends:
        await ready(ends, START_LIMIT_S)
        result = restart(events(folder), 0)
        began = time.monotonic()
        theirs = await executions(f"{market['http']}/accounts/FIRM/executions")
        result["ratio_to_fetch"] = round(result["total_s"] / (time.monotonic() - began), 1)
        ours = await executions(f"{ends['http']}/state/executions")
        result["executions"] = len(ours)
        result["lost"] = len(set(theirs) - set(ours))
        result["duplicated"] = len(ours) - len(set(ours))
        return result


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="use and keep this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cold-restart-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        result = uvloop.run(measure(folder, options.executions))
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
