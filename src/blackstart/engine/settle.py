"""The end of a trial's measuring: let the books settle, then read everything that the checkers compare."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec

from blackstart.contracts import Clock, HasState, Rig, Sink, Target, TellsMarket, TellsSessions
from blackstart.errors import BlackstartError
from blackstart.model.record import StateRead

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.contracts import Oracle
    from blackstart.model.manifest import Manifest
    from blackstart.model.record import Record

_TOGETHER = ("orders", "risk", "positions")
_REST_NS = 3_000_000_000
_READ_NS = 15_000_000_000
_AGAIN_NS = 7_000_000
_LOOK_NS = 50_000_000
_EQUAL_NS = 300_000_000
_UNCOUNTED_NS = 600_000_000

Asking = Callable[[], Awaitable[Any]]
Totals = dict[str, tuple[int | None, int | None]]


async def quiesce(rig: Rig, clock: Clock, limit_s: float) -> dict[str, Any]:
    """Wait until both sides of every stream have come to rest; returns how it ended, for the history.

    At rest: the counts are the same on both sides and unchanged for 300 ms; where some cannot be counted
    cheaply, for 0.6 s; where any differ, for as long as the target may deliver them again (`settle_s` of the
    stream). Never longer than `limit_s`: what is missing then is missing, except of a stream of which the
    target still gained events within `settle_s`: it is `rising`.
    """
    start = changed = clock.now().mono_ns
    last: Totals = {}
    gained: dict[str, int] = {}
    while True:
        totals = await _totals(rig)
        now = clock.now().mono_ns
        gained |= dict.fromkeys(_gaining(last, totals), now)
        if totals != last:
            last, changed = totals, now
        if now - changed >= _patience_ns(totals, rig.target.manifest):
            return {"settled": True, "waited_ms": (now - start) / 1e6, "totals": totals}
        if now - start > limit_s * 1e9:
            rising = _rising(gained, totals, rig.target.manifest, now)
            return {"settled": False, "waited_ms": (now - start) / 1e6, "totals": totals, "rising": rising}
        await clock.sleep_until(now + _LOOK_NS)


async def _totals(rig: Rig) -> Totals:
    found: Totals = {}
    for name in rig.target.manifest.streams:
        try:
            found[name] = await rig.totals(name)
        except BlackstartError:
            found[name] = (None, None)
    return found


def _gaining(before: Totals, now: Totals) -> list[str]:
    """Name the streams of which the target holds more than when we last looked."""
    pairs = ((name, before.get(name, (None, None))[1], held) for name, (_, held) in now.items())
    return [name for name, old, new in pairs if old is not None and new is not None and new > old]


def _rising(gained: Mapping[str, int], totals: Totals, manifest: Manifest, now_ns: int) -> list[str]:
    """Name those that were still catching up with what was acknowledged."""
    return [
        name
        for name, (ours, theirs) in totals.items()
        if name in gained and ours and theirs is not None and theirs < ours
        if now_ns - gained[name] < manifest.streams[name].settle_s * 1e9
    ]


def _patience_ns(totals: Totals, manifest: Manifest) -> int:
    differing = [name for name, pair in totals.items() if None not in pair and pair[0] != pair[1]]
    if differing:
        return round(max(manifest.streams[name].settle_s for name in differing) * 1e9)
    return _UNCOUNTED_NS if any(None in pair for pair in totals.values()) else _EQUAL_NS


class _Reading(msgspec.Struct, frozen=True):
    """One document as it was read."""

    mono_ns: int
    document: Any = None
    error: str | None = None
    unreachable: bool = False
    asked_mono_ns: int | None = None


class _Reader:
    """Asks for documents side by side: one dead host costs one time-out, and all together at most 15 s."""

    def __init__(self, clock: Clock, hosts: Mapping[str, str]) -> None:
        self._clock, self._hosts = clock, hosts
        self._end = clock.now().mono_ns + _READ_NS
        self._dead: dict[str, str] = {}

    async def read(self, askings: Mapping[str, Asking]) -> dict[str, _Reading]:
        """Return a reading of each, in their order.

        Once a host could not be reached, the others of that host are not waited for, nor asked again.
        """
        tasks = {
            name: asyncio.ensure_future(_ask(self._clock, asking))
            for name, asking in askings.items()
            if self._host(name) not in self._dead
        }
        limit = asyncio.ensure_future(self._clock.sleep_until(self._end))
        try:
            while waiting := [task for name, task in tasks.items() if self._worth_waiting(name, task)]:
                await asyncio.wait([limit, *waiting], return_when=asyncio.FIRST_COMPLETED)
                self._note_dead(tasks)
                if limit.done():
                    break
            return {name: self._reading(name, tasks.get(name)) for name in askings}
        finally:
            for task in (limit, *tasks.values()):
                task.cancel()
            await asyncio.wait([limit, *tasks.values()])

    def _worth_waiting(self, name: str, task: asyncio.Task[_Reading]) -> bool:
        return not task.done() and self._host(name) not in self._dead

    def _note_dead(self, tasks: Mapping[str, asyncio.Task[_Reading]]) -> None:
        for name, task in tasks.items():
            if task.done() and (reading := task.result()).unreachable:
                self._dead.setdefault(self._host(name), f"not waited for: {reading.error}")

    def _reading(self, name: str, task: asyncio.Task[_Reading] | None) -> _Reading:
        if task is not None and task.done():
            return task.result()
        why = self._dead.get(self._host(name), f"not read within {_READ_NS / 1e9:g} s")
        return _Reading(self._clock.now().mono_ns, None, why, unreachable=True)

    def _host(self, name: str) -> str:
        """Return what of a document's address comes before the path; variables stand as they are."""
        url = self._hosts.get(name, "")
        parts = urlsplit(url)
        return parts.netloc or url.split("/", 1)[0]


