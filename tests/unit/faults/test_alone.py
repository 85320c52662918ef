"""Faults that would end as one are refused, whichever kind, where the exchange is disarmed as a whole."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from blackstart.errors import FaultError
from blackstart.faults import registry
from blackstart.model.fault import Receipt, Undo
from blackstart.model.record import Injected, Record, Reverted
from blackstart.model.scenario import FaultStep

STEPS = {"misbehave": {"action": "duplicate"}, "disconnect": {}, "nonsense": {"kinds": ["price_zero"]}}


class Exchange:
    """Does at once what it is told."""

    async def misbehave(self, action: str, **_: Any) -> dict[str, Any]:
        """Tell that it is done."""
        return {"id": action, "mono_ns": 1}

    async def behave(self) -> None:
        """Nothing to disarm."""

    def disarm(self) -> Undo:
        """Say how."""
        return Undo(id="exchange:disarm", action="http", arguments={})


class Context:
    """Implements FaultContext around an exchange."""

    def __init__(self) -> None:
        self.oracle, self.target = Exchange(), SimpleNamespace(name="x")
        self.now, self.records, self.protected = 0, list[Record](), list[Undo]()

    @property
    def clock(self) -> Any:
        """Tell another instant each time."""
        self.now += 1
        return SimpleNamespace(now=lambda: SimpleNamespace(mono_ns=self.now))

    def recorded(self) -> list[Record]:
        """Everything recorded so far."""
        return self.records

    async def protect(self, undos: Any) -> None:
        """Note them."""
        self.protected += undos

    def inject(self, kind: str, duration_s: float | None) -> Receipt:
        """Inject one as the engine does."""
        fault: Any = registry.make(kind)
        step = FaultStep(kind=kind, parameters=STEPS[kind], duration_s=duration_s)
        receipt: Receipt = asyncio.run(fault.inject(self, step))
        self.records.append(Injected(receipt=receipt))
        return receipt


@pytest.mark.parametrize("first", STEPS)
@pytest.mark.parametrize("second", STEPS)
@pytest.mark.parametrize(("lasts", "comes"), [(1.0, None), (None, 1.0), (1.0, 2.0)])
def test_the_end_of_one_misbehaviour_is_not_the_end_of_another(
    first: str, second: str, lasts: float | None, comes: float | None
) -> None:
    """It is refused before anything is done, and comes once the other has ended."""
    ctx = Context()
    receipt = ctx.inject(first, lasts)
    with pytest.raises(FaultError, match="still in place"):
        ctx.inject(second, comes)
    assert len(ctx.protected) == 1
    ctx.records.append(Reverted(undo_id=receipt.undo[0].id, verified=True, evidence={}))
    ctx.inject(second, comes)


def test_misbehaviours_that_end_together_may_be_in_place_together() -> None:
    """Without a time of their own both last until everything is taken back."""
    ctx = Context()
    for kind in STEPS:
        ctx.inject(kind, None)
    assert len(ctx.protected) == len(STEPS)
