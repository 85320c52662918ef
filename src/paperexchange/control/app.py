"""The HTTP servers. Imported only after the exchange is up, because their library is slow to load."""

import socket

from aiohttp import web

from paperexchange.control import members, oracle, steer
from paperexchange.control.answers import EXCHANGE, durable_or_error
from paperexchange.exchange import Exchange


async def serve(exchange: Exchange, everything: socket.socket, member: socket.socket) -> list[web.AppRunner]:
    """Answer on sockets that listen already: the operator's with all there is, and the members' own."""
    operator = web.Application(middlewares=[durable_or_error])
    operator.add_routes([*members.ROUTES, *oracle.ROUTES, *steer.ROUTES])
    office = web.Application(middlewares=[members.perhaps_slow, durable_or_error])
    office.add_routes(members.ROUTES)
    return [await _open(exchange, app, sock) for app, sock in ((operator, everything), (office, member))]


async def _open(exchange: Exchange, app: web.Application, sock: socket.socket) -> web.AppRunner:
    app[EXCHANGE] = exchange
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    return runner
