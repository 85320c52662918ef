"""Do target and oracle agree while orders flow? Compared so that what is under way is no difference.

A position counts as right once it was equal in three readings in a row: a wrong one looks equal now and then,
when a fill falls between the readings of the two sides. An order counts as one-sided when it was so in every
reading. Of a stream none is missing when the target's count has met the oracle's, read after it. Where the
counts met before anything was broken (`even`) and do not now, events are lost or late: `by_keys` tells. Where
they never do, for the target always holds its events a little later, it must reach the oracle's first count:
a loss shows then only when it is larger than what flows in meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.chaos.model import LeftOut
from blackstart.check.validators.shapes import Orders, Positions
from blackstart.contracts import HasState
from blackstart.errors import BlackstartError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from blackstart.contracts import Clock, Oracle, Rig
    from blackstart.model.stops import Stops

    ByKeys = Callable[[str], Awaitable[int | None]]

_AGAIN_NS = 20_000_000
_IN_A_ROW = 3
_READINGS = 2
POSITIONS, OPEN_ORDERS = "positions", "open orders"
CLOSED = frozenset({"filled", "canceled", "rejected", "expired", "done_for_day"})


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; None where there was nothing to compare or nobody answered.

    `compared` names what both sides answered to: positions, open orders, each stream; `even` the streams
    whose counts met. `missing` compares counts alone: an event that is lost while another is held twice is
    found by the audit at the end.
    """

    positions_right: float | None = None
    wrong: tuple[str, ...] = ()
    wrong_symbols: tuple[str, ...] = ()
    one_sided: tuple[str, ...] = ()
    missing: int | None = None
    short: tuple[str, ...] = ()
    compared: frozenset[str] = frozenset()
    even: frozenset[str] = frozenset()


async def reconcile(
    rig: Rig,
    clock: Clock,
    limit_s: float,
    even: frozenset[str] | None = None,
    by_keys: ByKeys | None = None,
) -> Reconciliation:
    """Compare positions, open orders and counts, each for at most `limit_s`.

    `even` names the streams whose counts met before anything was broken; None: nobody knows yet. `by_keys`
    says of a stream how many acknowledged events are not held, None when it cannot be read.
    """
    share, symbols, wrong = await _positions(rig, clock, limit_s)
    one_sided = await _orders(rig, clock, limit_s)
    lacking = await _counts(rig, clock, limit_s, even)
    if by_keys is not None and even is not None:
        for name in [name for name, count in lacking.items() if count and name in even]:
            known = await by_keys(name)
            lacking = {**lacking, name: known} if known is not None else _without(lacking, name)
    short = {name: count for name, count in lacking.items() if count}
    return Reconciliation(
        positions_right=share,
        wrong=wrong,
        wrong_symbols=symbols,
        one_sided=one_sided or (),
        missing=max(lacking.values(), default=None),
        short=tuple(f"{name}: {count} acknowledged events are not held" for name, count in short.items()),
        compared=frozenset(
            [
                *([POSITIONS] if share is not None else []),
                *([OPEN_ORDERS] if one_sided is not None else []),
                *map(_stream, lacking),
            ]
        ),
        even=frozenset(lacking.keys() - short.keys()),
    )


def _without(lacking: Mapping[str, int], name: str) -> dict[str, int]:
    return {one: count for one, count in lacking.items() if one != name}


def uncompared(rig: Rig, stop: Stops, found: Reconciliation) -> list[LeftOut]:
    """Name the stop conditions that nobody can evaluate while orders flow; `found` was the first try."""
    left = []
    for name, stream in rig.target.manifest.streams.items() if stop.lost_events is not None else ():
        if name in found.even:
            continue
        reason = "the counts never met while orders flowed: a loss shows when it is larger than what flows in"
        if _stream(name) not in found.compared:
            of_load = not stream.acknowledged.startswith("oracle:")
            why = "what was acknowledged stands in the ledger of the load" if of_load else "nobody counts it"
            reason = f"audited at the end alone: {why}"
        left.append(LeftOut(kind="stop lost_events", where=name, reason=reason))
    books = {POSITIONS, OPEN_ORDERS} - found.compared if stop.wrong_positions is not None else set()
    why = "no oracle" if rig.oracle is None else "target and oracle do not both tell them"
    return [*left, *(LeftOut(kind="stop wrong_positions", where=one, reason=why) for one in sorted(books))]


