"""The kill switch: from the call to the last undo carried out and verified, for paused processes.

Must: everything reverted in ≤ 100 ms. The whole command, its interpreter's start included, stands beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from blackstart.engine import guard, journal, leftovers
from blackstart.host import procs
from blackstart.model.fault import Undo

MUST_MS = 100.0
FAULTS = 8


async def once(folder: Path, *, command: bool) -> float:
    """Stop some processes, protected by a guardian, and pull the kill switch; returns milliseconds."""
    victims = [subprocess.Popen(["sleep", "60"]) for _ in range(FAULTS)]  # noqa: ASYNC220
    undos = []
    for victim in victims:
        found = procs.stat(victim.pid)
        assert found is not None
        arguments = {"pid": victim.pid, "start_ticks": found.start_ticks}
        undos.append(Undo(id=f"pause:{victim.pid}", action="continue", arguments=arguments))
    guardian = await guard.start(folder)
    await guardian.protect(undos)
    for victim in victims:
        os.kill(victim.pid, 19)
    began = time.monotonic_ns()
    if command:
        program = [sys.executable, "-m", "blackstart.cli", "halt", "--out", str(folder.parent)]
        await asyncio.to_thread(subprocess.run, program, capture_output=True, check=True)
        taken_ns = time.monotonic_ns() - began
    else:
        await asyncio.to_thread(leftovers.halt, folder.parent)
        taken_ns = max(one["mono_ns"] for one in journal.read(str(folder), journal.PAID)) - began
    await guardian.close()
    for victim in victims:
        victim.kill()
        victim.wait()
    return taken_ns / 1e6


def main() -> int:
    """Print the figures; the exit status says whether every one was quick enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = {}
    for name, command in (("switch_ms", False), ("command_ms", True)):
        taken = []
        for _ in range(options.times):
            with tempfile.TemporaryDirectory(prefix="halt-") as root:
                os.environ["XDG_STATE_HOME"] = f"{root}/state"
                folder = Path(root, "runs", "trial")
                folder.mkdir(parents=True)
                taken.append(asyncio.run(once(folder, command=command)))
        figures[name] = {"median": round(statistics.median(taken), 2), "max": round(max(taken), 2)}
    figures["must_ms"] = MUST_MS  # type: ignore[assignment]
    print(json.dumps(figures, indent=None if options.json else 2))
    return 0 if figures["switch_ms"]["max"] <= MUST_MS else 1


if __name__ == "__main__":
    sys.exit(main())
