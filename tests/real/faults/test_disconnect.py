"""The disconnect fault on a real paper exchange, with a FIX member of its own in the place of a firm."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.engine.clocks import SystemClock
from blackstart.errors import FaultError
from blackstart.faults import misbehave, nonsense, registry
from blackstart.model.manifest import Manifest, OracleSpec
from blackstart.model.scenario import FaultStep
from blackstart.target import services
from blackstart.target.exchange_oracle import ExchangeOracle
from paperexchange import marketdata as feed
from paperexchange import misbehave as exchange_side
from paperexchange.testing import Member, running

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.model.fault import Receipt, Witness

STEP = FaultStep(kind="disconnect", parameters={"refuse_ms": 60_000})


class Context:
    """Implements FaultContext around an exchange; `records` is what was seen of its events."""

    def __init__(self, url: str) -> None:
        spec = OracleSpec(kind="exchange", url=url, account="FIRM", session="FIRM")
        self.manifest = Manifest(schema=1, name="member", oracle=spec)
        self.target = SimpleNamespace(name="member", manifest=self.manifest)
        self.oracle = ExchangeOracle(self.manifest, spec, lambda: url)
        self.clock = SystemClock()
        self.log: list[str] = []
        self.records: list[Any] = []

    async def protect(self, undos: Any) -> None:
        """Note the undos."""
        self.log += [undo.id for undo in undos]

    def recorded(self) -> list[Any]:
        """Everything seen."""
        return self.records


async def cut(ctx: Any, fault: Any) -> tuple[Receipt, Witness]:
    """Watch the exchange, inject, hear the witness."""
    watching = asyncio.create_task(services.oracle_events(ctx.oracle, [], sink=ctx.records.append))
    try:
        await asyncio.sleep(0.2)  # the stream begins now; nothing tells when it does
        receipt = await fault.inject(ctx, STEP)
        return receipt, await fault.witness(ctx, receipt)
    finally:
        watching.cancel()


def test_the_cut_is_protected_stamped_witnessed_and_taken_back(tmp_path: Path) -> None:
    """The member loses its connection at the stated instant and is refused until the fault is taken back."""
    with running(tmp_path / "x", "--participants", "0") as exchange:
        member = exchange.member().connect()
        ctx, fault = Context(exchange.endpoints["http"]), registry.make("disconnect")
        before = time.monotonic_ns()
        receipt, witness = asyncio.run(cut(ctx, fault))
        assert ctx.log == [receipt.undo[0].id]
        assert before < receipt.t0_mono_ns - receipt.uncertainty_ns < receipt.t0_mono_ns < time.monotonic_ns()
        assert receipt.uncertainty_ns < 1_000_000_000
        assert witness.bit is True
        assert witness.evidence["traces"] == ["oracle: session_disconnected"]
        assert member.closed()
        with pytest.raises(ConnectionError):
            exchange.member().connect()
        asyncio.run(fault.revert(ctx, receipt))
        asyncio.run(fault.revert(ctx, receipt))
        back: Member = exchange.member().connect_when_possible()
        assert time.monotonic_ns() - receipt.t0_mono_ns < 60_000_000_000, (
            "back before the refusal ended by itself"
        )
        back.disconnect()


def test_a_cut_that_nobody_saw_is_not_called_proven(tmp_path: Path) -> None:
    """Without a session there is nothing to cut: no trace, so the witness cannot tell."""
    with running(tmp_path / "x", "--participants", "0") as exchange:
        ctx = Context(exchange.endpoints["http"])
        _, witness = asyncio.run(cut(ctx, registry.make("disconnect")))
        assert witness.bit is None


async def misbehaved(ctx: Any, member: Member, kind: str, **parameters: Any) -> tuple[Receipt, Witness]:
    """Watch the exchange, inject while the member sends orders that fill each other, hear the witness."""
    watching = asyncio.create_task(services.oracle_events(ctx.oracle, [], sink=ctx.records.append))
    fault: Any = registry.make(kind)
    step = FaultStep(kind=kind, parameters=parameters)
    assert fault.unavailable(ctx.manifest, step) is None
    try:
        await asyncio.sleep(0.2)  # the stream begins now; nothing tells when it does
        injecting = asyncio.create_task(fault.inject(ctx, step))
        while not injecting.done():
            with contextlib.suppress(TimeoutError, OSError):
                for side in ("1", "2"):
                    await asyncio.to_thread(member.order, side=side, quantity=1, price="100.00")
                await asyncio.to_thread(member.pump, 0.05)
        receipt = injecting.result()
        return receipt, await fault.witness(ctx, receipt)
    finally:
        watching.cancel()


ON_FILL = {"on": {"kind": "fill"}}
CUT = "session_disconnected"
HOW: dict[str, tuple[dict[str, Any], str]] = {
    "delay": ({"ms": 50, **ON_FILL}, ""),
    "hold": ({"ms": 50}, ""),
    "release": ({}, ""),
    "drop": ({}, ""),
    "duplicate": (ON_FILL, ""),
    "reorder": (ON_FILL, ""),
    "corrupt": ({"tag": 38, "value": "-1"}, ""),
    "disconnect": ({"refuse_ms": 60_000}, CUT),
    "disconnect_before_booking": ({}, CUT),
    "disconnect_after_booking": ({}, CUT),
    "disconnect_before_send": (ON_FILL, CUT),
    "disconnect_after_send": (ON_FILL, CUT),
    "disconnect_mid_message": (ON_FILL, CUT),
    "half_open": ({"ms": 60_000}, CUT),
    "slow_read": ({"bytes_per_s": 100, "ms": 200}, ""),
    "freeze": ({"ms": 200}, ""),
    "refuse_logon": ({"ms": 60_000}, ""),
    "skew_sending_time": ({"ms": -3_600_000}, ""),
    "skew_transact_time": ({"ms": 3_600_000, **ON_FILL}, ""),
    "slow_answers": ({"delay_ms": 50, "ms": 200}, ""),
    "lose_messages": ({**ON_FILL, "n": 1}, ""),
    "market_data gap": ({"n": 2}, ""),
    "market_data stale": ({"ms": 200}, ""),
    "market_data crossed": ({"n": 5}, ""),
    "market_data failover": ({}, ""),
    "market_data nonsense": ({"n": 1, "field": "quantity"}, ""),
}
"""How each is asked for, and the trace that it leaves where that is not its own event."""

ENDS = {"kill", "restart"}


def test_no_misbehaviour_of_the_exchange_is_left_out() -> None:
    """What the exchange can do and what the fault takes are the same, but for its end."""
    of_feed = set(re.findall(r"`(\w+)`", feed.Feed.misbehave.__doc__ or "")) - {"n", "ms", "value", "field"}
    there = {*exchange_side.ACTIONS, *(f"market_data {one}" for one in of_feed)}
    assert set(HOW) == set(misbehave.ACTIONS) == there - ENDS


@pytest.mark.parametrize("action", HOW)
def test_every_misbehaviour_is_a_fault(tmp_path: Path, action: str) -> None:
    """It happens at the stated instant, on its event or at once; the ledger witnesses it; it is lifted."""
    parameters, trace = HOW[action]
    trace = trace or f"misbehaviour {'D' if ' ' in action else 'M'}1 ({action})"
    with (
        running(tmp_path / "x", "--participants", "0") as exchange,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as subscriber,
    ):
        address = exchange.endpoints["market_data"]
        subscriber.sendto(b'{"subscribe": "*"}', (address["host"], address["port"]))
        member = exchange.member().connect()
        ctx: Any = Context(exchange.endpoints["http"])
        before = time.monotonic_ns()
        receipt, witness = asyncio.run(misbehaved(ctx, member, "misbehave", action=action, **parameters))
        assert before < receipt.t0_mono_ns < time.monotonic_ns()
        assert ctx.log == [receipt.undo[0].id]
        assert witness.bit is True
        assert any(trace in one for one in witness.evidence["traces"])
        member.disconnect()
        asyncio.run(registry.make("misbehave").revert(ctx, receipt))
        assert not any(one["armed"] for one in exchange.get("/control/misbehaviours")["misbehaviours"])
        exchange.member().connect_when_possible().disconnect()


@pytest.mark.parametrize(
    ("action", "told"), [("kill", "use the fault `kill`"), ("restart", "its ledger"), ("dealy", "none of")]
)
def test_what_the_fault_cannot_do_is_refused_beforehand(action: str, told: str) -> None:
    """An end of the exchange is the fault `kill`; a misspelt action is told before anything is started."""
    manifest = Context("http://127.0.0.1:1").manifest
    step = FaultStep(kind="misbehave", parameters={"action": action, "on": {"kind": "fill"}})
    assert told in str(registry.make("misbehave").unavailable(manifest, step))


def test_a_misbehaviour_whose_event_never_comes_is_an_error_and_disarmed(tmp_path: Path) -> None:
    """What did not happen is no fault, and will not happen later."""
    with running(tmp_path / "x", "--participants", "0") as exchange:
        ctx = Context(exchange.endpoints["http"])
        step = FaultStep(
            kind="misbehave", parameters={"action": "drop", "on": {"kind": "trade_busted"}, "limit_s": 0.2}
        )
        fault: Any = registry.make("misbehave")
        with pytest.raises(FaultError, match="did not happen"):
            asyncio.run(fault.inject(ctx, step))
        assert [one["armed"] for one in exchange.get("/control/misbehaviours")["misbehaviours"]] == [False]


def test_nonsense_of_every_kind_is_sent_and_the_truth_kept(tmp_path: Path) -> None:
    """Each kind leaves the exchange once; its own books keep sound times, prices and quantities."""
    with running(tmp_path / "x", "--participants", "20") as exchange:
        address = exchange.endpoints["market_data"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as subscriber:
            subscriber.sendto(b'{"subscribe": "*"}', (address["host"], address["port"]))
            member = exchange.member().connect()
            ctx = Context(exchange.endpoints["http"])
            receipt, witness = asyncio.run(misbehaved(ctx, member, "nonsense"))
        assert witness.bit is True
        assert set(receipt.data["sent_mono_ns"]) == set(nonsense.KINDS) - {"sending_time_future"}
        for told in (b"\x0160=20991231-23:59:59.999\x01", b"\x0160=yesterday\x01", b"\x0131=-1\x01"):
            assert told in member.received
        fills = exchange.get("/accounts/FIRM/executions?since=0")["executions"]
        assert all(fill["quantity"] > 0 and fill["price"] > 0 for fill in fills)


def test_unknown_nonsense_is_refused_beforehand() -> None:
    """A misspelt kind is an answer of `unavailable` that names the known ones."""
    fault = registry.make("nonsense")
    step = FaultStep(kind="nonsense", parameters={"kinds": ["time_futur"]})
    assert "time_future" in str(fault.unavailable(Manifest(schema=1, name="x"), step))
