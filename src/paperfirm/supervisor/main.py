"""`paperfirm up`: the whole firm under one process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import uvloop

from paperfirm.config import (
    COMPONENTS,
    Firm,
    load_exchange,
    load_firm,
    load_settings,
    save_firm,
    write_atomically,
)
from paperfirm.eventlog import open_event_log
from paperfirm.http import serve
from paperfirm.servers import ServerError, ServerPlan, make_cluster, plan_postgres, prepare_nats
from paperfirm.servers.placement import sweep
from paperfirm.supervisor.component import keep_writing
from paperfirm.supervisor.firm import Supervised
from paperfirm.supervisor.lock import InUseError, take_lock
from paperfirm.supervisor.memory import host_kills
from paperfirm.supervisor.ports import Reservations
from paperfirm.supervisor.specs import component_specs, server_spec
from paperfirm.supervisor.web import routes

if TYPE_CHECKING:
    from pathlib import Path

    from paperfirm.config import Ports, UpOptions
    from paperfirm.eventlog import EventLog

REFUSED = 1
STARTING_POLL_S = 0.02
POLL_S = 0.5
SCRAPE_S = 1.0
PARTS_S = 0.25
START_LIMIT_S = 15.0
"""So long a start may wait for parts without which orders would pass: database, broker, standby."""


def run(options: UpOptions) -> int:
    """Run the firm until SIGTERM or SIGINT; returns the exit status (1.

    Refused, with the reason on standard error).
    """
    try:
        lock = take_lock(options.dir)
    except InUseError as error:
        print(f"paperfirm: {error}", file=sys.stderr)
        return REFUSED
    try:
        uvloop.run(_run(options))
    except ServerError as error:
        print(f"paperfirm: {error}", file=sys.stderr)
        return REFUSED
    finally:
        os.close(lock)
    return 0


async def _run(options: UpOptions) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    events = open_event_log(options.dir, "supervisor")
    events.emit("supervisor_started", directory=str(options.dir))
    reservations = Reservations(_former_ports(options.dir))
    plans = _plan_servers(options, reservations.ports)
    firm = _firm(options, reservations.ports, plans)
    save_firm(firm)
    state = options.dir / "state" / "supervisor"
    state.mkdir(parents=True, exist_ok=True)
    specs = [*map(server_spec, plans.values()), *component_specs(firm)]
    supervised = Supervised(firm, specs, events.emit, state=state)
    web = await serve(firm.ports["supervisor"].http, routes(supervised))
    _write_endpoints(firm)
    try:
        starting = asyncio.create_task(_start(supervised, plans))
        starting.add_done_callback(lambda task: stop.set() if task.exception() else None)
        await _watch(supervised, events, stop)
        await starting
    finally:
        events.emit("stopping")
        await supervised.stop()
        web.close()
        reservations.close()
        (options.dir / "endpoints.json").unlink(missing_ok=True)
        events.emit("stopped")


def _plan_servers(options: UpOptions, ports: dict[str, Ports]) -> dict[str, ServerPlan]:
    """Plan the servers that the user did not give by URL."""
    sweep()
    folder = options.dir / "state"
    plans = {}
    if options.nats_url is None:
        plans["nats"] = prepare_nats(folder / "nats", ports["nats"].service)
    if options.postgres_url is None:
        plans["postgres"] = plan_postgres(folder / "postgres", ports["postgres"].service)
    return plans


def _firm(options: UpOptions, ports: dict[str, Ports], plans: dict[str, ServerPlan]) -> Firm:
    settings, sha256 = load_settings(options.config)
    return Firm(
        dir=str(options.dir),
        ports=ports,
        exchange=load_exchange(options.exchange),
        postgres=options.postgres_url or plans["postgres"].url,
        nats=options.nats_url or plans["nats"].url,
        seed=options.seed,
        account=settings.account,
        limits=settings.limits,
        strategy=settings.strategy,
        engine=settings.engine,
        supervisor=settings.supervisor,
        router=settings.router,
        defects=settings.defects,
        configuration=str(options.config.absolute()) if options.config else "",
        sha256=sha256,
    )


async def _start(supervised: Supervised, plans: dict[str, ServerPlan]) -> None:
    """Start everything at once: each component waits for what it needs by itself, and knows where it will be.

    The cluster is copied last: only the recorder waits for the database, and it takes a while to load its
    modules.
    """
    for child in supervised.children.values():
        if child.name != "postgres":
            child.start()
    if "postgres" in plans:
        await make_cluster(plans["postgres"])
        supervised.children["postgres"].start()


async def _watch(supervised: Supervised, events: EventLog, stop: asyncio.Event) -> None:
    """Note each time the firm begins or ceases to trade, and every child's heartbeat, until asked to stop."""
    beats = [asyncio.create_task(work) for work in (_beat(supervised), _scrape(supervised))]
    parts = asyncio.create_task(_watch_parts(supervised, events))
    writing = asyncio.create_task(keep_writing(events))
    ready = False
    while not stop.is_set():
        reason = await supervised.not_ready()
        if reason is None and not ready:
            events.emit("firm_ready")
        elif reason is not None and ready:
            events.emit("firm_not_ready", reason=reason)
        ready = reason is None
        try:
            async with asyncio.timeout(POLL_S if ready else STARTING_POLL_S):
                await stop.wait()
        except TimeoutError:
            continue
    for task in (*beats, parts):
        task.cancel()
    writing.cancel()


