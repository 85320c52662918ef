"""Units of the system's manager: a real systemd as PID 1, and Blackstart beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import systemd_kit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from systemd_kit import Systemd

# RUN UNIT: breaks it twice, and tells what a third Blackstart left behind that was killed.
INSIDE = textwrap.dedent(
    """
    import asyncio, sys, time
    from pathlib import Path
    from managed_kit import Context, Owner, described
    from blackstart.host import managed

    run, unit = Path(sys.argv[1]), sys.argv[2]

    async def main():
        ctx = Context(described(main={"unit": unit}), run)
        await ctx.target.open()
        print("restart", ctx.target.manifest.components["main"].restart)
        for kind in ("kill", "terminate"):
            before = await ctx.target.process("main")
            receipt, witness = await ctx.carry_out(kind)
            place = managed.Place("unit", unit, "system")
            await asyncio.to_thread(managed.until_running, place, 20.0)
            after = await ctx.target.process("main")
            print(kind, witness.bit, before != after, receipt.mechanism)

    asyncio.run(main())
    owner = Owner(run / "owned", "unit", unit, "terminate", manager="system")
    print("broken", owner.broken())
    owner.kill()
    print("runs", managed.until_running(managed.Place("unit", unit, "system"), 20.0).running)
    """
)
# UNIT: only looks.
OUTSIDE = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from managed_kit import Context, described

    ctx = Context(described(main={"unit": sys.argv[2]}), Path(sys.argv[1]))
    asyncio.run(ctx.target.open())
    """
)


@pytest.fixture(scope="module")
def sd() -> Iterator[Systemd]:
    """Have a system's manager of our own."""
    if (why := systemd_kit.missing()) is not None:
        pytest.skip(why)
    with systemd_kit.running(system=True) as made:
        yield made


def python(prefix: list[str], program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of ours in namespaces of somebody else."""
    here = str(Path(__file__).parent)
    environment = ["env", f"PYTHONPATH={here}", f"XDG_STATE_HOME={arguments[0]}/state"]
    command = [*prefix, *environment, sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_unit_of_the_system_is_broken_and_left_running(sd: Systemd, tmp_path: Path) -> None:
    """Killed, stopped, and abandoned by a Blackstart that was killed itself: each time it runs again."""
    sd.service("engine", "/bin/sleep 600", Restart="always", RestartSec="50ms")
    done = python(sd.inside, INSIDE, str(tmp_path), "engine.service")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "restart self",
        "kill True True SIGKILL by pidfd_send_signal",
        "terminate True True systemctl stop engine.service",
        "broken True",
        "runs True",
    ]


def test_a_manager_of_another_pid_namespace_is_refused(sd: Systemd, tmp_path: Path) -> None:
    """It tells numbers that mean somebody else here: nobody is hit by mistake."""
    sd.service("engine", "/bin/sleep 600")
    # As over a bus whose socket was mounted into a container. Its number is in use here: by ourselves.
    program = tmp_path / "systemctl"
    asked = f'{" ".join(sd.inside)} /usr/bin/systemctl "$@"'
    program.write_text(f"#!/bin/sh\n{asked} | sed s/MainPID=.*/MainPID={os.getpid()}/\n")
    program.chmod(0o755)
    path = f"PATH={tmp_path}:{os.environ['PATH']}"
    done = python(["env", path], OUTSIDE, str(tmp_path), "engine.service")
    assert done.returncode != 0
    assert f"pid {os.getpid()} is not in its control group" in done.stderr
