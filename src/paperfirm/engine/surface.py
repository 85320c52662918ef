"""The engine's HTTP surface: health, readiness, metrics, and the state while it is primary."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import msgspec

from paperfirm.engine import documents
from paperfirm.engine.errors import EngineError
from paperfirm.http import Request, Response, Router, common_routes, json, problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from paperfirm.engine.engine import Engine
    from paperfirm.engine.lead import Lead


ANSWER_FIRST_S = 0.005


def routes(engine: Engine) -> Router:
    """All routes of an engine."""

    def scraped() -> dict[str, float]:
        engine.scrapes += 1
        engine.scraped_mono_ns = engine.clock[0]()
        return metrics(engine)

    router = common_routes(lambda: not_ready(engine), scraped, component=engine.name, alerts=engine.alerts)
    router.add("POST", "/reconcile", lambda _: reconcile(engine))
    router.add("POST", "/checkpoint", lambda _: checkpoint(engine))
    for name, document in _DOCUMENTS.items():
        router.add("GET", f"/state/{name}", _when_primary(engine, document))
    return router


def checkpoint(engine: Engine) -> Response:
    """Begin a checkpoint at an operator's (or a tester's) wish, once this answer is on its way."""
    reason = engine.no_checkpoint()
    if reason is not None:
        return problem(503, reason, "ask again")
    asyncio.get_running_loop().call_later(ANSWER_FIRST_S, engine.begin_checkpoint)
    return json({"started": True, "seq": engine.store.state.seq}, 202)


def reconcile(engine: Engine) -> Response:
    """Halt, reconcile with the exchange, validate, go on: at an operator's (or a tester's) wish."""
    if engine.lead is None:
        return problem(503, f"{engine.name} is not primary", "ask the supervisor: it forwards to the primary")
    engine.lead.recover_because("reconciliation was asked for")
    return json({"started": True}, 202)


def not_ready(engine: Engine) -> str | None:
    """Why this engine does not do its part: a primary trades, a standby is in step."""
    if engine.lead is not None:
        desk = engine.lead.desk
        return None if desk.trading else f"primary, not trading: {desk.halted_because}"
    if engine.waiting_for_room:
        return "waiting for room on the disk"
    return None if engine.in_step else "standby, not in step with a primary"


def _when_primary(
    engine: Engine, document: Callable[[Engine, Lead, Request], Any]
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        if engine.lead is None:
            return problem(
                503, f"{engine.name} is not primary", "ask the supervisor: it forwards to the primary"
            )
        try:
            found = document(engine, engine.lead, request)
            return json(await found if inspect.isawaitable(found) else found)
        except EngineError as error:
            return problem(503, str(error), "ask again")
        except ValueError as error:
            return problem(400, str(error), "query parameters are whole numbers")

    return answer


def metrics(engine: Engine) -> dict[str, float]:
    """Values for Prometheus."""
    state, store = engine.store.state, engine.store
    values: dict[str, float] = {
        "engine_primary": engine.lead is not None,
        "engine_epoch": state.epoch,
        "engine_journal_seq": state.seq,
        "engine_checkpoints_total": store.checkpoints,
        "engine_checkpoint_seq": store.checkpoint_seq,
        "engine_open_orders": len(state.open_orders),
        "engine_executions_total": len(state.executions),
        "engine_outbox_backlog": len(state.outbox),
        "engine_clients": len(engine.order_entry.clients),
    }
    if engine.lead is not None:
        counters = msgspec.to_builtins(engine.lead.desk.counters)
        values |= {f"engine_orders_{name}_total": value for name, value in counters.items()}
        for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            values[f"engine_order_path_ns_{name}"] = engine.lead.desk.path_ns(part)
        values["engine_memory_corrected_total"] = engine.lead.guard.corrected
        values["engine_halted_symbols"] = len(engine.lead.desk.halted_symbols)
        committer = engine.lead.committer
        values["engine_commit_batches_total"] = committer.batches
        values["engine_commit_syncs_total"] = committer.syncs
        values["engine_commit_sync_ns_total"] = committer.sync_ns
        values["engine_commit_standby_ns_total"] = committer.standby_ns
        values["engine_trading"] = engine.lead.desk.trading
        values["engine_standby_in_step"] = engine.lead.replication.in_step
    return {name: float(value) for name, value in values.items()}


def _positions(engine: Engine, _lead: Lead, _request: Request) -> Any:
    return documents.positions(engine.store.state, engine.clock[0]())


def _orders(engine: Engine, _lead: Lead, request: Request) -> Any:
    everything = request.query.get("all", "0") not in {"", "0", "false"}
    read, whole_number = request.query.get, documents.whole_number
    limit = whole_number(read("limit"), 0) if read("limit") else None
    return documents.orders(
        engine.store.state,
        engine.clock[0](),
        everything=everything,
        since=whole_number(read("since"), 0),
        limit=limit,
    )


def _executions(engine: Engine, _lead: Lead, request: Request) -> Any:
    read = request.query.get
    since = documents.whole_number(read("since"), 0)
    return documents.executions(
        engine.store.state, since=since, limit=documents.whole_number(read("limit"), 10_000)
    )


async def _risk(engine: Engine, lead: Lead, _request: Request) -> Any:
    used = await lead.risk.usage()
    return {
        "mono_ns": used.usage.mono_ns,
        "seq": used.seq,
        "limits": {
            **msgspec.to_builtins(engine.firm.limits),
            "concentration_from": engine.firm.limits.concentration_from,
        },
        "usage": {
            "exposure": "worst",
            "position": used.usage.position,
            "gross_notional": used.usage.gross_notional,
            "concentration_pct": used.usage.concentration_pct,
        },
        "breaches": used.usage.breaches,
    }


def _pnl(engine: Engine, lead: Lead, _request: Request) -> Any:
    stamp = {"mono_ns": engine.clock[0](), "seq": engine.store.state.seq}
    return stamp | documents.profit(engine.store.state, lead.desk.reference)


def _connectivity(engine: Engine, lead: Lead, _request: Request) -> Any:
    router, exchange = lead.router, engine.firm.exchange.comp_id
    rows = [
        documents.link(
            exchange, "exchange", connected=router.session_up, since_mono_ns=router.session_since_mono_ns
        ),
        documents.link(
            "nats", "queue", connected=lead.outbox.connected, since_mono_ns=lead.outbox.since_mono_ns
        ),
    ]
    rows.append(
        documents.link(
            "postgres",
            "database",
            connected=lead.recorder.connected,
            since_mono_ns=lead.recorder.since_mono_ns,
        )
    )
    rows += [
        documents.link(peer.name, "internal", connected=peer.up, since_mono_ns=peer.since_mono_ns)
        for peer in (router, lead.risk, engine.feed)
    ]
    rows.append(
        documents.link(
            "standby",
            "internal",
            connected=lead.replication.in_step,
            since_mono_ns=lead.replication.since_mono_ns,
        )
    )
    return {"links": rows}


def _market_data(engine: Engine, _lead: Lead, _request: Request) -> Any:
    firm = engine.firm
    return documents.market_data(
        engine.feed, firm.exchange.symbols, mono_ns=engine.clock[0](), stale_ms=firm.strategy.stale_ms
    )


def _strategy(engine: Engine, lead: Lead, _request: Request) -> Any:
    maker = lead.maker
    return documents.strategy(
        maker.indicators, engine.firm.exchange.symbols, initialised=maker.initialised, quoting=maker.quoting
    )


def _infrastructure(engine: Engine, _lead: Lead, _request: Request) -> Any:
    firm, folder = engine.firm, engine.events.path.parent
    return {
        "configuration": {"path": firm.configuration, "sha256": firm.sha256, "loaded": True},
        "timers": engine.timers.documents(),
        "threads": [
            {"component": engine.name, "name": "event loop", "heartbeat_mono_ns": engine.heartbeat_mono_ns}
        ],
        "logging": {
            "path": str(folder),
            "last_written_mono_ns": documents.last_written(folder, *engine.clock),
        },
        "metrics": {
            "url": f"http://127.0.0.1:{engine.ports.http}/metrics",
            "scraped": engine.scrapes,
            "last_scraped_mono_ns": engine.scraped_mono_ns,
        },
    }


def _settlements(engine: Engine, lead: Lead, _request: Request) -> Any:
    state, phase = engine.store.state, lead.settlement.phase
    return {
        "mono_ns": engine.clock[0](),
        "seq": state.seq,
        "phase": phase.phase,
        "day": phase.day,
        "settlements": [
            {
                "day": close.day,
                "seq": close.seq,
                "realised": sum(close.realised.values()),
                "by_symbol": close.realised,
                "positions": close.positions,
            }
            for close in state.settlements.values()
        ],
    }


_DOCUMENTS: dict[str, Callable[[Engine, Lead, Request], Any]] = {
    "positions": _positions,
    "orders": _orders,
    "executions": _executions,
    "risk": _risk,
    "pnl": _pnl,
    "connectivity": _connectivity,
    "market_data": _market_data,
    "strategy": _strategy,
    "infrastructure": _infrastructure,
    "settlements": _settlements,
}
