"""Nonsense from the exchange: times in 2099 or before 1970, negative prices, absurd quantities (R42)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from blackstart.errors import BlackstartError
from blackstart.faults import alone, misbehave
from blackstart.model.fault import Receipt, Witness
from blackstart.model.manifest import Match

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.record import Record
    from blackstart.model.scenario import FaultStep

_LIMIT_S = 10.0
_FILL = Match(event="report_sent", where={"exec_type": "F"})

# FIX: the field of a fill's report, and what stands there instead. The checksum is right, only sense is not.
_FIX: dict[str, tuple[int, str]] = {
    "time_future": (60, "20991231-23:59:59.999"),
    "time_before_1970": (60, "19010101-00:00:00.000"),
    "time_garbage": (60, "yesterday"),
    "sending_time_future": (52, "20991231-23:59:59.999"),
    "price_negative": (31, "-1"),
    "price_zero": (31, "0"),
    "quantity_negative": (32, "-100"),
    "quantity_absurd": (32, "999999999999"),
}
# Market data: the field of a level, and what stands there.
_MARKET: dict[str, tuple[str, int | str]] = {
    "market_price_negative": ("price", -10_000),
    "market_price_absurd": ("price", 10**17),
    "market_quantity_negative": ("quantity", -1),
    "market_quantity_absurd": ("quantity", 10**15),
    "market_time_future": ("mono_ns", 2**62),
    "market_time_negative": ("mono_ns", -1),
}
KINDS = (*_FIX, *_MARKET)


class Nonsense:
    """The exchange sends impossible times, prices and quantities, checksums right.

    `parameters.kinds` (all but `sending_time_future`), one after the other. Each changes one field of
    the report of a fill (order entry) or of a level (market data). What really happened stays true at
    the exchange and comes by reconciliation or snapshot.
    """

    name = "nonsense"

    def __init__(self) -> None:
        self._ids: set[str | None] = set()

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        unknown = [kind for kind in _kinds(step) if kind not in KINDS]
        if unknown:
            return f"parameters.kinds: no nonsense `{unknown[0]}`; known: {', '.join(KINDS)}"
        return None if target.oracle is not None else "the manifest names no exchange"

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Have it sent, kind by kind, each after the one before has left the exchange; T0 is the first."""
        oracle = misbehave.misbehaving(ctx)
        undo = misbehave.disarming(ctx)
        lasts = alone.refuse_disarmed(ctx.recorded(), step.duration_s, self.name)
        await ctx.protect([undo])
        asked = ctx.clock.now().mono_ns
        moments: dict[str, int] = {}
        try:
            for kind in _kinds(step):
                moments[kind] = await self._send(ctx, kind)
        except BaseException:
            with contextlib.suppress(BlackstartError):  # the guardian, who holds it, tries as well
                await oracle.behave()
            raise
        return Receipt(
            fault=self.name,
            mechanism="the exchange changed fields of messages, checksums right",
            t0_mono_ns=min(moments.values()),
            t0_source="the exchange's stamp",
            undo=(undo,),
            data={"asked_mono_ns": asked, "sent_mono_ns": moments, **lasts},
        )

    async def _send(self, ctx: FaultContext, kind: str) -> int:
        oracle = misbehave.misbehaving(ctx)
        answer: Mapping[str, Any]
        if kind in _FIX:
            tag, value = _FIX[kind]
            answer = await oracle.misbehave("corrupt", on=_FILL, parameters={"tag": tag, "value": value})
        else:
            field, told = _MARKET[kind]
            parameters = {"n": 1, "field": field, "value": told}
            answer = await oracle.misbehave("market_data nonsense", on=None, parameters=parameters)
        self._ids.add(answer.get("id"))
        return await misbehave.happened(ctx, answer, _LIMIT_S)

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Find each of them in the exchange's event stream, which is its ledger."""
        since, wanted = receipt.data["asked_mono_ns"], self._ids

        def look(records: Sequence[Record]) -> list[str]:
            return misbehave.deed_traces(ctx.target.manifest, records, since, wanted)

        found = await misbehave.looked_for(ctx, look, enough=len(wanted))
        evidence = {"traces": found, "kinds": list(receipt.data["sent_mono_ns"])}
        bit = True if len(found) >= len(wanted) else await misbehave.unseen(ctx, wanted)
        return Witness(bit=bit, evidence=evidence)

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Disarm the exchange."""
        del receipt
        await misbehave.misbehaving(ctx).behave()


def _kinds(step: FaultStep) -> list[str]:
    given = step.parameters.get("kinds")
    return list(given) if given else [kind for kind in KINDS if kind != "sending_time_future"]
