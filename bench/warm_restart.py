"""Time of a warm restart: 100,000 events in the journal since the last checkpoint.

`--json` for figures only.

The firm is filled from an exchange with that many executions, without checkpoints; then every process of it
is killed (SIGKILL to the supervisor takes all with it) and it is started again. Measured from the start of
the engine's process to `trading_started`. The ratio compares with the machine's own floor: an interpreter's
start, and all bytes of both journals read with their CRC.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from cold_restart import START_LIMIT_S, events, restart
from firm_path import exchange, executions, firm, ready
from floor import read_s

NEVER = """[engine]
checkpoint_s = 1e9
checkpoint_events = 1000000000
"""


async def measure(folder: Path, count: int) -> dict[str, Any]:
    """Fill, kill, start again, compare the books."""
    config = folder / "config.toml"
    config.write_text(NEVER)
    with exchange(folder, "--preload-executions", str(count)) as market:
        with firm(folder, "--config", str(config)) as ends:
            await ready(ends, START_LIMIT_S)
            os.kill(ends["pid"], signal.SIGKILL)
        floor_s = read_s((folder / "firm" / "state").glob("engine-*/journal/*.seg"))
        killed_ns = time.monotonic_ns()
        with firm(folder, "--config", str(config)) as ends:
            await ready(ends, START_LIMIT_S)
            found = events(folder)
            result = restart(found, killed_ns)
            replays = [
                event
                for event in found
                if event["event"] == "journal_replayed" and event["mono_ns"] > killed_ns
            ]
            result["ratio_to_floor"] = round(result["total_s"] / floor_s, 1)
            result["replayed"] = max(event["detail"]["records"] for event in replays)
            theirs = await executions(f"{market['http']}/accounts/FIRM/executions")
            ours = await executions(f"{ends['http']}/state/executions")
            result["lost"] = len(set(theirs) - set(ours))
            result["duplicated"] = len(ours) - len(set(ours))
            return result


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="warm-restart-") as temporary:
        result = uvloop.run(measure(Path(temporary), options.events))
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
