"""The small common HTTP surface.

`/health`, `/ready`, `/metrics` and JSON documents, and a client for the same.

Own code instead of aiohttp because each of the firm's processes would pay 0.25 s of import time at every
restart.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from paperfirm.frames import listen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from paperfirm.alerts import Alerts

MAX_HEAD = 32 << 10
MAX_BODY = 8 << 20
REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
} | {
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class HttpError(Exception):
    """A request failed on its way (refused, timed out, malformed answer); says which URL and why."""


class Request(msgspec.Struct, frozen=True):
    """A parsed request; `query` holds the last value of each key."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes


class Response(msgspec.Struct, frozen=True):
    """What a handler gives back."""

    status: int
    body: bytes
    content_type: str = "application/json"


if TYPE_CHECKING:
    Handler = Callable[[Request], Response | Awaitable[Response]]


def json(value: Any, status: int = 200) -> Response:
    """Answer with any msgspec-encodable value."""
    return Response(status, msgspec.json.encode(value))


def problem(status: int, error: str, hint: str) -> Response:
    """Answer with the house's error document."""
    return json({"error": error, "hint": hint}, status)


class Router:
    """Exact routes first, then the longest prefix route (a path ending in `/`)."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], Handler] = {}
        self.requests = 0

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Register a handler; a path ending in `/` serves everything below it."""
        self._routes[method, path] = handler

    def find(self, method: str, path: str) -> Handler | None:
        """Return the handler for a request, if any."""
        exact = self._routes.get((method, path))
        if exact is not None:
            return exact
        below = [p for m, p in self._routes if m == method and p.endswith("/") and path.startswith(p)]
        return self._routes[method, max(below, key=len)] if below else None

    async def answer(self, request: Request) -> Response:
        """Run the handler; its exception becomes a 500 that names it."""
        self.requests += 1
        handler = self.find(request.method, request.path)
        if handler is None:
            return problem(404, f"no {request.method} {request.path}", "see docs/reference/firm-interface.md")
        try:
            result = handler(request)
            return await result if inspect.isawaitable(result) else result
        except Exception as error:  # noqa: BLE001 - the server must outlive any handler
            return problem(
                500, f"{type(error).__name__}: {error}", "a defect of the firm; see its standard error"
            )


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection; requests are answered one after the other."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._busy: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._busy is None or self._busy.done():
            self._busy = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        while self._transport is not None:
            try:
                taken = take_request(self._buffer)
            except ValueError as error:
                self._write(problem(400, str(error), "send HTTP/1.1"), keep=False)
                return
            if taken is None:
                return
            request, keep = taken
            self._write(await self._router.answer(request), keep=keep)

    def _write(self, response: Response, *, keep: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        head = (
            f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Status')}\r\n"
            f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        self._transport.write(head.encode() + response.body)
        if not keep:
            self._transport.close()


def _headers(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def take_request(buffer: bytearray) -> tuple[Request, bool] | None:
    """Remove one request from `buffer`: it and whether to keep the connection, or None if it is incomplete.

    Raises ValueError on what is not HTTP.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > MAX_HEAD:
            raise ValueError("request head too long")
        return None
    first, *rest = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):  # noqa: PLR2004 - method, target, version
        raise ValueError("malformed request line")
    headers = _headers(rest)
    length = int(headers.get("content-length") or 0)
    if not 0 <= length <= MAX_BODY:
        raise ValueError("impossible Content-Length")
    if len(buffer) < end + 4 + length:
        return None
    body = bytes(buffer[end + 4 : end + 4 + length])
    del buffer[: end + 4 + length]
    target = urlsplit(parts[1])
    query = dict(parse_qsl(target.query, keep_blank_values=True))
    keep = parts[2] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return Request(parts[0], unquote(target.path), query, body), keep


def common_routes(
    ready: Callable[[], str | None],
    metrics: Callable[[], dict[str, float]],
    *,
    component: str,
    alerts: Alerts | None = None,
    prefix: str = "paperfirm",
) -> Router:
    """Return a router with `/health`, `/ready`, `/metrics` and `/alerts`.

    `ready` gives the reason why not, or None.
    """
    router = Router()

    def scraped(_: Request) -> Response:
        values = metrics() | (alerts.metrics() if alerts is not None else {})
        return Response(200, render_metrics(values, prefix=prefix).encode(), "text/plain; version=0.0.4")

    router.add("GET", "/health", lambda _: json({"status": "ok", "component": component}))
    router.add("GET", "/ready", lambda _: readiness(ready()))
    router.add("GET", "/metrics", scraped)
    router.add("GET", "/alerts", lambda _: json({"alerts": alerts.active if alerts is not None else []}))
    return router


def readiness(reason: str | None, **more: Any) -> Response:
    """200 when there is no reason against it, else 503 with the reason."""
    if reason is None:
        return json({"ready": True} | more)
    return json({"ready": False, "reason": reason} | more, 503)


def render_metrics(values: dict[str, float], *, prefix: str = "paperfirm") -> str:
    """Prometheus text: names ending in `_total` are counters, all others gauges."""
    families: dict[str, list[str]] = {}
    for name, value in values.items():
        families.setdefault(name.split("{")[0], []).append(f"{prefix}_{name} {value}")
    lines: list[str] = []
    for family, samples in families.items():
        kind = "counter" if family.endswith("_total") else "gauge"
        lines += [f"# TYPE {prefix}_{family} {kind}", *samples]
    return "\n".join(lines) + "\n"


async def serve(port: int, router: Router) -> asyncio.Server:
    """Serve a router on a loopback port (SO_REUSEPORT, beside the supervisor's reservation)."""
    return await listen(port, lambda: _Connection(router))


async def _exchange(
    method: str, host: str, port: int, target: str, body: bytes
) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection(host, port, limit=MAX_HEAD)
    try:
        head = f"{method} {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = _headers(rest)
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return int(first.split(" ")[1]), headers, await _chunks(reader)
        length = headers.get("content-length")
        content = await (reader.read(-1) if length is None else reader.readexactly(int(length)))
        return int(first.split(" ")[1]), headers, content
    finally:
        writer.close()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    return b"".join(parts)


async def fetch(
    url: str, *, method: str = "GET", body: bytes = b"", limit_s: float = 5.0
) -> tuple[int, bytes]:
    """Make one request on a connection of its own; returns status and body. Raises HttpError."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        async with asyncio.timeout(limit_s):
            status, _, content = await _exchange(
                method, parts.hostname or "127.0.0.1", parts.port or 80, target, body
            )
    except TimeoutError as error:
        raise HttpError(f"{method} {url}: no answer within {limit_s} s") from error
    except (OSError, EOFError, ValueError, IndexError, asyncio.LimitOverrunError) as error:
        raise HttpError(f"{method} {url}: {error or type(error).__name__}") from error
    return status, content
