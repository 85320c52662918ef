"""The control interface: calendar, fill scripts, misbehaviour, session stores, gateways, own acts."""

from typing import Any, Literal

import msgspec
from aiohttp import web

from paperexchange import facts as f
from paperexchange.control.answers import EXCHANGE, NotFoundError, answer, body_of
from paperexchange.control.members import account_of, get_phase
from paperexchange.errors import ExchangeError
from paperexchange.exchange import Exchange
from paperexchange.gateway.host import SessionHost
from paperexchange.model import Execution, Phase
from paperexchange.scripts import FillScript, When

_MAX_PRELOAD = 10_000_000


class PhaseBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /control/phase`."""

    phase: Phase


class PhaseDue(msgspec.Struct, forbid_unknown_fields=True):
    """A phase and when it begins, from now."""

    phase: Phase
    in_ms: float


class CalendarBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /control/calendar`."""

    phases: list[PhaseDue]


class FillsBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /control/fills`."""

    account: str
    slices: list[int]
    min_quantity: int = 1
    symbol: str = ""
    interval_ms: float = 5.0
    when: When = "interval"


class MisbehaveBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /control/misbehave`."""

    action: str
    session: str
    on: dict[str, Any] | None = None
    parameters: dict[str, Any] = {}
    count: int = 1
    expires_s: float = 30.0


class SessionBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /control/session`."""

    session: str
    action: Literal["wipe", "roll_back", "jump_ahead", "disconnect", "reset", "logout"]
    n: int = 1
    refuse_ms: float = 0.0
    text: str = "asked for by the operator"


class GatewayBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /control/gateway`."""

    gateway: Literal["primary", "backup", "drop_copy"] = "backup"
    promoted: bool | None = None
    up: bool | None = None


class MarketDataBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /control/market_data`."""

    action: str
    n: int = 10
    ms: float = 1000.0
    field: str = "price"
    value: int | str | None = None


class RestateBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /control/restate`."""

    order_id: str
    quantity: int
    text: str = "restated by the exchange"


class TradeBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /control/bust` and, with `price`, `POST /control/correct`."""

    account: str
    exec_id: str
    price: int = 0


class PreloadBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /control/preload`."""

    account: str
    executions: int


async def health(request: web.Request) -> web.Response:
    """`GET /health`."""
    exchange = request.app[EXCHANGE]
    return answer(
        {
            "status": "ok",
            "phase": exchange.state.phase,
            "orders_per_s": exchange.orders_per_s,
            "seq": exchange.ledger.seq,
            "durable_seq": exchange.ledger.durable_seq,
        }
    )


async def set_phase(request: web.Request) -> web.Response:
    """`POST /control/phase`: enter a phase; a running calendar goes on from its next change."""
    exchange = request.app[EXCHANGE]
    exchange.enter((await body_of(request, PhaseBody)).phase)
    return await get_phase(request)


async def calendar(request: web.Request) -> web.Response:
    """`POST /control/calendar`: phases that begin by themselves; what was planned before is dropped."""
    exchange = request.app[EXCHANGE]
    body = await body_of(request, CalendarBody)
    if any(due.in_ms < 0 for due in body.phases):
        raise ExchangeError("in_ms must not be negative", where="phases", hint="counted from now")
    exchange.schedule([(due.phase, due.in_ms) for due in body.phases])
    exchange.note("calendar", " ".join(f"{due.phase}+{due.in_ms:g}ms" for due in body.phases))
    return await get_phase(request)


async def fills(request: web.Request) -> web.Response:
    """`POST /control/fills`."""
    exchange = request.app[EXCHANGE]
    body = await body_of(request, FillsBody)
    account_of(request, body.account)
    if not body.slices or any(slice_ < 1 for slice_ in body.slices) or body.interval_ms < 0:
        raise ExchangeError(
            "slices must be quantities of at least 1, interval_ms not negative",
            where="slices",
            hint='for example "slices": [100, 100]',
        )
    if body.symbol and body.symbol not in exchange.venue.instruments:
        raise NotFoundError(f"unknown symbol {body.symbol!r}", where="symbol")
    script = FillScript(
        id=exchange.next_script_id(),
        account=body.account,
        min_quantity=body.min_quantity,
        slices=body.slices,
        symbol=body.symbol,
        interval_ms=body.interval_ms,
        when=body.when,
    )
    exchange.venue.arm(script, exchange.clock())
    return answer({"id": script.id})


async def misbehave(request: web.Request) -> web.Response:
    """`POST /control/misbehave`; the answer has `mono_ns` when it took place at once."""
    exchange = request.app[EXCHANGE]
    body = await body_of(request, MisbehaveBody)
    host = exchange.host(body.session)
    now = exchange.clock()
    armed = exchange.engine.arm(
        body.action,
        session=host.name,
        now_ns=now.mono_ns,
        on=body.on,
        parameters=body.parameters,
        count=body.count,
        expires_s=body.expires_s,
    )
    exchange.record(
        f.MisbehaviourArmed(
            mono_ns=now.mono_ns, wall_ns=now.wall_ns, id=armed.id, action=armed.action, session=host.name
        )
    )
    done = (
        {"mono_ns": armed.fired_mono_ns[-1], "uncertainty_ns": armed.took_ns} if armed.fired_mono_ns else {}
    )
    return answer({"id": armed.id, **done})


async def misbehaviours(request: web.Request) -> web.Response:
    """`GET /control/misbehaviours`: armed ones first, then those that are over."""
    exchange = request.app[EXCHANGE]
    exchange.engine.expire(exchange.clock().mono_ns)
    engine = exchange.engine
    listed = [
        {**msgspec.to_builtins(entry), "armed": entry in engine.armed}
        for entry in [*engine.armed, *reversed(engine.past)]
    ]
    return answer({"misbehaviours": listed})


async def disarm(request: web.Request) -> web.Response:
    """`DELETE /control/misbehave[/ID]`: disarm, and lift what is in force. Idempotent."""
    exchange = request.app[EXCHANGE]
    chosen = exchange.engine.disarm(request.match_info.get("id"))
    sessions = {entry.session for entry in chosen} if "id" in request.match_info else set(exchange.hosts)
    for name in sessions:
        exchange.hosts[name].behave()
    if "id" not in request.match_info:
        exchange.feed.behave()
    exchange.note("disarm", request.match_info.get("id", "all"))
    return answer({"disarmed": [entry.id for entry in chosen]})


async def session(request: web.Request) -> web.Response:
    """`POST /control/session`: cut the session, then change its store."""
    exchange = request.app[EXCHANGE]
    body = await body_of(request, SessionBody)
    host = exchange.host(body.session)
    if body.n < 1:
        raise ExchangeError("n must be at least 1", where="n", hint="for example 4000")
    mono_ns = _leave(exchange, host, body)
    if body.action in ("wipe", "reset"):
        host.store.reset(exchange.clock().wall_ns)
    elif body.action == "roll_back":
        host.store.roll_back(body.n)
    elif body.action == "jump_ahead":
        host.store.jump_ahead(body.n)
    exchange.note(f"session {body.action}", f"{host.name} {body.n}")
    return answer({"mono_ns": mono_ns, "next_in": host.store.next_in, "next_out": host.store.next_out})


def _leave(exchange: Exchange, host: SessionHost, body: SessionBody) -> int:
    """Say goodbye, or cut; the CLOCK_MONOTONIC of that."""
    now = exchange.clock()
    if body.action == "logout":
        host.log_out(body.text, now)
        return now.mono_ns
    return host.cut(f"control: {body.action}", refuse_ms=body.refuse_ms) or exchange.clock().mono_ns


async def gateway(request: web.Request) -> web.Response:
    """`POST /control/gateway`: which one is in force (`promoted`), and whether one is there at all (`up`)."""
    exchange = request.app[EXCHANGE]
    body = await body_of(request, GatewayBody)
    if body.promoted is None and body.up is None:
        raise ExchangeError("nothing to do", where="body", hint='give "promoted" or "up"')
    if body.promoted is not None and body.gateway != "backup":
        raise ExchangeError("only the backup is promoted", where="promoted", hint='"gateway": "backup"')
    if body.up is not None:
        exchange.switch_gateway(body.gateway, up=body.up)
    if body.promoted is not None:
        exchange.promote(body.promoted)
    return answer({"gateway": body.gateway, "promoted": exchange.state.promoted, "up": body.up})


async def market_data(request: web.Request) -> web.Response:
    """`POST /control/market_data`."""
    exchange = request.app[EXCHANGE]
    body = await body_of(request, MarketDataBody)
    feed = exchange.feed
    deed = feed.misbehave(body.action, n=body.n, ms=body.ms, field=body.field, value=body.value)
    exchange.note(f"market data {body.action}", f"n={body.n} ms={body.ms:g}")
    done = {"mono_ns": deed.fired_mono_ns[-1]} if deed.fired_mono_ns else {}
    return answer({"id": deed.id, "action": body.action, "epoch": feed.epoch, **done})


async def deeds(request: web.Request) -> web.Response:
    """`GET /control/market_data`: the feed's misbehaviours, and when each took effect."""
    found = request.app[EXCHANGE].feed.deeds.values()
    return answer({"deeds": [msgspec.to_builtins(deed) for deed in found]})


async def restate(request: web.Request) -> web.Response:
    """`POST /control/restate`: change an open order's quantity unasked (150=D)."""
    exchange = request.app[EXCHANGE]
    body = await body_of(request, RestateBody)
    now = exchange.clock()
    if not exchange.venue.restate(body.order_id, body.quantity, body.text, now):
        raise NotFoundError(
            f"order {body.order_id!r} is not open, or cannot have quantity {body.quantity}",
            where="order_id",
            hint="quantity must be above what is filled and not above the order's",
        )
    exchange.publish(now)
    return answer({"order_id": body.order_id, "quantity": body.quantity})


async def bust(request: web.Request) -> web.Response:
    """`POST /control/bust`: take a fill back (150=H)."""
    exchange = request.app[EXCHANGE]
    body = await body_of(request, TradeBody)
    now = exchange.clock()
    exchange.venue.bust(_fill(request, body), now)
    exchange.publish(now)
    return answer({"exec_id": body.exec_id})


async def correct(request: web.Request) -> web.Response:
    """`POST /control/correct`: change a fill's price (150=G)."""
    exchange = request.app[EXCHANGE]
    body = await body_of(request, TradeBody)
    if body.price <= 0:
        raise ExchangeError("price must be above 0", where="price", hint="in ticks of 0.0001")
    now = exchange.clock()
    exchange.venue.correct(_fill(request, body), body.price, now)
    exchange.publish(now)
    return answer({"exec_id": body.exec_id, "price": body.price})


def _fill(request: web.Request, body: TradeBody) -> Execution:
    exchange = request.app[EXCHANGE]
    found = exchange.state.stands(account_of(request, body.account).name, body.exec_id)
    if found is None:
        raise NotFoundError(f"no fill {body.exec_id!r} that stands", where="exec_id")
    return found


async def preload(request: web.Request) -> web.Response:
    """`POST /control/preload`: real fills from before anybody was there."""
    exchange = request.app[EXCHANGE]
    body = await body_of(request, PreloadBody)
    account_of(request, body.account)
    if not 0 < body.executions <= _MAX_PRELOAD:
        raise ExchangeError(f"executions must be 1 to {_MAX_PRELOAD}", where="executions")
    await exchange.preload(body.account, body.executions)
    return answer({"account": body.account, "last": exchange.state.account(body.account).fills})


ROUTES = [
    web.get("/health", health),
    web.post("/control/phase", set_phase),
    web.post("/control/calendar", calendar),
    web.post("/control/fills", fills),
    web.post("/control/misbehave", misbehave),
    web.get("/control/misbehaviours", misbehaviours),
    web.delete("/control/misbehave", disarm),
    web.delete("/control/misbehave/{id}", disarm),
    web.post("/control/session", session),
    web.post("/control/gateway", gateway),
    web.post("/control/market_data", market_data),
    web.get("/control/market_data", deeds),
    web.post("/control/restate", restate),
    web.post("/control/bust", bust),
    web.post("/control/correct", correct),
    web.post("/control/preload", preload),
]
