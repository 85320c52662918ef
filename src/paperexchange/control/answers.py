"""What every HTTP handler shares: JSON answers, query and body parsing, errors with a hint."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from paperexchange.errors import ExchangeError
from paperexchange.exchange import Exchange

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
EXCHANGE: web.AppKey[Exchange] = web.AppKey("exchange", Exchange)
MAX_PAGE = 20_000
_BAD_REQUEST, _NOT_FOUND = 400, 404
T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


class NotFoundError(ExchangeError):
    """What was asked for does not exist."""


def answer(value: Any, status: int = 200) -> web.Response:
    """Give a JSON answer."""
    return web.Response(body=_encode(value), status=status, content_type="application/json")


def raw_answer(body: bytes) -> web.Response:
    """Give a JSON answer that is encoded already."""
    return web.Response(body=body, content_type="application/json")


def whole(request: web.Request, name: str, default: int, *, minimum: int = 0, maximum: int = 2**62) -> int:
    """Give an integer of the query."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or not minimum <= int(text) <= maximum:
        raise ExchangeError(
            f"{text!r} is not a whole number from {minimum} to {maximum}",
            where=name,
            hint=f"for example {name}={default}",
        )
    return int(text)


async def body_of(request: web.Request, kind: type[T]) -> T:
    """Give the request's JSON body as `kind`; ExchangeError says which field is wrong."""
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise ExchangeError(
            str(error), where="body", hint="docs/reference/exchange-interface.md shows the fields"
        ) from error


@web.middleware
async def durable_or_error(request: web.Request, handler: Handler) -> web.StreamResponse:
    """No answer tells of an entry that is not yet on the disk; errors become JSON with a hint."""
    try:
        response = await handler(request)
    except ExchangeError as error:
        status = _NOT_FOUND if isinstance(error, NotFoundError) else _BAD_REQUEST
        where = f"{error.where}: " if error.where else ""
        return answer({"error": where + error.what, "hint": error.hint}, status)
    except web.HTTPException as error:
        hint = "docs/reference/exchange-interface.md lists the requests"
        return answer(
            {"error": f"{request.method} {request.path}: {error.reason}", "hint": hint}, error.status
        )
    if not response.prepared:
        await request.app[EXCHANGE].ledger.barrier()
    return response
