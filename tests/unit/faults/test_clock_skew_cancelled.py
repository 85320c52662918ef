"""A clock that is being moved when the trial ends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from blackstart.engine.clocks import SystemClock
from blackstart.faults import clock_skew, registry
from blackstart.model.fault import ProcessRef
from blackstart.model.scenario import FaultStep

if TYPE_CHECKING:
    import pytest


def test_a_clock_that_was_just_being_moved_is_moved_back(monkeypatch: pytest.MonkeyPatch, midst: Any) -> None:
    """The thread that moves it cannot be cancelled: it is waited for, and what it did is taken back."""
    log: list[str] = []

    def apply(*_: Any, **__: Any) -> tuple[int, int]:
        midst.stay()
        log.append("moved")
        return 0, 1

    async def find(*_: Any) -> dict[str, ProcessRef]:
        return {"v": ProcessRef(1, 1)}

    async def protect(_undos: Any) -> None:
        log.append("protected")

    skew = SimpleNamespace(places=())
    monkeypatch.setattr(clock_skew.death, "find", find)
    monkeypatch.setattr(clock_skew.refs, "alive", lambda _ref: True)
    monkeypatch.setattr(clock_skew.vdso, "prepare", lambda _pid: skew)
    monkeypatch.setattr(clock_skew.vdso, "apply", apply)
    monkeypatch.setattr(clock_skew.vdso, "restore", lambda *_: log.append("moved back"))
    ctx: Any = SimpleNamespace(clock=SystemClock(), protect=protect)

    step = FaultStep(kind="clock_skew", components=("v",))
    asyncio.run(midst.cancel(registry.make("clock_skew").inject(ctx, step)))
    assert log == ["protected", "moved", "moved back"]
