"""The end of a trial's measuring: let the books settle, then read everything that the checkers compare."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from blackstart.contracts import Clock, HasState, Rig, Sink, Target
from blackstart.errors import BlackstartError
from blackstart.model.record import StateRead

if TYPE_CHECKING:
    from pathlib import Path

_TOGETHER = ("orders", "risk", "positions")
_REST_NS = 3_000_000_000
_AGAIN_NS = 7_000_000
_LOOK_NS = 50_000_000
_EQUAL_NS = 300_000_000
_UNCOUNTED_NS = 600_000_000
_DIFFERING_NS = 2_000_000_000

Totals = dict[str, tuple[int | None, int | None]]


async def quiesce(rig: Rig, clock: Clock, limit_s: float) -> dict[str, Any]:
    """Wait until both sides of every stream have come to rest; returns how it ended, for the history.

    At rest: the counts are the same on both sides and unchanged for 300 ms; where some cannot be counted
    cheaply, for 0.6 s; where any differ, for 2 s. Never longer than `limit_s`: what is missing then is
    missing.
    """
    start = changed = clock.now().mono_ns
    last: Totals = {}
    while True:
        totals = await _totals(rig)
        now = clock.now().mono_ns
        if totals != last:
            last, changed = totals, now
        if now - changed >= _patience_ns(totals):
            return {"settled": True, "waited_ms": (now - start) / 1e6, "totals": totals}
        if now - start > limit_s * 1e9:
            return {"settled": False, "waited_ms": (now - start) / 1e6, "totals": totals}
        await clock.sleep_until(now + _LOOK_NS)


async def _totals(rig: Rig) -> Totals:
    found: Totals = {}
    for name in rig.target.manifest.streams:
        try:
            found[name] = await rig.totals(name)
        except BlackstartError:
            found[name] = (None, None)
    return found


def _patience_ns(totals: Totals) -> int:
    if any(None not in pair and pair[0] != pair[1] for pair in totals.values()):
        return _DIFFERING_NS
    return _UNCOUNTED_NS if any(None in pair for pair in totals.values()) else _EQUAL_NS


class _Reading(msgspec.Struct, frozen=True):
    """One document as it was read."""

    mono_ns: int
    document: Any = None
    error: str | None = None


async def read_state(rig: Rig, clock: Clock, sink: Sink, moment: Literal["before", "after"]) -> None:
    """Read every document of the manifest, and the oracle's side.

    What cannot be read is recorded with its error.
    After the recovery the documents are read at one moment of rest: a strategy may still be asking, and be
    refused, while the market is closed, and documents read at different moments would contradict each other.
    """
    for name, one in (await _documents(rig.target, clock, at_rest=moment == "after")).items():
        _record(sink, "target", moment, name, one)
    oracle = rig.oracle
    if oracle is not None:
        _record(sink, "oracle", moment, "orders", await _ask(clock, oracle.open_orders()))
        _record(sink, "oracle", moment, "positions", await _ask(clock, oracle.positions()))


async def _documents(target: Target, clock: Clock, *, at_rest: bool) -> dict[str, _Reading]:
    """Read all documents.

    `at_rest` again and again until those that belong together stood still, at most 3 s.
    """
    if not isinstance(target, HasState):
        return {}
    end = clock.now().mono_ns + _REST_NS
    names = list(target.manifest.state)
    together = [name for name in _TOGETHER if name in names]
    while True:
        found = {name: await _ask(clock, target.document(name)) for name in names if name not in together}
        found |= await _at_once(target, clock, together)
        if not at_rest:
            return found
        again = await _at_once(target, clock, together)
        still = all(_content(found[name]) == _content(one) for name, one in again.items())
        if (still and not _pending(found) and not _pending(again)) or clock.now().mono_ns > end:
            return found
        await clock.sleep_until(clock.now().mono_ns + _AGAIN_NS)


async def _at_once(target: HasState, clock: Clock, names: list[str]) -> dict[str, _Reading]:
    """Read documents as close together as can be."""
    readings = await asyncio.gather(*(_ask(clock, target.document(name)) for name in names))
    return dict(zip(names, readings, strict=True))


def _content(reading: _Reading) -> Any:
    document = reading.document
    return {k: v for k, v in document.items() if k != "mono_ns"} if isinstance(document, dict) else document


def _pending(found: Mapping[str, _Reading]) -> bool:
    document = found["orders"].document if "orders" in found else None
    orders = document.get("orders", ()) if isinstance(document, dict) else ()
    return any(str(one.get("status", "")).startswith("pending") for one in orders if isinstance(one, dict))


async def _ask(clock: Clock, asking: Awaitable[Any]) -> _Reading:
    try:
        document = await asking
    except BlackstartError as error:
        return _Reading(clock.now().mono_ns, None, error.render())
    return _Reading(clock.now().mono_ns, dict(document) if isinstance(document, Mapping) else document)


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
        )
    )


async def export(rig: Rig, sink: Sink, folder: Path) -> None:
    """Write both sides of every stream as ledger files."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240 - one call, after everything was measured
    for name in rig.target.manifest.streams:
        sink(await rig.acknowledged(name, folder))
        if isinstance(rig.target, HasState):
            sink(await rig.target.export(name, folder))
