"""The process behind `blackstart up`: opens the target, tells its state, closes it when told to.

`python -m blackstart.cli.keeper FOLDER TARGET SEED`. It writes `FOLDER/up.json` once the target is up, and
listens on a Unix socket: a word in, a line of JSON out. Everything it starts is under a guardian: if the
keeper dies in any way, nothing of the target is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.engine import guard, permit
from blackstart.engine.clocks import SystemClock
from blackstart.errors import BlackstartError
from blackstart.target import manifest as manifests
from blackstart.target import rig as rigs

if TYPE_CHECKING:
    from blackstart.model.manifest import Manifest
    from blackstart.model.record import Record

UP = "up.json"
FAILED = "up.failed"
SOCKET = "keeper.sock"
SNAPSHOT_SCHEMA = 1


class Up(msgspec.Struct, frozen=True, kw_only=True):
    """What `up.json` says: who keeps which target up, and where to ask."""

    pid: int
    target: str
    title: str
    folder: str
    socket: str
    components: tuple[str, ...]


def forget(_record: Record) -> None:
    """Keep nothing: there is no trial, and so no history."""


async def snapshot(manifest: Manifest, rig: rigs.LocalRig) -> dict[str, Any]:
    """Read every document the target gives, and what its oracle says about positions and orders."""
    sides: dict[str, dict[str, Any]] = {"target": {}, "oracle": {}}
    errors: dict[str, str] = {}
    for name in manifest.state:
        await _read(sides["target"], errors, "target", name, rig.target.document(name))
    if rig.oracle is not None:
        await _read(sides["oracle"], errors, "oracle", "positions", rig.oracle.positions())
        await _read(sides["oracle"], errors, "oracle", "orders", rig.oracle.open_orders())
    now = SystemClock().now()
    head = {
        "schema": SNAPSHOT_SCHEMA,
        "target_name": manifest.name,
        "wall_ns": now.wall_ns,
        "mono_ns": now.mono_ns,
    }
    return {**head, **sides, "errors": errors}


async def _read(into: dict[str, Any], errors: dict[str, str], side: str, name: str, reading: Any) -> None:
    try:
        into[name] = await reading
    except (BlackstartError, OSError, TimeoutError) as error:
        errors[f"{side}.{name}"] = error.what if isinstance(error, BlackstartError) else str(error)


async def keep(folder: Path, target: str, seed: int) -> None:
    """Open the target and serve until a signal or the kill switch says that it is over."""
    manifest = manifests.load(target)
    permit.check(manifest)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    guardian = await guard.start(folder, on_halt=lambda _why: over.set())
    rig = rigs.build(
        manifest, run_dir=folder, seed=seed, clock=SystemClock(), sink=forget, protect=guardian.protect
    )
    try:
        await rig.target.open()
        await _serve(folder, manifest, rig, over)
    finally:
        (folder / UP).unlink(missing_ok=True)
        await rig.target.close()
        try:
            await guardian.undo()
        finally:
            await guardian.close()


async def _serve(folder: Path, manifest: Manifest, rig: rigs.LocalRig, over: asyncio.Event) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        word = (await reader.readline()).decode().strip()
        known = word == "snapshot"
        document = await snapshot(manifest, rig) if known else {"error": f"no such question: {word}"}
        writer.write(msgspec.json.encode(document) + b"\n")
        await writer.drain()
        writer.close()

    path = socket_path(folder)
    server = await asyncio.start_unix_server(answer, path)
    try:
        _announce(folder, manifest, path)
        await over.wait()
    finally:
        server.close()
        _forget_socket(path)


def _forget_socket(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def socket_path(folder: Path) -> str:
    """Return where the keeper listens: relative, because a Unix socket's path has room for 107 bytes only."""
    return os.path.relpath(folder / SOCKET)


def _announce(folder: Path, manifest: Manifest, path: str) -> None:
    facts = Up(
        pid=os.getpid(),
        target=manifest.name,
        title=manifest.title or manifest.name,
        folder=str(folder),
        socket=str(Path(path).absolute()),
        components=tuple(manifest.components),
    )
    temporary = folder / f"{UP}.tmp"
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(facts)))
    temporary.replace(folder / UP)


def main(arguments: list[str]) -> int:
    """Entry point of the process."""
    folder, target, seed = Path(arguments[0]), arguments[1], int(arguments[2])
    try:
        asyncio.run(keep(folder, target, seed))
    except BlackstartError as error:
        (folder / FAILED).write_text(error.render(), encoding="utf-8")
        return error.exit_status
    except BaseException as error:
        (folder / FAILED).write_text(f"{type(error).__name__}: {error}; see keeper.log", encoding="utf-8")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
