"""`blackstart chaos start`, `status` and `stop`: sessions in the background."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from blackstart.chaos import log
from blackstart.chaos.log import Status
from blackstart.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from blackstart.chaos.model import Orders

START_LIMIT_S = 120.0
STOP_LIMIT_S = 900.0  # the books of a long session take their time
_POLL_S = 0.05
_UNDER_WAY = ("running", "waiting", "session")
RUN = (sys.executable, "-m", "blackstart.cli.main", "chaos", "run")
KEEP = (*RUN[:-1], "keep")
ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def start(arguments: Sequence[str], out: Path, *, orders: Orders | None = None) -> Path:
    """Start `blackstart chaos run` in a session of its own; returns its folder once it plays.

    With `orders` whoever keeps their schedule instead, which waits for a window. Raises TargetError with what
    kept it from that.
    """
    folder = (out / f"chaos-{secrets.token_hex(3)}").resolve()
    folder.mkdir(parents=True)
    command = (*RUN, *arguments, "--into", str(folder))
    if orders is not None:
        log.write(folder / log.ORDERS, orders)
        command = (*KEEP, str(folder), "--", *arguments)
    with (folder / "chaos.log").open("ab") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    end = time.monotonic() + START_LIMIT_S
    while True:
        status = read(folder)
        if status is not None and status.state in _UNDER_WAY:
            return folder
        if process.poll() is not None:
            raise TargetError(_why(folder), where=str(folder), hint="see chaos.log there")
        if time.monotonic() > end:
            process.terminate()
            raise TargetError(f"not under way within {START_LIMIT_S:g} s", where=str(folder))
        time.sleep(_POLL_S)


def _why(folder: Path) -> str:
    lines = (folder / "chaos.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended at once"


def read(folder: Path) -> Status | None:
    """Return how a session stands; None without one, or where the file is not whole."""
    try:
        return msgspec.json.decode((folder / log.STATUS).read_bytes(), type=Status)
    except (OSError, msgspec.DecodeError):
        return None


def known(out: Path) -> list[Status]:
    """Return every session below `out`, the newest last."""
    paths = [*out.glob(f"*/{log.STATUS}"), *out.glob(f"*/*/{log.STATUS}")]
    found = [status for path in paths if not path.parent.is_symlink() and (status := read(path.parent))]
    return sorted(found, key=lambda one: one.started_wall_ns)


def running(out: Path) -> list[Status]:
    """Return those that are under way; a session of a schedule goes with whoever keeps that."""
    found = [one for one in known(out) if one.state != "ended" and alive(one)]
    kept = {one.session for one in found}
    return [one for one in found if one.folder not in kept]


def alive(one: Status) -> bool:
    """Say whether the process that keeps the status is there, and is a session (pids come again)."""
    try:
        with open(f"/proc/{one.pid}/cmdline", "rb") as file:  # noqa: PTH123 - /proc is no folder of ours
            words = file.read()
    except OSError:
        return False
    return b"chaos" in words


def stop(one: Status) -> None:
    """End a session in order, and wait for its reports. Raises TargetError when it does not end."""
    try:
        descriptor = os.pidfd_open(one.pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        end = time.monotonic() + STOP_LIMIT_S
        while alive(one) and not _ended(one.pid):
            if time.monotonic() > end:
                hint = "`blackstart halt` takes everything back at once"
                raise TargetError(f"pid {one.pid} does not end", where=one.folder, hint=hint)
            time.sleep(_POLL_S)
    finally:
        os.close(descriptor)


def _ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has collected yet."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - /proc is no folder of ours
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True
