"""Faults against real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fault_kit import Context, carry_out

from blackstart.errors import FaultError
from blackstart.faults import registry
from blackstart.host import procs
from blackstart.model.manifest import Process
from blackstart.model.scenario import FaultStep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blackstart.model.fault import Witness

DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print(1, flush=True); time.sleep(600)"
)


@pytest.fixture
def sleepers() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start three processes."""
    found = {name: subprocess.Popen(["sleep", "600"]) for name in ("a", "b", "c")}
    yield found
    for one in found.values():
        one.kill()
        one.wait()


@pytest.mark.parametrize(("name", "number"), [("kill", signal.SIGKILL), ("terminate", signal.SIGTERM)])
def test_all_are_hit_at_once_and_started_again(
    sleepers: dict[str, subprocess.Popen[bytes]], name: str, number: int
) -> None:
    """Three processes end by the right signal, as one, and are started again in their order."""
    ctx = Context(sleepers)
    receipt, witness = asyncio.run(carry_out(name, ctx))
    assert witness.bit is True
    assert [one.wait() for one in sleepers.values()] == [-number] * 3
    assert ctx.started == ["a", "b", "c"]
    assert receipt.uncertainty_ns > 0
    assert set(receipt.processes) == {"a", "b", "c"}
    assert all(one["noticed_after_ms"] is not None for one in witness.evidence.values())


def test_cold_wipes_files_and_folders_before_the_start(
    tmp_path: Path, sleepers: dict[str, subprocess.Popen[bytes]]
) -> None:
    """State is there until the death, and gone at the start."""
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "1.seg").write_text("x")
    (tmp_path / "book").write_text("x")
    ctx = Context(sleepers, [tmp_path / "journal", tmp_path / "book", tmp_path / "never-there"])
    _, witness = asyncio.run(carry_out("cold", ctx))
    assert witness.bit is True
    assert ctx.started == ["a", "b", "c"]
    assert list(tmp_path.iterdir()) == []


def test_a_pause_is_protected_first_seen_by_the_kernel_and_ends(
    sleepers: dict[str, subprocess.Popen[bytes]],
) -> None:
    """Stopped, witnessed as stopped, continued; the undo was handed over."""
    ctx = Context(sleepers)
    _, witness = asyncio.run(carry_out("pause", ctx))
    assert witness.bit is True
    assert {one.action for one in ctx.protected} == {"continue"}
    for one in sleepers.values():
        found = procs.stat(one.pid)
        assert found is not None
        assert found.state != "T"


def test_who_ended_before_cannot_be_killed(sleepers: dict[str, subprocess.Popen[bytes]]) -> None:
    """A process that is dead already is an error of the fault, not a success."""
    sleepers["b"].kill()
    os.waitid(os.P_PID, sleepers["b"].pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(FaultError, match="ended before the fault"):
        asyncio.run(carry_out("kill", Context(sleepers)))
    assert sleepers["a"].poll() is None


def test_each_process_gets_its_own_stop_signal() -> None:
    """A process whose manifest names SIGINT is asked to end by that, one that names none by SIGTERM."""
    words = "import time\ntry: print(1, flush=True); time.sleep(9)\nexcept KeyboardInterrupt: exit(42)"
    found = {
        name: subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE)
        for name in ("int", "term")
    }
    for one in found.values():
        assert one.stdout is not None
        one.stdout.readline()
    ctx = Context(found)
    ctx.manifest.processes["int"] = Process(command=("x",), stop_signal="INT")
    try:
        receipt, witness = asyncio.run(carry_out("terminate", ctx))
        assert witness.bit
        assert receipt.mechanism == "SIGINT and SIGTERM by pidfd_send_signal"
        assert {name: witness.evidence[name]["status"] for name in found} == {"int": 42, "term": -15}
        assert found["int"].wait() == 42
        assert found["term"].wait() == -signal.SIGTERM
    finally:
        for one in found.values():
            one.kill()
            one.wait()
            assert one.stdout is not None
            one.stdout.close()


def test_a_process_deaf_to_sigterm_was_not_shut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The witness says no, and the operator says who is still there, instead of killing it."""
    monkeypatch.setattr("blackstart.faults.terminate._END_LIMIT_S", 0.3)
    deaf = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE)
    assert deaf.stdout is not None
    deaf.stdout.readline()

    async def main() -> Witness:
        ctx: Any = Context({"deaf": deaf})
        fault: Any = registry.make("terminate")
        receipt = await fault.inject(ctx, FaultStep(kind="terminate", components=tuple(ctx.processes)))
        witness: Witness = await fault.witness(ctx, receipt)
        with pytest.raises(FaultError, match="still running"):
            await fault.operate(ctx, receipt)
        await fault.revert(ctx, receipt)
        return witness

    try:
        assert asyncio.run(main()).bit is False
        assert deaf.poll() is None
    finally:
        deaf.kill()
        deaf.wait()
        deaf.stdout.close()
