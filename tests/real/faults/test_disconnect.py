"""The disconnect fault on a real paper exchange, with a FIX member of its own in the place of a firm."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.engine.clocks import SystemClock
from blackstart.faults import registry
from blackstart.model.manifest import Manifest, OracleSpec
from blackstart.model.scenario import FaultStep
from blackstart.target import services
from blackstart.target.exchange_oracle import ExchangeOracle
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
