"""What the target holds of a stream after recovery: read from an URL, from SQL, or by the glue.

Written as a ledger file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from blackstart.errors import TargetError
from blackstart.target import canonical, glue, http, ledger, reshape, sql
from blackstart.target.ledger import Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from blackstart.model.manifest import Stream
    from blackstart.model.record import LedgerFile
    from blackstart.target.local import LocalTarget

PAGE = 5000
_EMPTY_PAGES = 1000


async def export_recovered(target: LocalTarget, name: str, folder: Path) -> LedgerFile:
    """Write the recovered side of a stream. A failure is told in the record's `error`."""
    return await ledger.write(name, "recovered", folder, _rows(target, name, _stream(target, name)))


async def total(target: LocalTarget, name: str) -> int | None:
    """Return how many events the target holds, where one small question tells: a paged URL's `last`, or SQL.

    Raises TargetError.
    """
    stream = _stream(target, name)
    if stream.url is not None and stream.page:
        url = _with(target.expand(stream.url, where=f"streams.{name}.url"), since=0, limit=1)
        last = (await http.fetch_json(url)).get("last")
        return last if isinstance(last, int) else None
    if stream.sql is not None and stream.dsn is not None:
        dsn = target.expand(stream.dsn, where=f"streams.{name}.dsn")
        return await sql.count(dsn, stream.sql)
    return None


async def _rows(target: LocalTarget, name: str, stream: Stream) -> AsyncIterator[Row]:
    async for record in _records(target, name, stream):
        yield _row(record, stream, name)


def _row(record: dict[str, Any], stream: Stream, name: str) -> Row:
    key = canonical.field(record, stream.key, stream.rename, stream=name)
    if key is None:
        raise TargetError(f"an event whose `{stream.key}` is null", where=f"streams.{name}")
    seq = canonical.field(record, stream.ordered, stream=name) if stream.ordered else None
    return Row(
        key=canonical.text(key),
        seq=seq if isinstance(seq, int) else None,
        content=(
            canonical.content(record, stream.content, stream.rename, stream=name) if stream.content else None
        ),
        late=_late(record, stream, name),
    )


def _late(record: dict[str, Any], stream: Stream, name: str) -> bool:
    """Return what the target says of it; a text like "false" or a number is no answer. Null is none, too."""
    field = stream.rename.get("late", "late")
    said = record.get(field)
    if said is None or isinstance(said, bool):
        return bool(said)
    raise TargetError(f"`{field}` is neither true nor false: {said!r}", where=f"streams.{name}")


async def _records(target: LocalTarget, name: str, stream: Stream) -> AsyncIterator[dict[str, Any]]:
    source: AsyncIterator[dict[str, Any]]
    if stream.url is not None:
        url = target.expand(stream.url, where=f"streams.{name}.url")
        source = _paged(url, stream) if stream.page else _listed(url, stream)
    elif stream.sql is not None:
        dsn = target.expand(stream.dsn or "", where=f"streams.{name}.dsn")
        source = sql.rows(dsn, stream.sql)
    else:
        source = _glued(target, stream)
    position = 0
    async for record in source:
        position += 1
        # Where the source itself gives the order, `ordered = "#"` numbers the events as they come.
        if stream.ordered == "#":
            record["#"] = position
        yield record


async def _listed(url: str, stream: Stream) -> AsyncIterator[dict[str, Any]]:
    for record in _select(await http.fetch_json(url, limit_s=30.0), stream, url):
        yield record


async def _paged(url: str, stream: Stream) -> AsyncIterator[dict[str, Any]]:
    """Follow cursors: `since` asks, the answer's `next` tells the next; it ends when that does not move.

    A page of which `select` takes nothing is not the end; very many of them are a cursor without one.
    """
    since: Any = 0
    empty = 0
    while empty < _EMPTY_PAGES:
        document = await http.fetch_json(_with(url, since=since, limit=PAGE), limit_s=30.0)
        page = _select(document, stream, url)
        for record in page:
            yield record
        empty = 0 if page else empty + 1
        following = document.get("next")
        if following is None or following == since:
            return
        since = following


async def _glued(target: LocalTarget, stream: Stream) -> AsyncIterator[dict[str, Any]]:
    module = glue.load(glue.path(target.manifest))
    found: Any = glue.function(module, stream.glue or "")(target.settings())
    if hasattr(found, "__aiter__"):
        async for record in found:
            yield record
        return
    for record in await found:
        yield record


def _select(document: Any, stream: Stream, url: str) -> list[dict[str, Any]]:
    found = reshape.search(stream.select, document, where=url)
    if not isinstance(found, list):
        raise TargetError(f"`{stream.select or '@'}` yields no list", where=url)
    return found


def _with(url: str, **parameters: Any) -> str:
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(parameters)}"


def _stream(target: LocalTarget, name: str) -> Stream:
    try:
        return target.manifest.streams[name]
    except KeyError:
        raise TargetError(f"the manifest has no stream `{name}`", where=target.name) from None
