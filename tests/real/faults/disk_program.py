"""Fills a disk in mounts of its own and says what became of a writer there: run by test_disk.py."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import fault_kit
import msgspec

from blackstart.engine import guard, locks
from blackstart.engine.verbs import begin
from blackstart.errors import FaultError
from blackstart.faults import registry
from blackstart.host import mounts, namespaces, procs
from blackstart.model.manifest import Component, Manifest, Process
from blackstart.model.scenario import FaultStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from blackstart.model.fault import Undo

WRITER = """
import os, sys, time
journal = os.open(sys.argv[1] + "/state/journal", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
scratch = sys.argv[1] + "/state/scratch"
number = 0
while True:
    number += 1
    try:
        os.write(journal, b"x" * 5000)
        with open(scratch, "wb") as file: file.write(b"y" * 20000)
        os.unlink(scratch)
        said = f"{number} written"
    except OSError as error:
        said = f"{number} {error.errno}"
    with open(sys.argv[1] + "/said.new", "w") as file: file.write(said)
    os.rename(sys.argv[1] + "/said.new", sys.argv[1] + "/said")
    time.sleep(0.002)
"""


class Context(fault_kit.Context):
    """The same, with mounts of its own, and a guardian where one is given."""

    isolation = frozenset({"files"})

    def __init__(self, run: Path, guardian: guard.Guard | None) -> None:
        super().__init__({}, state=[run / "state"], folder=run)
        self.guardian = guardian
        self.manifest = Manifest(
            schema=1,
            name="here",
            isolation=("files",),
            processes={"v": Process(command=("x",), state=(str(run / "state"),))},
            components={"v": Component(process="v")},
        )

    async def protect(self, undos: Iterable[Undo]) -> None:
        """Note the undos, and give them to the guardian."""
        undos = list(undos)
        await super().protect(undos)
        if self.guardian is not None:
            await self.guardian.protect(undos)

    def state_paths(self, _process: str) -> Sequence[Path]:
        """Name the folder of the writer."""
        return self.state

    def undo_some(self, undos: Sequence[Undo]) -> None:
        """Do what the guardian would do of these, and see it verified."""
        for one in undos:
            verified, evidence = begin(one.action, one.arguments, "-")()
            assert verified, evidence


def said(run: Path, ends: str) -> bool:
    """Wait until the writer says something new with that end."""
    last, deadline = read(run), time.monotonic() + 10
    while time.monotonic() < deadline:
        now = read(run)
        if now != last and now.endswith(ends):
            return True
        time.sleep(0.002)
    return False


def read(run: Path) -> str:
    """Return what the writer said last."""
    try:
        return (run / "said").read_text()
    except FileNotFoundError:
        return ""


async def again(ctx: Any, step: FaultStep, found: dict[str, Any]) -> Any:
    """Prepare once more while the writer runs, as a session of chaos does; and another size beside it."""
    fault: Any = registry.make("disk_full")
    await fault.prepare(ctx, step)
    other: Any = registry.make("disk_full")
    try:
        await other.prepare(ctx, msgspec.structs.replace(step, parameters={"size_mb": 3}))
    except FaultError as error:
        found["other"] = error.what
    return fault


async def without(ctx: Any, step: FaultStep, fault: Any, found: dict[str, Any]) -> None:
    """Have the small file system taken away before the injection; a larger one stands for the host's disk."""
    run = ctx.folder
    mounts.unmount(str(run / "state"))
    before = mounts.free_bytes(str(run))
    with (run / "state" / "journal").open("wb"):
        ctx.processes["v"] = SimpleNamespace(pid=os.getpid())
        try:
            await fault.inject(ctx, step)
        except FaultError as error:
            found["refused"] = error.what
    found["taken"] = before - mounts.free_bytes(str(run))


async def main(told: dict[str, Any]) -> dict[str, Any]:
    """Mount, write, fill, look, give back, look again."""
    run = Path(told["run"])
    if told.get("without"):
        mounts.tmpfs(str(run), 16 << 20)
    lock = locks.hold(str(run), locks.OWNER_LOCK)
    guardian = await guard.start(run) if told.get("kill") else None
    ctx: Any = Context(run, guardian)
    step = FaultStep(kind="disk_full", components=("v",), parameters=told.get("parameters", {}))
    fault: Any = registry.make("disk_full")
    found: dict[str, Any] = {"unavailable": fault.unavailable(ctx.manifest, step)}
    await fault.prepare(ctx, step)
    if told.get("without"):
        await without(ctx, step, fault, found)
        return found
    writer = subprocess.Popen(  # noqa: ASYNC220 - a test may block
        [sys.executable, "-c", WRITER, str(run)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    ctx.processes["v"] = writer
    try:
        if told.get("again"):
            fault = await again(ctx, step, found)
        found["before"] = said(run, "written")
        receipt = await fault.inject(ctx, step)
        await until(lambda: said(run, " 28"))
        found["during"] = read(run).split()[-1]
        found["free"] = mounts.free_bytes(str(run / "state"))
        found["receipt"] = msgspec.to_builtins(receipt)
        found["witness"] = msgspec.to_builtins(await fault.witness(ctx, receipt))
        if told.get("kill"):
            stat = procs.stat(writer.pid)
            assert stat is not None
            found["writer"] = [writer.pid, stat.start_ticks]
            print(json.dumps(found), flush=True)
            await asyncio.sleep(600)
        if told.get("who") == "we":
            await fault.revert(ctx, receipt)
            await fault.revert(ctx, receipt)
        else:  # the keeper of the fault is halted, as it is when its process hangs
            fault._keeping.cancel()
        ctx.undo_some(receipt.undo)
        found["after"] = said(run, "written")
        found["late"] = (await fault.witness(ctx, receipt)).bit
        await fault.revert(ctx, receipt)
    finally:
        writer.kill()
        writer.wait()
    ctx.undo()
    ctx.undo()
    found["mounted"] = mounts.mounted(str(run / "state"))
    locks.release(lock)
    return found


async def until(test: Callable[[], bool]) -> None:
    """Look from another thread, so that the fault can go on keeping the disk full."""
    await asyncio.to_thread(test)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    namespaces.enter(["files"])
    print(json.dumps(asyncio.run(main(given))))
