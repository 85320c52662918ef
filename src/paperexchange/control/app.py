"""The HTTP server. Imported only after the exchange is up, because its library is slow to load."""

import socket

from aiohttp import web

from paperexchange.control import members, oracle, steer
from paperexchange.control.answers import EXCHANGE, durable_or_error
from paperexchange.exchange import Exchange


async def serve(exchange: Exchange, sock: socket.socket) -> web.AppRunner:
    """Answer on a socket that listens already."""
    app = web.Application(middlewares=[durable_or_error])
    app[EXCHANGE] = exchange
    app.add_routes([*members.ROUTES, *oracle.ROUTES, *steer.ROUTES])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    return runner