async def read_state(rig: Rig, clock: Clock, sink: Sink, moment: Literal["before", "after"]) -> None:
    """Read every document of the manifest, and the oracle's side.

    What cannot be read is recorded with its error.
    After the recovery the documents are read at one moment of rest: a strategy may still be asking, and be
    refused, while the market is closed, and documents read at different moments would contradict each other.
    What of the oracle moves whether anybody trades or not is read before and after them.
    """
    oracle = rig.oracle
    outside = _outside(oracle) if moment == "after" else {}
    for name, one in (await _Reader(clock, {}).read(outside)).items():
        _record(sink, "oracle", moment, name, one)
    for name, one in (await _documents(rig.target, clock, at_rest=moment == "after")).items():
        _record(sink, "target", moment, name, one)
    if oracle is not None:
        askings: dict[str, Asking] = {"orders": oracle.open_orders, "positions": oracle.positions, **outside}
        for name, one in (await _Reader(clock, {}).read(askings)).items():
            _record(sink, "oracle", moment, name, one)


def _outside(oracle: Oracle | None) -> dict[str, Asking]:
    """Return what the oracle tells of the market and of the target's sessions, if it does."""
    askings: dict[str, Asking] = {}
    if isinstance(oracle, TellsMarket):
        askings["market_data"] = oracle.market
    if isinstance(oracle, TellsSessions):
        askings["connectivity"] = oracle.sessions
    return askings


async def _documents(target: Target, clock: Clock, *, at_rest: bool) -> dict[str, _Reading]:
    """Read all documents.

    `at_rest` again and again until those that belong together stood still, at most 3 s.
    """
    if not isinstance(target, HasState):
        return {}
    end = clock.now().mono_ns + _REST_NS
    names = list(target.manifest.state)
    together = [name for name in _TOGETHER if name in names]
    apart = [name for name in names if name not in together]
    reader = _Reader(clock, {name: spec.url for name, spec in target.manifest.state.items()})

    def read(some: list[str]) -> Awaitable[dict[str, _Reading]]:
        return reader.read({name: partial(target.document, name) for name in some})

    while True:
        found = await read(apart) | await read(together)
        if not at_rest:
            return found
        again = await read(together)
        still = all(_content(found[name]) == _content(one) for name, one in again.items())
        if (still and not _pending(found) and not _pending(again)) or clock.now().mono_ns > end:
            return found
        await clock.sleep_until(clock.now().mono_ns + _AGAIN_NS)


def _content(reading: _Reading) -> Any:
    document = reading.document
    return {k: v for k, v in document.items() if k != "mono_ns"} if isinstance(document, dict) else document


def _pending(found: Mapping[str, _Reading]) -> bool:
    document = found["orders"].document if "orders" in found else None
    orders = document.get("orders", ()) if isinstance(document, dict) else ()
    return any(str(one.get("status", "")).startswith("pending") for one in orders if isinstance(one, dict))


async def _ask(clock: Clock, asking: Asking) -> _Reading:
    asked = clock.now().mono_ns
    try:
        document = await asking()
    except BlackstartError as error:
        unreachable = isinstance(error.__cause__, OSError)
        return _Reading(clock.now().mono_ns, None, error.render(), unreachable=unreachable)
    told = dict(document) if isinstance(document, Mapping) else document
    return _Reading(clock.now().mono_ns, told, asked_mono_ns=asked)


def _record(
    sink: Sink,
    side: Literal["target", "oracle"],
    moment: Literal["before", "after"],
    name: str,
    reading: _Reading,
) -> None:
    sink(
        StateRead(
            side=side,
            moment=moment,
            name=name,
            mono_ns=reading.mono_ns,
            document=reading.document,
            error=reading.error,
            asked_mono_ns=reading.asked_mono_ns,
        )
    )


async def export(rig: Rig, clock: Clock, sink: Sink, folder: Path) -> None:
    """Write both sides of every stream as ledger files.

    Both sides of one moment: when orders moved meanwhile (a strategy may still cancel what rests while the
    market is closed) everything is written once more, for at most 3 s.
    """
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240 - one call, after everything was measured
    end = clock.now().mono_ns + _REST_NS
    rest = await _moving(rig, clock)
    while True:
        ledgers = [
            ledger for name in rig.target.manifest.streams for ledger in await _both(rig, name, folder)
        ]
        before, rest = rest, await _moving(rig, clock)
        if (before == rest and not rest.pending) or clock.now().mono_ns > end:
            break
        await clock.sleep_until(clock.now().mono_ns + _AGAIN_NS)
    for ledger in ledgers:
        sink(ledger)


class _Moving(msgspec.Struct, frozen=True):
    """What moves while ledgers are written: counts, and the orders that rest on either side."""

    totals: Totals
    mine: Any
    theirs: Any
    pending: bool


async def _moving(rig: Rig, clock: Clock) -> _Moving:
    target, oracle = rig.target, rig.oracle
    askings: dict[str, Asking] = {}
    if isinstance(target, HasState) and "orders" in target.manifest.state:
        askings["orders"] = partial(target.document, "orders")
    if oracle is not None:
        askings["oracle"] = oracle.open_orders
    found = await _Reader(clock, {}).read(askings)
    mine, theirs = (_content(found[name]) if name in found else None for name in ("orders", "oracle"))
    return _Moving(await _totals(rig), mine, theirs, _pending(found))


async def _both(rig: Rig, stream: str, folder: Path) -> list[Record]:
    ledgers = [await rig.acknowledged(stream, folder)]
    if isinstance(rig.target, HasState):
        ledgers.append(await rig.target.export(stream, folder))
    return ledgers
