"""The oracle: what was acknowledged, and the stream of everything that happens."""

import asyncio
import contextlib
from typing import Any

import msgspec
from aiohttp import web

from paperexchange import facts as f
from paperexchange.control.answers import EXCHANGE, MAX_PAGE, answer, raw_answer, whole
from paperexchange.control.members import account_of, executions_page
from paperexchange.errors import ExchangeError
from paperexchange.events import Filter
from paperexchange.exchange import Exchange
from paperexchange.ledger.lines import Reader
from paperexchange.state import Account

_LOOK_AHEAD = 50_000
_encode = msgspec.json.Encoder().encode


async def acknowledged(request: web.Request) -> web.Response:
    """`GET /oracle/acknowledged?stream=…&account=A&since=SEQ&limit=M`."""
    exchange = request.app[EXCHANGE]
    account = account_of(request, request.query.get("account") or next(iter(exchange.routes)))
    since, limit = whole(request, "since", 0), whole(request, "limit", MAX_PAGE, minimum=1, maximum=MAX_PAGE)
    stream = request.query.get("stream", "orders")
    if stream == "orders":
        return _orders(account, since, limit)
    if stream == "executions":
        return _executions(account, since, limit)
    if stream == "reports":
        await exchange.ledger.barrier()
        return answer(await asyncio.to_thread(_reports, exchange, account.name, since, limit))
    raise ExchangeError(f"unknown stream {stream!r}", where="stream", hint="one of orders executions reports")


def _orders(account: Account, since: int, limit: int) -> web.Response:
    found = account.accepted_after(since, limit)
    following = found[-1].accepted_seq if found else since
    return answer({"events": found, "next": following, "end": len(found) < limit})


def _executions(account: Account, since: int, limit: int) -> web.Response:
    last = len(account.executions)
    following = min(since + limit, last) if since < last else since
    end = b"true" if following >= last else b"false"
    body = b'{"events":[%b],"next":%d,"end":%b}'
    return raw_answer(body % (executions_page(account, since, limit), following, end))


def _reports(exchange: Exchange, account: str, since: int, limit: int) -> dict[str, Any]:
    """Give reports after entry `since` with their delivery attempts, from the ledger file."""
    _, offset = exchange.ledger.offset_before(since + 1)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    following, end = since, True
    for line in Reader(exchange.ledger.path, offset=offset, after_seq=None):
        if b'"kind":"report_sent"' in line.body[:24] and line.seq > since and len(found) < limit:
            fact = f.decoder.decode(line.body)
            if isinstance(fact, f.ReportSent) and fact.account == account:
                found[fact.session, fact.seq_num] = {**msgspec.to_builtins(fact), "attempts": []}
                following = fact.seq
        elif b'"kind":"delivery"' in line.body[:24]:
            _attach(f.decoder.decode(line.body), found)
        if len(found) >= limit and line.seq > following + _LOOK_AHEAD:
            end = False
            break
    return {"events": list(found.values()), "next": following, "end": end and len(found) < limit}


def _attach(fact: f.AnyFact, found: dict[tuple[str, int], dict[str, Any]]) -> None:
    if not isinstance(fact, f.Delivery):
        return
    attempt = {"mono_ns": fact.mono_ns, "conn": fact.conn, "outcome": fact.outcome}
    for seq_num in range(fact.first, fact.last + 1):
        report = found.get((fact.session, seq_num))
        if report is not None:
            report["attempts"].append(attempt)


async def summary(request: web.Request) -> web.Response:
    """`GET /oracle/summary?account=A`."""
    exchange = request.app[EXCHANGE]
    account = account_of(request, request.query.get("account") or next(iter(exchange.routes)))
    sessions = {
        host.name: {
            "logged_on": host.logged_on,
            "conn": host.conn.number if host.conn else 0,
            "connected_mono_ns": host.connected_mono_ns,
            "gateway": host.gateway,
            "next_in": host.store.next_in,
            "next_out": host.store.next_out,
        }
        for host in exchange.hosts.values()
        if host.account == account.name
    }
    return answer(
        {
            "orders_accepted": account.accepted,
            "orders_rejected": account.rejected,
            "fills": account.fills,
            "last_order_mono_ns": exchange.state.last_order_mono_ns.get(account.name, 0),
            "sessions": sessions,
            "phase": exchange.state.phase,
            "seq": exchange.ledger.seq,
        }
    )


async def events(request: web.Request) -> web.StreamResponse:
    """`GET /events?since=SEQ&kinds=a,b&account=A`: JSON lines without end."""
    exchange = request.app[EXCHANGE]
    kinds = frozenset(kind for kind in request.query.get("kinds", "").split(",") if kind)
    chosen = Filter(kinds, request.query.get("account", ""))
    since = None if request.query.get("since", "now") == "now" else whole(request, "since", 0)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    response.enable_chunked_encoding()
    stream = exchange.hub.stream(since, chosen)
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await response.write(_heartbeat(exchange))
        async with contextlib.aclosing(stream):
            async for lines in stream:
                await response.write(lines or _heartbeat(exchange))
    return response


def _heartbeat(exchange: Exchange) -> bytes:
    now = exchange.clock()
    beat = {"kind": "heartbeat", "seq": exchange.ledger.durable_seq, "mono_ns": now.mono_ns}
    return _encode(beat) + b"\n"


ROUTES = [
    web.get("/oracle/acknowledged", acknowledged),
    web.get("/oracle/summary", summary),
    web.get("/events", events),
]
