"""The end of a trial's measuring: let the books settle, then read everything that the checkers compare."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from blackstart.contracts import Clock, HasState, Oracle, Rig, Sink, Target
from blackstart.errors import BlackstartError
from blackstart.model.record import StateRead

if TYPE_CHECKING:
    from pathlib import Path

_ORDERS = "orders"
_REST_NS = 3_000_000_000
_AGAIN_NS = 7_000_000
_LOOK_NS = 50_000_000
_EQUAL_NS = 300_000_000
_UNCOUNTED_NS = 1_000_000_000
_DIFFERING_NS = 2_000_000_000

Totals = dict[str, tuple[int | None, int | None]]


async def quiesce(rig: Rig, clock: Clock, limit_s: float) -> dict[str, Any]:
    """Wait until both sides of every stream have come to rest; returns how it ended, for the history.

    At rest: the counts are the same on both sides and unchanged for 300 ms; where they cannot be counted cheaply,
    for 1 s; where they differ, for 2 s. Never longer than `limit_s`: what is missing then is missing.
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
    if any(None in pair for pair in totals.values()):
        return _UNCOUNTED_NS
    return _EQUAL_NS if all(one == other for one, other in totals.values()) else _DIFFERING_NS


async def read_state(
    target: Target, oracle: Oracle | None, clock: Clock, sink: Sink, moment: Literal["before", "after"]
) -> None:
    """Read every document of the manifest, and the oracle's side; what cannot be read is recorded with its error.

    The two views of the orders are read one right after the other; after the recovery, at a moment at which nothing is under way.
    """
    names = [name for name in target.manifest.state if name != _ORDERS]
    if isinstance(target, HasState):
        for name in names:
            await _read(sink, clock, "target", moment, name, target.document(name))
        if _ORDERS in target.manifest.state:
            resting = _at_rest(target, clock) if moment == "after" else target.document(_ORDERS)
            await _read(sink, clock, "target", moment, _ORDERS, resting)
    if oracle is not None:
        await _read(sink, clock, "oracle", moment, _ORDERS, oracle.open_orders())
        await _read(sink, clock, "oracle", moment, "positions", oracle.positions())


async def _at_rest(target: HasState, clock: Clock) -> Any:
    """Read the orders until none is pending: a strategy may still be asking, and be refused, while the market is closed."""
    end = clock.now().mono_ns + _REST_NS
    while True:
        document = await target.document(_ORDERS)
        if not _pending(document) or clock.now().mono_ns > end:
            return document
        await clock.sleep_until(clock.now().mono_ns + _AGAIN_NS)


def _pending(document: Any) -> bool:
    orders = document.get(_ORDERS, ()) if isinstance(document, Mapping) else ()
    return any(str(one.get("status", "")).startswith("pending") for one in orders if isinstance(one, Mapping))


async def _read(
    sink: Sink,
    clock: Clock,
    side: Literal["target", "oracle"],
    moment: Literal["before", "after"],
    name: str,
    asking: Awaitable[Any],
) -> None:
    document, problem = None, None
    try:
        document = await asking
    except BlackstartError as error:
        problem = error.render()
    now = clock.now().mono_ns
    sink(
        StateRead(side=side, moment=moment, name=name, mono_ns=now, document=_plain(document), error=problem)
    )


def _plain(document: Any) -> Any:
    return dict(document) if isinstance(document, Mapping) else document


async def export(rig: Rig, sink: Sink, folder: Path) -> None:
    """Write both sides of every stream as ledger files."""
    folder.mkdir(exist_ok=True)
    for name in rig.target.manifest.streams:
        sink(await rig.acknowledged(name, folder))
        if isinstance(rig.target, HasState):
            sink(await rig.target.export(name, folder))
