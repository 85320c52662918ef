"""The risk manager's process: `python -m paperfirm.risk --dir DIR`."""

from __future__ import annotations

import asyncio

from paperfirm.frames import Link, listen
from paperfirm.http import common_routes, json, serve
from paperfirm.risk.service import RiskService
from paperfirm.supervisor.component import Context, run_component

WATCH_S = 0.2


async def main(context: Context) -> None:
    """Serve approvals to the engines until asked to stop."""
    ports = context.firm.ports["risk"]
    service = RiskService(context.firm.limits, context.events.emit)
    engines = await listen(ports.service, lambda: Link(service.on_message, on_close=service.on_close))
    routes = common_routes(lambda: None, lambda: metrics(service), component="risk", alerts=context.alerts)
    routes.add("GET", "/state", lambda _: json(state(service)))
    web = await serve(ports.http, routes)
    context.events.emit("ready")
    while not context.stop.is_set():
        service.watch()
        try:
            async with asyncio.timeout(WATCH_S):
                await context.stop.wait()
        except TimeoutError:
            continue
    engines.close()
    web.close()


def metrics(service: RiskService) -> dict[str, float]:
    """Return the counters for Prometheus."""
    return {
        "risk_approved_total": service.counters.approved,
        "risk_refused_total": service.counters.refused,
        "risk_snapshots_total": service.counters.snapshots,
        "risk_open_orders": service.book.open_orders,
        "risk_gross_notional_ticks": service.book.gross_notional,
        "risk_serving": float(service.served),
    }


def state(service: RiskService) -> dict[str, object]:
    """Return limits and usage as one document."""
    book = service.book
    usage = {"position": book.position_usage(), "gross_notional": book.gross_notional}
    usage["concentration_pct"] = book.concentration_pct()
    return {"limits": book.limits, "usage": usage, "breaches": book.breaches(), "epoch": service.epoch}


if __name__ == "__main__":
    run_component("risk", main)
