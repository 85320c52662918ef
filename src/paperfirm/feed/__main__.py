"""The feed's process: `python -m paperfirm.feed --dir DIR`."""

from __future__ import annotations

import asyncio
import time

from paperfirm.feed.guard import BookGuard
from paperfirm.feed.service import FeedService, open_feed
from paperfirm.frames import Link, listen
from paperfirm.http import common_routes, serve
from paperfirm.quarantine import Quarantine
from paperfirm.supervisor.component import Context, run_component

TICK_S = 0.05


async def main(context: Context) -> None:
    """Follow the exchange's market data for the engines until asked to stop."""
    ports = context.firm.ports["feed"]
    quarantine = Quarantine(context.state_folder("feed") / "quarantine.jsonl", context.events.emit)
    service = FeedService(context.firm.exchange, context.events.emit, time.monotonic_ns, quarantine)
    service.guard = guard = BookGuard(
        service.state, context.state_folder("feed") / "shm", emit=context.events.emit, alerts=context.alerts
    )
    engines = await listen(ports.service, lambda: Link(service.on_message, on_close=service.on_close))
    routes = common_routes(
        lambda: service.trouble(time.monotonic_ns()),
        lambda: metrics(service, quarantine, guard),
        component="feed",
        alerts=context.alerts,
    )
    web = await serve(ports.http, routes)
    await open_feed(service, context.firm.exchange)
    context.events.emit("ready")
    while not context.stop.is_set():
        service.tick()
        try:
            async with asyncio.timeout(TICK_S):
                await context.stop.wait()
        except TimeoutError:
            continue
    await service.close()
    engines.close()
    web.close()


def metrics(service: FeedService, quarantine: Quarantine, guard: BookGuard) -> dict[str, float]:
    """Return the counters for Prometheus."""
    state = service.state
    return {
        "feed_datagrams_total": service.datagrams,
        "feed_undecodable_total": service.undecodable,
        "feed_quarantined_total": quarantine.count,
        "feed_book_rows_damaged_total": guard.damaged,
        "feed_gaps_total": state.gaps,
        "feed_duplicates_total": state.duplicates,
        "feed_snapshots_total": state.snapshots,
        "feed_next_seq": state.next_seq,
        "feed_up": float(service.trouble(time.monotonic_ns()) is None),
    }


if __name__ == "__main__":
    run_component("feed", main)
