"""Faults that fail or are cancelled when a part of them is in place: they take that back themselves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from fault_kit import Context

from blackstart.engine.clocks import SystemClock
from blackstart.errors import FaultError, TargetError
from blackstart.faults import pause_service, registry
from blackstart.faults.company import Company
from blackstart.host import cgroups, procs, seccomp
from blackstart.model.fault import ProcessRef, Undo
from blackstart.model.scenario import FaultStep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITER = (
    "import os, time\nfile = os.open('journal', os.O_CREAT | os.O_WRONLY)\nprint(1, flush=True)\n"
    "while True: os.write(file, b'x' * 10); os.fsync(file); time.sleep(0.001)"
)
SECCOMP = seccomp.unavailable()
CPU = cgroups.unavailable("cpu")
needs_seccomp = pytest.mark.skipif(SECCOMP is not None, reason=str(SECCOMP))


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that writes and syncs without end."""
    found = subprocess.Popen([sys.executable, "-c", WRITER], cwd=tmp_path, stdout=subprocess.PIPE)
    assert found.stdout is not None
    found.stdout.readline()
    yield found
    found.kill()
    found.wait()
    found.stdout.close()


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start two processes that sleep."""
    found = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    yield found
    for one in found:
        one.kill()
        one.wait()


class Asleep(Context):
    """A target that is too slow to do what it is asked for."""

    async def operation(self, name: str) -> None:
        """Do not come to an end."""
        raise TargetError(f"{name}: no answer within 10 s", where="here")


async def rules_left(ctx: Any) -> list[str]:
    """Name the rules in the guardian's hands that the supervisor still has."""
    supervisor = await seccomp.supervisor(ctx.folder)
    rules = [rule for one in ctx.protected for rule in one.arguments["rules"]]
    assert rules
    left = [one for one in rules if await supervisor.counters(one) is not None]
    supervisor.close()
    return left


@needs_seccomp
def test_no_trap_stays_armed_when_the_target_does_not_do_what_springs_it(
    tmp_path: Path, writer: subprocess.Popen[bytes]
) -> None:
    """The rule is in when the question fails: it is out again when that is told."""
    ctx: Any = Asleep({"v": writer}, folder=tmp_path / "trial")
    parameters = {"call": "fsync", "path": str(tmp_path / "journal"), "n": 1000, "operation": "flush"}
    step = FaultStep(kind="kill_at_syscall", components=("v",), parameters=parameters)

    async def main() -> list[str]:
        with pytest.raises(TargetError, match="no answer"):
            await registry.make("kill_at_syscall").inject(ctx, step)
        return await rules_left(ctx)

    assert asyncio.run(main()) == []
    assert writer.poll() is None


@needs_seccomp
@pytest.mark.parametrize("kind", ["disk_error", "kill_at_syscall"])
def test_no_rule_stays_when_the_wait_for_a_call_is_cancelled(
    tmp_path: Path, writer: subprocess.Popen[bytes], kind: str
) -> None:
    """The trial ends while it still waits for the first call that it is about."""
    ctx: Any = Context({"v": writer}, folder=tmp_path / "trial")
    step = FaultStep(kind=kind, components=("v",), parameters={"call": "rename", "path": f"{tmp_path}/"})

    async def main() -> list[str]:
        injecting = asyncio.ensure_future(registry.make(kind).inject(ctx, step))
        async with asyncio.timeout(20):
            while not ctx.protected:  # noqa: ASYNC110 - another task is looked at
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        injecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await injecting
        return await rules_left(ctx)

    assert asyncio.run(main()) == []


@pytest.mark.skipif(CPU is not None, reason=str(CPU))
def test_no_group_stays_when_the_second_component_has_ended(
    tmp_path: Path, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    """The first one is in its group already, and comes home."""
    ctx: Any = Context({}, folder=tmp_path)
    where = cgroups.hierarchy("cpu")
    assert where is not None
    refs = [ProcessRef(one.pid, found.start_ticks) for one in sleepers if (found := procs.stat(one.pid))]
    home = cgroups.home(where, refs[0].pid)
    company = Company()
    folders = [company.group(where, f"c{number}", ref) for number, ref in enumerate(refs)]
    sleepers[1].kill()
    sleepers[1].wait()
    try:
        with pytest.raises(FaultError, match="has ended before the fault"):
            asyncio.run(company.assemble(ctx, {}))
        assert [folder.exists() for folder in folders] == [False, False]
        assert cgroups.home(where, refs[0].pid) == home
    finally:  # where this fails, it leaves nothing in place either
        sleepers[0].kill()
        sleepers[0].wait()
        for folder in (one for one in folders if one.exists()):
            folder.rmdir()


def test_nobody_stands_still_when_a_later_one_cannot_be_protected(
    sleepers: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second round finds a child, and its undo no room on the disk."""

    class Full(Context):
        async def protect(self, undos: Any) -> None:
            if self.protected:
                raise OSError(28, "No space left on device")
            await super().protect(undos)

    first, second = [found for one in sleepers if (found := procs.stat(one.pid))]
    looks = iter([[first], [first, second]])
    monkeypatch.setattr(pause_service.procs, "family", lambda *_: next(looks))
    ctx: Any = Full({"v": sleepers[0]})
    with pytest.raises(OSError, match="No space"):
        asyncio.run(
            registry.make("pause_service").inject(ctx, FaultStep(kind="pause_service", components=("v",)))
        )
    assert [one.arguments["pid"] for one in ctx.protected] == [first.pid]
    deadline = time.monotonic() + 5
    while any(procs.stat(one.pid).state == "T" for one in sleepers):  # type: ignore[union-attr]
        assert time.monotonic() < deadline, "one still stands"
        time.sleep(0.002)


class Forgetful:
    """An exchange that takes what it is asked for, and cannot say what became of it."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def misbehave(self, action: str, **_: Any) -> dict[str, Any]:
        """Take it."""
        self.log.append(action)
        return {"id": "1"}

    async def behave(self) -> None:
        """Disarm."""
        self.log.append("behave")

    def disarm(self) -> Undo:
        """Say how the guardian does."""
        return Undo(id="misbehave", action="http", arguments={"url": "http://127.0.0.1:1/"})

    async def deeds(self, _identifier: str) -> list[int]:
        """Do not answer."""
        raise TargetError("no answer", where="exchange")


@pytest.mark.parametrize(
    ("kind", "parameters"), [("misbehave", {"action": "delay"}), ("nonsense", {"kinds": ["price_zero"]})]
)
def test_an_exchange_that_gives_no_account_is_disarmed(kind: str, parameters: dict[str, Any]) -> None:
    """Armed it was: whatever keeps us from hearing more, it does not stay so."""
    oracle = Forgetful()

    async def protect(_undos: Any) -> None:
        """Nobody is needed here."""

    ctx: Any = SimpleNamespace(
        oracle=oracle,
        clock=SystemClock(),
        protect=protect,
        recorded=lambda: (),
        target=SimpleNamespace(name="x"),
    )
    with pytest.raises(TargetError, match="no answer"):
        asyncio.run(registry.make(kind).inject(ctx, FaultStep(kind=kind, parameters=parameters)))
    assert oracle.log[-1] == "behave"
