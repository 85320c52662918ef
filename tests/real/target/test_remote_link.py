"""Our end of the helper on another host, without `ssh`: whatever command leads to it, it behaves the same."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from target_kit import Clock, Notes, until

from blackstart.errors import TargetError
from blackstart.host import ssh
from blackstart.target import remote
from blackstart.target.remote import Link

if TYPE_CHECKING:
    from collections.abc import Sequence

HELPER = ssh.command(address="x", python=sys.executable)[-1]

# Speaks like a helper whose host slept for a second after twenty readings of its clock.
SLEEPER = """
import json, sys, time
print(json.dumps({"blackstart": 1, "pid": 1}), flush=True)
heard = 0
for line in sys.stdin.buffer:
    begin = line.rfind(b'{"do": "clock"')  # the first follows the sources of the real helper
    if begin < 0:
        continue
    word = json.loads(line[begin:])
    heard += 1
    at = time.monotonic_ns() - (10**9 if heard > 20 else 0)
    print(json.dumps({"n": word["n"], "at": at}), flush=True)
"""


async def opened(command: Sequence[str]) -> Link:
    """Open a connection by any command."""
    link = Link("there", command, Clock())
    try:
        await link.open(Notes().protect)
    except BaseException:
        await link.close()
        raise
    return link


def test_a_shell_that_greets_is_let_finish() -> None:
    """What a login script prints before the helper speaks is passed over."""

    async def run() -> None:
        link = await opened(["sh", "-c", f"echo Welcome; echo '{{}}'; {HELPER}"])
        assert link.about["pid"] > 0
        assert link.offset.uncertainty_ns(link.now()) < 50_000_000
        low, high = link.offset.bounds(link.now())
        assert low <= 0 <= high, "the same clock"
        await link.close()
        await link.close()

    asyncio.run(run())


def test_what_is_asked_of_a_lost_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stands still is lost after the limit, whoever waits is told, and the connection is ended."""
    monkeypatch.setattr(remote, "ANSWER_LIMIT_S", 0.3)

    async def run() -> None:
        link = await opened(["sh", "-c", HELPER])
        process = link._process
        assert process is not None
        os.kill(link.about["pid"], signal.SIGSTOP)
        with pytest.raises(TargetError, match=r"no answer for 0\.3 s"):
            await link.ask("clock")
        assert link.lost.is_set()
        with pytest.raises(TargetError, match="lost"):
            await link.ask("clock")
        await link.close()
        assert process.returncode is not None

    asyncio.run(run())


def test_a_helper_that_dies_is_lost_at_once() -> None:
    """Nobody waits for the limit when the connection has ended."""

    async def run() -> None:
        link = await opened(["sh", "-c", HELPER])
        asking = asyncio.ensure_future(link.lost.wait())
        os.kill(link.about["pid"], signal.SIGKILL)
        await asyncio.wait_for(asking, 10)
        assert "ended" in link.why
        await link.close()

    asyncio.run(run())


def test_a_host_that_slept_is_lost() -> None:
    """Its stamps from before and after cannot be compared: the jump of its clock is told."""

    async def run() -> None:
        link = await opened([sys.executable, "-c", SLEEPER])
        await until(link.lost.is_set)
        assert "ran apart by" in link.why
        await link.close()

    asyncio.run(run())


def test_a_python_that_is_too_old_says_so() -> None:
    """The first line that it carries out looks at its version."""
    lie = "import sys; sys.version_info = (3, 8); sys.version = '3.8.1 old'; "
    first = shlex.split(HELPER)[-1]

    async def run() -> None:
        with pytest.raises(TargetError, match=r"3\.8\.1, and the helper needs 3\.9"):
            await opened([sys.executable, "-ISB", "-c", lie + first])

    asyncio.run(run())
