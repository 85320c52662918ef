"""Exchange disconnect: the oracle cuts the session and refuses logons for a while (R7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.contracts import FaultContext, Misbehaving
from blackstart.errors import FaultError
from blackstart.model.fault import Receipt, Witness
from blackstart.model.match import matches
from blackstart.model.record import OracleSeen, Record, SignalSeen

if TYPE_CHECKING:
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_WITNESS_LIMIT_NS = 3_000_000_000
_LOOK_NS = 5_000_000


class Disconnect:
    """`refuse_ms` is how long the exchange refuses logons.

    T0 is when the exchange closed its socket, by its own stamp.
    """

    name = "disconnect"

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        del step
        return None if target.oracle is not None else "the manifest names no exchange"

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Cut the session; what disarms the exchange is in the guardian's hands first."""
        oracle = ctx.oracle
        if not isinstance(oracle, Misbehaving):
            raise FaultError("the oracle cannot misbehave", where=ctx.target.name)
        undo = oracle.disarm()
        await ctx.protect([undo])
        before = ctx.clock.now().mono_ns
        answer = await oracle.misbehave("disconnect", on=None, parameters=step.parameters)
        if answer.get("mono_ns") is None:
            raise FaultError(
                f"the exchange did not say when it cut the session: {dict(answer)}", where=ctx.target.name
            )
        return Receipt(
            fault=self.name,
            mechanism="the exchange closed the session's socket",
            t0_mono_ns=int(answer["mono_ns"]),
            t0_source="the exchange's stamp",
            uncertainty_ns=int(answer.get("uncertainty_ns", 0)),
            undo=(undo,),
            data={"answer": dict(answer), "asked_mono_ns": before},
        )

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Prove it by somebody else than the call.

        The exchange's event stream, or the target that noticed the loss.
        """
        deadline = ctx.clock.now().mono_ns + _WITNESS_LIMIT_NS
        while not (traces := _traces(ctx, receipt)) and ctx.clock.now().mono_ns < deadline:
            await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _LOOK_NS)
        return Witness(bit=bool(traces) or None, evidence={"traces": traces})

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Disarm the exchange."""
        del receipt
        if isinstance(ctx.oracle, Misbehaving):
            await ctx.oracle.behave()


def _traces(ctx: FaultContext, receipt: Receipt) -> list[str]:
    """Find records of the loss since the request went out."""
    since = receipt.data["asked_mono_ns"]
    noticed = [(one.event, matches(one.where)) for one in ctx.target.manifest.phases.get("detected", ())]

    def told(record: Record) -> str | None:
        if (
            isinstance(record, OracleSeen)
            and record.event == "session_disconnected"
            and record.mono_ns >= since
        ):
            return f"oracle: {record.event}"
        if not isinstance(record, SignalSeen) or record.mono_ns < since:
            return None
        hit = any(event == record.event and test(record.fields) for event, test in noticed)
        return f"{record.source}: {record.event}" if hit else None

    return [trace for record in ctx.recorded() if (trace := told(record)) is not None]
