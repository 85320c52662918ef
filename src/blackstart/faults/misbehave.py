"""A misbehaviour of the exchange: it delays, drops, duplicates, lies, cuts, falls silent (R7, R42, R77).

What it can do stands in docs/reference/exchange-interface.md.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.contracts import FaultContext, Misbehaving, TellsDeeds
from blackstart.errors import BlackstartError, FaultError
from blackstart.faults import alone
from blackstart.model.fault import Receipt, Witness
from blackstart.model.manifest import Match
from blackstart.model.match import matches
from blackstart.model.record import OracleSeen, Record, SignalSeen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from blackstart.model.fault import Undo
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_WITNESS_LIMIT_NS = 3_000_000_000
_LOOK_NS = 5_000_000
_DEED_LIMIT_S = 10.0
_OURS = ("action", "on", "limit_s")

# Those after which the connection is gone: the exchange tells that in an event of its own.
CUTS = (
    "disconnect",
    "disconnect_before_booking",
    "disconnect_after_booking",
    "disconnect_before_send",
    "disconnect_after_send",
    "disconnect_mid_message",
    "half_open",
)

OF_A_MESSAGE = {"delay", "drop", "duplicate", "corrupt"}

ACTIONS = (
    "delay",
    "hold",
    "release",
    "drop",
    "duplicate",
    "reorder",
    "corrupt",
    *CUTS,
    "slow_read",
    "freeze",
    "refuse_logon",
    "skew_sending_time",
    "skew_transact_time",
    "slow_answers",
    "lose_messages",
    "market_data gap",
    "market_data stale",
    "market_data crossed",
    "market_data failover",
    "market_data nonsense",
)
"""What the paper exchange can be asked for, besides its end: that is the fault `kill`."""

_ENDS = {"kill", "restart"}
_BY_KILL = (
    "an exchange that is to end is a component like any other: use the fault `kill` on it (with a trigger"
    ' at = "oracle" for an event), and it is started again with its ledger; without that ledger nobody could'
    " tell what was lost, so it is never taken away"
)


class Misbehave:
    """The exchange misbehaves on order, by its control interface.

    `parameters.action` is what it does; `on` the event at which, with the fields it must have. Without
    `on` it does it at once, or to the next message. All further parameters go to the exchange. T0 is
    when it did it, by its own stamp; it must happen within `limit_s` (10 s).
    """

    name = "misbehave"

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        if target.oracle is None:
            return "the manifest names no exchange"
        action = self.action(step)
        if not action:
            return "parameters.action is missing: what is the exchange to do?"
        if action in _ENDS:
            return f"parameters.action `{action}`: {_BY_KILL}"
        known = target.oracle.kind != "exchange" or action in ACTIONS
        return None if known else f"parameters.action `{action}` is none of: {', '.join(ACTIONS)}"

    def action(self, step: FaultStep) -> str:
        """Say what the exchange is to do."""
        return str(step.parameters.get("action", ""))

    def selective(self, step: FaultStep) -> str | None:
        """See `contracts.Selective`: what is done to one message, chosen by an event of one symbol."""
        if self.action(step) not in OF_A_MESSAGE:
            return f"only {', '.join(sorted(OF_A_MESSAGE))} are done to a message alone"
        event = _event(step.parameters, step.symbols)
        if event is None or event.event == "report_sent" or len(step.symbols) != 1:
            return "the message is chosen by an event (`on`) that tells its symbol, of exactly one symbol"
        return None

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Arm it and wait until it happened; what disarms the exchange is in the guardian's hands first."""
        oracle, action = misbehaving(ctx), self.action(step)
        lasts = alone.refuse_disarmed(ctx.recorded(), step.duration_s, self.name)
        before = ctx.clock.now().mono_ns
        undo, answer = await arm(ctx, {**step.parameters, "action": action}, step.symbols)
        try:
            t0 = await happened(ctx, answer, float(step.parameters.get("limit_s", _DEED_LIMIT_S)))
        except BaseException:
            with contextlib.suppress(BlackstartError):  # the guardian, who holds it, tries as well
                await oracle.behave()
            raise
        return Receipt(
            fault=self.name,
            mechanism=f"the exchange: {action.replace('_', ' ')}",
            t0_mono_ns=t0,
            t0_source="the exchange's stamp",
            uncertainty_ns=int(answer.get("uncertainty_ns", 0)),
            undo=(undo,),
            data={"action": action, "answer": dict(answer), "asked_mono_ns": before, **lasts},
        )

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Prove it by somebody else than the call.

        The exchange's event stream, which is its ledger, or the target that noticed a cut.
        """
        action, wanted = receipt.data["action"], {receipt.data["answer"].get("id")}
        since = receipt.data["asked_mono_ns"]
        look = cut_traces if action in CUTS else deed_traces
        traces = await looked_for(ctx, lambda records: look(ctx.target.manifest, records, since, wanted))
        bit = True if traces else await unseen(ctx, wanted)
        return Witness(bit=bit, evidence={"traces": traces})

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Disarm the exchange."""
        del receipt
        await misbehaving(ctx).behave()