async def _positions(
    rig: Rig, clock: Clock, limit_s: float
) -> tuple[float | None, tuple[str, ...], tuple[str, ...]]:
    end = clock.now().mono_ns + round(limit_s * 1e9)
    in_a_row: dict[str, int] = {}
    pair: tuple[dict[str, int], dict[str, int]] | None = None
    readings = 0
    while True:
        found = await _both_positions(rig)
        if found is not None:
            pair, readings = found, readings + 1
            for symbol in found[0].keys() | found[1].keys():
                before, equal = in_a_row.get(symbol, 0), found[0].get(symbol, 0) == found[1].get(symbol, 0)
                in_a_row[symbol] = before if before == _IN_A_ROW else (before + 1) * equal
        wrong = sorted(symbol for symbol, times in in_a_row.items() if times < _IN_A_ROW)
        if (in_a_row and not wrong) or clock.now().mono_ns > end or not _comparable(rig, "positions"):
            break
        await clock.sleep_until(clock.now().mono_ns + _AGAIN_NS)
    if not in_a_row or pair is None or readings < _IN_A_ROW:
        return None, (), ()
    told = tuple(f"{one}: target {pair[0].get(one, 0)}, oracle {pair[1].get(one, 0)}" for one in wrong)
    return 1 - len(wrong) / len(in_a_row), tuple(wrong), told


async def _both_positions(rig: Rig) -> tuple[dict[str, int], dict[str, int]] | None:
    oracle = rig.oracle
    if oracle is None or not _comparable(rig, "positions"):
        return None
    try:
        ours = await _document(rig, "positions", Positions)
        theirs: Mapping[str, Any] = await oracle.positions()
    except (BlackstartError, msgspec.ValidationError):
        return None
    return (
        {one.symbol: one.quantity for one in ours.positions},
        {symbol: int(one["quantity"]) for symbol, one in theirs.items()},
    )


async def _orders(rig: Rig, clock: Clock, limit_s: float) -> tuple[str, ...] | None:
    oracle = rig.oracle
    if oracle is None or not _comparable(rig, "orders"):
        return None
    end = clock.now().mono_ns + round(limit_s * 1e9)
    suspects: set[str] | None = None
    readings = 0
    while True:
        apart = await _apart(rig, oracle)
        if apart is not None:
            suspects = apart if suspects is None else suspects & apart
            readings += 1
        if suspects == set() or clock.now().mono_ns > end:
            enough = not suspects or readings >= _READINGS
            return None if suspects is None or not enough else tuple(sorted(suspects))
        await clock.sleep_until(clock.now().mono_ns + _AGAIN_NS)


async def _apart(rig: Rig, oracle: Oracle) -> set[str] | None:
    """Name the orders that are open on one side only, right now."""
    try:
        ours = await _document(rig, "orders", Orders)
        theirs = {str(one["cl_ord_id"]) for one in await oracle.open_orders()}
    except (BlackstartError, msgspec.ValidationError):
        return None
    return {one.cl_ord_id for one in ours.orders if one.status not in CLOSED} ^ theirs


async def _counts(rig: Rig, clock: Clock, limit_s: float, even: frozenset[str] | None) -> dict[str, int]:
    """Say of each stream that can be counted how many events the target lacks."""
    found = {}
    for name, stream in rig.target.manifest.streams.items():
        if not stream.acknowledged.startswith("oracle:"):
            continue  # the workload's ledger is read whole for its count: that is for the end
        lacking = await _lacking(rig, name, clock, limit_s, meets=even is None or name in even)
        if lacking is not None:
            found[name] = lacking
    return found


async def _lacking(rig: Rig, stream: str, clock: Clock, limit_s: float, *, meets: bool) -> int | None:
    """Return how far the target was behind when it was least behind; None where nobody counts cheaply."""
    end = clock.now().mono_ns + round(limit_s * 1e9)
    first: int | None = None
    least: int | None = None
    while True:
        acknowledged, held = await _totals(rig, stream)
        later, _ = await _totals(rig, stream) if meets else (acknowledged, None)
        if acknowledged is None or held is None or later is None:
            if first is None:
                return None
        else:
            first = acknowledged if first is None else first
            behind = max(0, (later if meets else first) - held)
            least = behind if least is None else min(least, behind)
        if least == 0 or clock.now().mono_ns > end:
            return least
        await clock.sleep_until(clock.now().mono_ns + _AGAIN_NS)


async def _totals(rig: Rig, stream: str) -> tuple[int | None, int | None]:
    try:
        return await rig.totals(stream)
    except BlackstartError:
        return None, None


def _stream(name: str) -> str:
    return f"stream {name}"


def _comparable(rig: Rig, name: str) -> bool:
    target = rig.target
    return rig.oracle is not None and isinstance(target, HasState) and name in rig.target.manifest.state


async def _document(rig: Rig, name: str, shape: Any) -> Any:
    target = rig.target
    assert isinstance(target, HasState)
    return msgspec.convert(await target.document(name), shape, strict=False)
