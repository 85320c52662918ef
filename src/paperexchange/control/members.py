"""What a real exchange's back office gives its members."""

import asyncio
from typing import Any

from aiohttp import web

from paperexchange.control.answers import (
    EXCHANGE,
    MAX_PAGE,
    Handler,
    NotFoundError,
    answer,
    raw_answer,
    whole,
)
from paperexchange.exchange import Exchange
from paperexchange.model import HOUSE_ACCOUNTS
from paperexchange.state import Account

_DEPTH = 1000


def account_of(request: web.Request, name: str) -> Account:
    """Give the account of that name, or a 404 that names the known ones."""
    exchange = request.app[EXCHANGE]
    known = [*exchange.routes, *HOUSE_ACCOUNTS]
    if name not in known:
        raise NotFoundError(f"unknown account {name!r}", where="account", hint="one of " + " ".join(known))
    return exchange.state.account(name)


@web.middleware
async def perhaps_slow(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take a request about an account up later while its sessions have `slow_answers` (misbehaviour)."""
    exchange, account = request.app[EXCHANGE], request.match_info.get("account", "")
    if delay_s := exchange.answer_delay_s(account):
        await asyncio.sleep(delay_s)
    return await handler(request)


async def get_phase(request: web.Request) -> web.Response:
    """`GET /phase`."""
    state = request.app[EXCHANGE].state
    return answer({"phase": state.phase, "day": state.day})


async def positions(request: web.Request) -> web.Response:
    """`GET /accounts/A/positions`."""
    account = account_of(request, request.match_info["account"])
    return answer({"positions": account.positions, "seq": request.app[EXCHANGE].ledger.seq})


async def orders(request: web.Request) -> web.Response:
    """`GET /accounts/A/orders?open=1`."""
    account = account_of(request, request.match_info["account"])
    exchange = request.app[EXCHANGE]
    if account.member:
        found = account.history
    else:
        found = [order for order in exchange.state.orders.values() if order.account == account.name]
    if request.query.get("open", "") in ("1", "true"):
        found = [order for order in found if order.open]
    return answer({"orders": found, "seq": exchange.ledger.seq})


def executions_page(account: Account, since: int, limit: int) -> bytes:
    """Give encoded fills after `since`, joined and never decoded."""
    page = account.executions[since : since + limit]
    return b",".join(page)


async def executions(request: web.Request) -> web.Response:
    """`GET /accounts/A/executions?since=N&limit=M`."""
    account = account_of(request, request.match_info["account"])
    since, limit = whole(request, "since", 0), whole(request, "limit", MAX_PAGE, minimum=1, maximum=MAX_PAGE)
    last = len(account.executions)
    following = min(since + limit, last) if since < last else since
    body = b'{"executions":[%b],"next":%d,"last":%d}'
    return raw_answer(body % (executions_page(account, since, limit), following, last))


def books(exchange: Exchange, symbols: list[str]) -> dict[str, Any]:
    """Give the levels of symbols, best first."""
    return {
        symbol: {
            "bids": exchange.venue.books[symbol].bids.depth(_DEPTH),
            "asks": exchange.venue.books[symbol].offers.depth(_DEPTH),
        }
        for symbol in symbols
    }


async def snapshot(request: web.Request) -> web.Response:
    """`GET /market_data/snapshot?symbol=S`."""
    exchange = request.app[EXCHANGE]
    symbol = request.query.get("symbol", "")
    if symbol and symbol not in exchange.venue.books:
        raise NotFoundError(
            f"unknown symbol {symbol!r}", where="symbol", hint="one of " + " ".join(exchange.venue.books)
        )
    chosen = [symbol] if symbol else list(exchange.venue.books)
    return answer(
        {
            "seq": exchange.feed.number(exchange.state.md_seq),
            "epoch": exchange.feed.epoch,
            "books": books(exchange, chosen),
            "last": {symbol: exchange.state.last_price.get(symbol) for symbol in chosen},
            "mono_ns": exchange.clock().mono_ns,
        }
    )


ROUTES = [
    web.get("/accounts/{account}/positions", positions),
    web.get("/accounts/{account}/orders", orders),
    web.get("/accounts/{account}/executions", executions),
    web.get("/market_data/snapshot", snapshot),
    web.get("/phase", get_phase),
]
