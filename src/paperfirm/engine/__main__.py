"""An engine's process: `python -m paperfirm.engine --dir DIR --name engine-a`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import uvloop

from paperfirm.config import ENGINES, ConfigError, Firm, load_firm
from paperfirm.disk import cause_of, sound
from paperfirm.engine.engine import FENCED, Engine, preload
from paperfirm.engine.errors import EngineError
from paperfirm.eventlog import EventLog, open_event_log
from paperfirm.supervisor.component import CRASHED as FAILED
from paperfirm.supervisor.component import die_with_supervisor, status_of


async def run(firm: Firm, name: str, events: EventLog) -> int:
    """Run one engine until SIGTERM or SIGINT; returns the exit status."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    preloading = asyncio.ensure_future(preload())
    engine = Engine(firm, name, events=events, stop=stop)
    loop.set_exception_handler(lambda _, context: stop_at_once(engine, context))
    try:
        status = await engine.run()
    except (EngineError, OSError) as error:
        status = told(engine, error)
        events.emit("engine_failed", reason=str(error))
        print(f"paperfirm {name}: {error}", file=sys.stderr)
        if status != FAILED:
            os._exit(status)  # nothing may be written or synced on the way out
        return status
    finally:
        preloading.cancel()
    if status == FENCED:
        os._exit(status)  # all is on the disk; a former primary still has connections, and answers none
    return status


def told(engine: Engine, error: BaseException | None) -> int:
    """Alert the operator when a disk is the reason; returns the exit status."""
    cause = cause_of(error)
    if cause is None:
        return FAILED
    sound(engine.alerts, engine.store.folder, cause)
    return status_of(cause)


def stop_at_once(engine: Engine, context: dict[str, Any]) -> None:
    """End here: a callback that failed leaves a state nobody has thought of; recovery knows the way back.

    Failures of background tasks (the broker's client has some) are only reported.
    """
    error, events = context.get("exception"), engine.events
    reason, where = f"{type(error).__name__}: {error}", str(context.get("message"))
    if context.get("handle") is None and context.get("protocol") is None:
        events.emit("task_failed", reason=reason, where=where)
        return
    status = told(engine, error)
    events.emit("engine_failed", reason=reason, where=where)
    traceback.print_exception(error)
    os._exit(status)


def main() -> None:
    """Entry point; exit status 0 stopped, 64 settings, 70 failed, 73 no room, 74 bad disk, 75 fenced."""
    parser = argparse.ArgumentParser(prog="python -m paperfirm.engine", description=__doc__)
    parser.add_argument("--dir", required=True, type=Path, help="the firm's directory, with firm.json in it")
    parser.add_argument("--name", choices=ENGINES, default=ENGINES[0], help="which of the two engines")
    arguments = parser.parse_args()
    try:
        firm = load_firm(arguments.dir)
    except ConfigError as error:
        print(f"paperfirm {arguments.name}: {error}", file=sys.stderr)
        sys.exit(64)
    die_with_supervisor()
    sys.exit(uvloop.run(run(firm, arguments.name, open_event_log(firm.path, arguments.name))))


if __name__ == "__main__":
    main()
