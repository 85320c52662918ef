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

from blackstart.chaos.log import STATUS, Status
from blackstart.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

START_LIMIT_S = 120.0
STOP_LIMIT_S = 900.0  # the books of a long session take their time
_POLL_S = 0.05


def start(arguments: Sequence[str], out: Path) -> Path:
    """Start `blackstart chaos run` in a session of its own; returns its folder once it plays.

    Raises TargetError with what kept it from that.
    """
    folder = (out / f"chaos-{secrets.token_hex(3)}").resolve()
    folder.mkdir(parents=True)
    command = (sys.executable, "-m", "blackstart.cli.main", "chaos", "run", *arguments, "--into", str(folder))
    with (folder / "chaos.log").open("ab") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    end = time.monotonic() + START_LIMIT_S
    while True:
        status = read(folder)
        if status is not None and status.state == "running":
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
        return msgspec.json.decode((folder / STATUS).read_bytes(), type=Status)
    except (OSError, msgspec.DecodeError):
        return None


def known(out: Path) -> list[Status]:
    """Return every session below `out`, the newest last."""
    found = [
        status
        for path in out.glob(f"*/{STATUS}")
        if not path.parent.is_symlink() and (status := read(path.parent))
    ]
    return sorted(found, key=lambda one: one.started_wall_ns)


def running(out: Path) -> list[Status]:
    """Return those that are under way."""
    return [one for one in known(out) if one.state != "ended" and alive(one)]


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
