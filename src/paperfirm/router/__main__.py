"""The router's process: `python -m paperfirm.router --dir DIR`."""

from __future__ import annotations

import asyncio
import time

from fixsession.clock import Now
from paperfirm.disk import has_room, wait_for_room, write_anew
from paperfirm.frames import Link, listen
from paperfirm.http import Response, common_routes, json, problem, serve
from paperfirm.quarantine import Quarantine
from paperfirm.router.connection import keep_connected
from paperfirm.router.fence import Fence
from paperfirm.router.gateways import BACKUP, PRIMARY, Gateways
from paperfirm.router.inbound import InboundLog
from paperfirm.router.sent import RememberingStore
from paperfirm.router.service import Router
from paperfirm.supervisor.component import Context, run_component

TICK_S = 0.02
LOGOUT_LIMIT_S = 1.0
BACKUP_FILE = "session-backup.log"


async def main(context: Context) -> None:
    """Keep the FIX session with the exchange and carry orders and reports until asked to stop."""
    ports, exchange = context.firm.ports["router"], context.firm.exchange
    await room(context)
    router = make_router(context)
    engines = await listen(ports.service, lambda: Link(router.engine_message, on_close=router.engine_closed))
    routes = common_routes(
        lambda: None if router.session_up else "the FIX session is down",
        lambda: metrics(router),
        component="router",
        alerts=context.alerts,
    )
    routes.add("GET", "/state", lambda _: json(state(router)))
    routes.add("POST", "/control/reset", lambda _: reset(router, context))
    web = await serve(ports.http, routes)
    endpoints = {PRIMARY: exchange.fix, BACKUP: exchange.fix_backup or exchange.fix}
    connecting = asyncio.create_task(keep_connected(router, endpoints, context.events.emit))
    context.events.emit("ready")
    while not context.stop.is_set():
        router.tick()
        await asyncio.sleep(TICK_S)
    connecting.cancel()
    await say_goodbye(router)
    engines.close()
    web.close()


async def room(context: Context) -> None:
    """Begin only with room on the disk; until then this process lives, answers, and is not ready."""
    folder = context.state_folder("router")
    if has_room(folder) is None:
        return
    routes = common_routes(lambda: "no room on the disk", dict, component="router", alerts=context.alerts)
    web = await serve(context.firm.ports["router"].http, routes)
    await wait_for_room(folder, context.alerts, context.stop)
    web.close()


def make_router(context: Context) -> Router:
    """Open the router's durable state and put the parts together."""
    firm = context.firm
    folder = context.state_folder("router")
    files = [folder / "session.log", folder / BACKUP_FILE, *sorted((folder / "inbound").glob("*.seg"))[-1:]]
    rewritten = write_anew(folder, (path for path in files if path.exists()))
    if rewritten:
        context.events.emit("store_rewritten", files=rewritten)
    log = InboundLog(folder / "inbound")
    if log.torn_bytes:
        context.events.emit("torn_tail_cut", bytes=log.torn_bytes, log=str(folder / "inbound"))
    loop = asyncio.get_running_loop()
    fails_over = firm.router.backup_gateway and firm.exchange.fix_backup is not None
    patience_ns = int(firm.router.backup_after_s * 1e9)
    return Router(
        identity=(firm.exchange.accounts[firm.account].comp_id, firm.exchange.comp_id),
        account=firm.account,
        store=RememberingStore(folder / "session.log"),
        log=log,
        fence=Fence(folder / "epoch.json"),
        emit=context.events.emit,
        now=lambda: Now(time.monotonic_ns(), time.time_ns()),
        soon=loop.call_soon,
        alerts=context.alerts,
        quarantine=Quarantine(folder / "quarantine.jsonl", context.events.emit),
        symbols=frozenset(firm.exchange.symbols),
        gateways=Gateways(backup=fails_over, patience_ns=patience_ns, now_ns=time.monotonic_ns()),
        backup_store=RememberingStore(folder / BACKUP_FILE) if fails_over else None,
    )


async def say_goodbye(router: Router) -> None:
    """Log out and wait for the answer, but not for ever."""
    router.logout()
    for _ in range(int(LOGOUT_LIMIT_S / TICK_S)):
        if not router.session.is_connected:
            break
        router.tick()
        await asyncio.sleep(TICK_S)
    router.flush()


def reset(router: Router, context: Context) -> Response:
    """Operator's procedure when both sides' numbers no longer fit.

    The next logon starts both at 1 (141=Y).
    """
    if router.session_up:
        return problem(409, "the session is up", "reset numbers only when the exchange refuses the session")
    router.ask_reset()
    context.events.emit("session_reset_asked")
    return json({"reset": "at the next logon"})


def metrics(router: Router) -> dict[str, float]:
    """Return the counters for Prometheus."""
    counters = router.counters
    return {
        "router_sent_total": counters.sent,
        "router_unsent_total": counters.unsent,
        "router_inbound_total": counters.inbound,
        "router_late_total": counters.late,
        "router_sessions_total": counters.sessions,
        "router_untranslatable_total": counters.untranslatable,
        "router_quarantined_total": router.quarantined,
        "router_session_up": float(router.session_up),
    }


def state(router: Router) -> dict[str, object]:
    """Return where the session stands."""
    session = router.session
    return {
        "session_up": router.session_up,
        "since_mono_ns": router.since_ns,
        "next_out": session.next_out,
        "next_in": session.next_in,
        "gap": session.gap,
        "bound": router.bound,
        "gateway": router.gateway,
    }


if __name__ == "__main__":
    run_component("router", main)