async def _beat(supervised: Supervised) -> None:
    """Look after every child's heartbeat and memory."""
    while True:
        await asyncio.sleep(POLL_S)
        host = host_kills()
        for child in supervised.children.values():
            child.look_at_memory(host)
        await supervised.beat()


async def _scrape(supervised: Supervised) -> None:
    """Fetch everybody's metrics once a second."""
    while True:
        await asyncio.sleep(SCRAPE_S)
        await supervised.scrape()


async def _watch_parts(supervised: Supervised, events: EventLog) -> None:
    """Tell when the set of parts that do not do their work changes, once the firm has started."""
    await await_start(supervised)
    began_s = 0.0
    while True:
        found = await supervised.degraded()
        if found and found.keys() != supervised.parts.keys():
            began_s = began_s or time.monotonic()
            trading = not supervised.needed_to_trade & found.keys()
            events.emit("degraded", parts=found, trading=trading)
        elif not found and supervised.parts:
            events.emit("restored", after_ms=round((time.monotonic() - began_s) * 1000))
            began_s = 0.0
        supervised.parts = found
        await asyncio.sleep(PARTS_S)


async def await_start(supervised: Supervised) -> None:
    """Return when all parts have done their work at once, or when that took too long: it trades without."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + START_LIMIT_S
    while (found := await supervised.degraded()) and loop.time() < until_s:
        supervised.starting = f"starting: {', '.join(f'{name} is {why}' for name, why in found.items())}"
        await asyncio.sleep(STARTING_POLL_S)
    supervised.starting = None


def _former_ports(directory: Path) -> dict[str, Ports]:
    return load_firm(directory).ports if (directory / "firm.json").exists() else {}


def _write_endpoints(firm: Firm) -> None:
    def address(name: str) -> str:
        return f"http://127.0.0.1:{firm.ports[name].http}"

    document = {
        "pid": os.getpid(),
        "http": address("supervisor"),
        "order_entry": [f"127.0.0.1:{firm.ports[name].order_entry}" for name in ("engine-a", "engine-b")],
        "postgres": firm.postgres,
        "nats": firm.nats,
        "events": str(firm.path / "events"),
        "components": {name: {"http": address(name)} for name in COMPONENTS},
        # Of those who listen: by them a tester finds the connections between the parts.
        "ports": {name: msgspec.to_builtins(ports) for name, ports in firm.ports.items()},
    }
    write_atomically(firm.path / "endpoints.json", msgspec.json.format(msgspec.json.encode(document)))