async def arm(
    ctx: FaultContext, parameters: Mapping[str, Any], symbols: Sequence[str] = ()
) -> tuple[Undo, Mapping[str, Any]]:
    """Arm what `parameters` say; the guardian holds the undo before. Returns it and the exchange's answer."""
    oracle, undo = misbehaving(ctx), disarming(ctx)
    await ctx.protect([undo])
    rest = {key: value for key, value in parameters.items() if key not in _OURS}
    action = str(parameters.get("action", ""))
    return undo, await oracle.misbehave(action, on=_event(parameters, symbols), parameters=rest)


def misbehaving(ctx: FaultContext) -> Misbehaving:
    """Return the exchange as one that can misbehave. Raises FaultError."""
    if not isinstance(ctx.oracle, Misbehaving):
        raise FaultError("the oracle cannot misbehave", where=ctx.target.name)
    return ctx.oracle


def disarming(ctx: FaultContext) -> Undo:
    """Return the undo, under a name of its own: a trial may hold several."""
    undo = misbehaving(ctx).disarm()
    return msgspec.structs.replace(undo, id=f"{undo.id}:{ctx.clock.now().mono_ns}")


async def happened(ctx: FaultContext, answer: Mapping[str, Any], limit_s: float) -> int:
    """Return when the exchange did it. Raises FaultError when it did not within `limit_s`."""
    if answer.get("mono_ns") is not None:
        return int(answer["mono_ns"])
    oracle, identifier = ctx.oracle, str(answer.get("id", ""))
    if not isinstance(oracle, TellsDeeds):
        raise FaultError(f"the exchange did not say when it did it: {dict(answer)}", where=ctx.target.name)
    deadline = ctx.clock.now().mono_ns + round(limit_s * 1e9)
    while not (done := await oracle.deeds(identifier)):
        if ctx.clock.now().mono_ns > deadline:
            text = f"misbehaviour {identifier} did not happen within {limit_s:g} s: its event never came"
            raise FaultError(text, where=ctx.target.name)
        await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _LOOK_NS)
    return done[0]


async def looked_for(
    ctx: FaultContext, look: Callable[[Sequence[Record]], list[str]], *, enough: int = 1
) -> list[str]:
    """Look at what was recorded until so much is found, or for 3 s."""
    deadline = ctx.clock.now().mono_ns + _WITNESS_LIMIT_NS
    while len(traces := look(ctx.recorded())) < enough and ctx.clock.now().mono_ns < deadline:
        await ctx.clock.sleep_until(ctx.clock.now().mono_ns + _LOOK_NS)
    return traces


async def unseen(ctx: FaultContext, wanted: Iterable[str | None]) -> bool | None:
    """Judge what left no trace: False when the exchange does not know of one of them; else nobody can tell.

    It may have been done while its events did not reach us.
    """
    if not isinstance(ctx.oracle, TellsDeeds):
        return None
    try:
        done = [bool(await ctx.oracle.deeds(str(identifier))) for identifier in wanted]
    except BlackstartError:
        return None
    return None if all(done) else False


def deed_traces(
    _manifest: Manifest, records: Sequence[Record], since: int, wanted: set[str | None]
) -> list[str]:
    """Find the misbehaviours in the exchange's event stream."""
    return [
        f"oracle: misbehaviour {record.fields.get('id')} ({record.fields.get('action')})"
        for record in records
        if isinstance(record, OracleSeen)
        and record.event == "misbehaviour"
        and record.mono_ns >= since
        and record.fields.get("id") in wanted
    ]


def cut_traces(
    manifest: Manifest, records: Sequence[Record], since: int, _wanted: set[str | None]
) -> list[str]:
    """Find who told the loss of the session since the request went out: the exchange, or the target."""
    noticed = [(one.event, matches(one.where)) for one in manifest.phases.get("detected", ())]

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

    return [trace for record in records if (trace := told(record)) is not None]


def _event(parameters: Mapping[str, Any], symbols: Sequence[str]) -> Match | None:
    on = parameters.get("on")
    if not isinstance(on, dict):
        return None
    where = {key: value for key, value in on.items() if key != "kind"}
    if symbols:
        where["symbol"] = symbols[0]
    return Match(event=str(on.get("kind", "")), where=where)
