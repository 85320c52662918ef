"""The router's process: `python -m paperfirm.router --dir DIR`."""

from __future__ import annotations

import asyncio
import time

from fixsession.clock import Now
from paperfirm.frames import Link, listen
from paperfirm.http import Response, common_routes, json, problem, render_metrics, serve
from paperfirm.router.connection import keep_connected
from paperfirm.router.fence import Fence
from paperfirm.router.inbound import InboundLog
from paperfirm.router.sent import RememberingStore
from paperfirm.router.service import Router
from paperfirm.supervisor.component import Context, run_component

TICK_S = 0.02
LOGOUT_LIMIT_S = 1.0


async def main(context: Context) -> None:
    """Keep the FIX session with the exchange and carry orders and reports until asked to stop."""
    ports, exchange = context.firm.ports["router"], context.firm.exchange
    router = make_router(context)
    engines = await listen(ports.service, lambda: Link(router.engine_message, on_close=router.engine_closed))
    routes = common_routes(
        lambda: None if router.session_up else "the FIX session is down",
        lambda: metrics(router),
        component="router",
    )
    routes.add("GET", "/state", lambda _: json(state(router)))
    routes.add("POST", "/control/reset", lambda _: reset(router, context))
    web = await serve(ports.http, routes)
    connecting = asyncio.create_task(keep_connected(router, exchange.fix, context.events.emit))
    context.events.emit("ready")
    while not context.stop.is_set():
        router.tick()
        await asyncio.sleep(TICK_S)
    connecting.cancel()
    await say_goodbye(router)
    engines.close()
    web.close()


def make_router(context: Context) -> Router:
    """Open the router's durable state and put the parts together."""
    firm = context.firm
    folder = context.state_folder("router")
    log = InboundLog(folder / "inbound")
    if log.torn_bytes:
        context.events.emit("torn_tail_cut", bytes=log.torn_bytes, log=str(folder / "inbound"))
    loop = asyncio.get_running_loop()
    return Router(
        identity=(firm.exchange.accounts[firm.account].comp_id, firm.exchange.comp_id),
        account=firm.account,
        store=RememberingStore(folder / "session.log"),
        log=log,
        fence=Fence(folder / "epoch.json"),
        emit=context.events.emit,
        now=lambda: Now(time.monotonic_ns(), time.time_ns()),
        soon=loop.call_soon,
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
    router.reset_asked = True
    context.events.emit("session_reset_asked")
    return json({"reset": "at the next logon"})


def metrics(router: Router) -> str:
    """Return the counters for Prometheus."""
    counters = router.counters
    return render_metrics(
        {
            "router_sent_total": counters.sent,
            "router_unsent_total": counters.unsent,
            "router_inbound_total": counters.inbound,
            "router_late_total": counters.late,
            "router_sessions_total": counters.sessions,
            "router_untranslatable_total": counters.untranslatable,
            "router_session_up": float(router.session_up),
        }
    )


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
    }


if __name__ == "__main__":
    run_component("router", main)
