"""A small HTTP/1.1 client: one connection kept open, each answer stamped.

Probes ask with it hundreds of times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

import msgspec

from blackstart.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_LIMIT = 1 << 24  # bytes of a line or a chunk: an answer in one chunk may be large


class Answer(msgspec.Struct, frozen=True):
    """Status and body of one answer."""

    status: int
    body: bytes


class Address(msgspec.Struct, frozen=True):
    """An URL taken apart once."""

    host: str
    port: int
    path: str
    secure: bool

    @classmethod
    def of(cls, url: str) -> Address:
        """Take an http(s) URL apart. Raises TargetError for anything else."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise TargetError("not an http(s) address", where=url)
        secure = parts.scheme == "https"
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.hostname, parts.port or (443 if secure else 80), path, secure)


class Connection:
    """A connection to one host, opened when needed. Every failure closes it and is raised as OSError."""

    def __init__(self, url: str) -> None:
        self.address = Address.of(url)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def request(self, path: str | None = None, *, method: str = "GET", body: Any = None) -> Answer:
        """Ask once.

        A kept connection that the server closed meanwhile is opened again, once. Raises OSError.
        """
        kept = self._writer is not None
        try:
            return await self._ask(path, method, body)
        except ConnectionError:
            if not kept or method != "GET":
                raise
            return await self._ask(path, method, body)

    async def lines(self, path: str | None = None) -> AsyncIterator[list[bytes]]:
        """Follow an endless answer of lines; yields all that came with one read.

        Ends when the server ends it. Raises OSError.
        """
        try:
            status, headers = await self._head(path, "GET", None)
            if status != 200:  # noqa: PLR2004
                raise ConnectionError(f"HTTP {status}")
            rest = b""
            async for data in self._pieces(headers):
                *whole, rest = (rest + data).split(b"\n")
                if whole:
                    yield whole
        finally:
            self.close()

    def close(self) -> None:
        """Close it; the next request opens a new one."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _ask(self, path: str | None, method: str, body: Any) -> Answer:
        done = False
        try:
            status, headers = await self._head(path, method, body)
            content = b"".join([data async for data in self._pieces(headers)])
            done = headers.get("connection", "").lower() != "close"
        except (asyncio.IncompleteReadError, ValueError) as error:
            raise ConnectionError(f"broken answer: {error}") from error
        finally:
            if not done:
                self.close()
        return Answer(status, content)

    async def _head(self, path: str | None, method: str, body: Any) -> tuple[int, dict[str, str]]:
        reader, writer = await self._open()
        payload = b"" if body is None else msgspec.json.encode(body)
        writer.write(self._request_text(path or self.address.path, method, len(payload)) + payload)
        status = int((await _line(reader)).split(" ", 2)[1])
        headers = {}
        while line := await _line(reader):
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return status, headers

    def _request_text(self, path: str, method: str, length: int) -> bytes:
        host = f"{self.address.host}:{self.address.port}"
        content = f"Content-Type: application/json\r\nContent-Length: {length}\r\n" if method != "GET" else ""
        return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n{content}\r\n".encode()

    async def _pieces(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        reader = self._reader
        assert reader is not None
        if headers.get("transfer-encoding", "").lower() == "chunked":
            async for data in _chunks(reader):
                yield data
        elif "content-length" in headers:
            yield await reader.readexactly(int(headers["content-length"]))
        else:
            while data := await reader.read(65536):
                yield data
            self.close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None:
            context = ssl.create_default_context() if self.address.secure else None
            opened = asyncio.open_connection(self.address.host, self.address.port, ssl=context, limit=_LIMIT)
            self._reader, self._writer = await opened
        return self._reader, self._writer


async def _line(reader: asyncio.StreamReader) -> str:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise ConnectionError("the server closed the connection")
    return line.rstrip(b"\r\n").decode("latin-1")


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Undo chunked coding, handing on as many whole chunks as each read brought."""
    buffer = bytearray()
    while True:
        data = await reader.read(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        buffer += data
        content, ended = _whole_chunks(buffer)
        if content:
            yield content
        if ended:
            return


def _whole_chunks(buffer: bytearray) -> tuple[bytes, bool]:
    """Take whole chunks out of `buffer`; the second value says whether the last one came."""
    found: list[bytes] = []
    start = 0
    while (end := buffer.find(b"\r\n", start)) >= 0:
        size = int(buffer[start:end].split(b";")[0], 16)
        stop = end + 2 + size
        if len(buffer) < stop + 2:
            break
        if size == 0:
            return b"".join(found), True
        found.append(bytes(buffer[end + 2 : stop]))
        start = stop + 2
    del buffer[:start]
    return b"".join(found), False


async def fetch_json(url: str, *, limit_s: float = 10.0) -> Any:
    """Return the JSON at an URL. Raises TargetError naming the URL and what came instead."""
    return await call(url, limit_s=limit_s)


async def call(url: str, *, method: str = "GET", body: Any = None, limit_s: float = 10.0) -> Any:
    """Send one request and return the JSON of its answer (None for an empty one). Raises TargetError."""
    async with Connection(url) as connection:
        try:
            async with asyncio.timeout(limit_s):
                answer = await connection.request(method=method, body=body)
        except (OSError, TimeoutError) as error:
            reason = str(error) or f"no answer within {limit_s:g} s"
            raise TargetError(f"cannot be reached: {reason}", where=url) from error
    return decode(answer, url)


def decode(answer: Answer, url: str) -> Any:
    """Return the JSON of an answer. Raises TargetError for an error status or anything but JSON."""
    document = None
    if answer.body:
        with contextlib.suppress(msgspec.DecodeError):
            document = msgspec.json.decode(answer.body)
    if not 200 <= answer.status < 300:  # noqa: PLR2004
        hint = document.get("hint", "") if isinstance(document, dict) else ""
        reason = (
            document.get("error", "") if isinstance(document, dict) else answer.body[:200].decode("latin-1")
        )
        raise TargetError(f"HTTP {answer.status} {reason}".rstrip(), where=url, hint=hint)
    if document is None and answer.body.strip() not in {b"", b"null"}:
        raise TargetError("the answer is not JSON", where=url)
    return document
