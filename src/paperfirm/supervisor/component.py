"""What every component does alike: arguments, `firm.json`, event log, signals, dying in time."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import errno
import gc
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop

from paperfirm.alerts import Alerts
from paperfirm.config import ConfigError, Firm, load_firm
from paperfirm.disk import RoomWatch, SyncFailedError, cause_of, keep_watching, sound
from paperfirm.eventlog import EventLog, open_event_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PR_SET_PDEATHSIG = 1
CRASHED = 70  # EX_SOFTWARE
NO_MEMORY = 71  # EX_OSERR
NO_ROOM = 73  # EX_CANTCREAT
BAD_DISK = 74  # EX_IOERR
WRITE_AGAIN_S = 0.2
PARENT_VARIABLE = "PAPERFIRM_SUPERVISOR_PID"


class Context(msgspec.Struct, frozen=True):
    """What a component gets: its settings, its event log and the event that asks it to stop."""

    firm: Firm
    events: EventLog
    stop: asyncio.Event
    alerts: Alerts

    def state_folder(self, name: str) -> Path:
        """Return `DIR/state/NAME`, made if need be."""
        folder = self.firm.path / "state" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def run_component(name: str, main: Callable[[Context], Awaitable[None]]) -> None:
    """Run `main` until SIGTERM or SIGINT sets `stop`.

    Exits the process with 0, or 64 for unusable settings.
    """
    parser = argparse.ArgumentParser(prog=f"python -m paperfirm.{name}", description=main.__doc__)
    parser.add_argument("--dir", required=True, type=Path, help="the firm's directory, with firm.json in it")
    directory = parser.parse_args().dir
    try:
        firm = load_firm(directory)
    except ConfigError as error:
        print(f"paperfirm {name}: {error}", file=sys.stderr)
        sys.exit(64)
    die_with_supervisor()
    events = open_event_log(firm.path, name)
    # What the imports left behind never becomes garbage; scanning it would only cost latency.
    gc.collect()
    gc.freeze()
    uvloop.run(_run(name, firm, events, main))


def die_with_supervisor() -> None:
    """Ask the kernel to end this process with its supervisor; exit at once if that is gone already.

    The supervisor sets the same before `exec`; this covers a component started by hand with the variable set.
    """
    expected = os.environ.get(PARENT_VARIABLE)
    if expected is None:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(expected):
        sys.exit(1)


async def _run(name: str, firm: Firm, events: EventLog, main: Callable[[Context], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    alerts = Alerts(events.emit)
    loop.set_exception_handler(lambda _, context: _crash(events, alerts, firm.path / "state" / name, context))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    writing = asyncio.create_task(keep_writing(events))
    room = RoomWatch(firm.path / "state" / name, alerts, round(firm.engine.disk_low_mb * 2**20))
    watching = asyncio.create_task(keep_watching(room))
    try:
        await main(Context(firm, events, stop, alerts))
    except Exception as error:  # noqa: BLE001 - told like any other, with the disk's name if it is to blame
        _crash(events, alerts, firm.path / "state" / name, {"exception": error})
    writing.cancel()
    watching.cancel()


async def keep_writing(events: EventLog) -> None:
    """Write what the event log could not while a disk was full, for ever."""
    while True:
        await asyncio.sleep(WRITE_AGAIN_S)
        events.write_waiting()


def status_of(cause: OSError) -> int:
    """Return the exit status that a disk's error leads to."""
    return BAD_DISK if isinstance(cause, SyncFailedError) else NO_ROOM


def _crash(events: EventLog, alerts: Alerts, folder: Path, context: dict[str, Any]) -> None:
    """End the process on an error nobody caught.

    State on disk is right at any moment, state in memory may not be.
    """
    error = context.get("exception")
    print(
        "".join(traceback.format_exception(error)) if error else context["message"],
        file=sys.stderr,
        flush=True,
    )
    cause = cause_of(error)
    try:
        if cause is not None:
            sound(alerts, folder, cause)
        events.emit("crashed", error=f"{type(error).__name__}: {error}" if error else str(context["message"]))
    finally:
        os._exit(_status(error, cause))


def _status(error: BaseException | None, cause: OSError | None) -> int:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return NO_MEMORY
    return CRASHED if cause is None else status_of(cause)
