"""How long the guardian lets the packet filter's holder live."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from blackstart.faults.network import kernel
from blackstart.faults.network.kernel import Kernel
from blackstart.faults.network.kind import Treatment
from blackstart.model.fault import ProcessRef, Undo

if TYPE_CHECKING:
    import pytest


class Holder:
    """A holder that does what it is asked for."""

    ref = ProcessRef(7, 7)
    undo = Undo(id="netholder:7", action="kill", arguments={})

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def ask(self, do: str, **_: Any) -> dict[str, int]:
        """Note it."""
        self.log.append(do)
        return {"before_ns": 1, "after_ns": 2}


def test_the_life_of_the_holder_is_limited_from_the_injection_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts before the trigger, however late that is, and is handed over again with the rules."""
    log: list[Any] = []

    async def protect(undos: Any) -> None:
        log.extend(one.id for one in undos)

    async def start(_name: str, protect: Any) -> Holder:
        await protect([Holder.undo])
        return Holder(log)

    monkeypatch.setattr(kernel.helper, "start", start)
    monkeypatch.setattr(kernel, "rules", lambda *_: ())
    ctx: Any = SimpleNamespace(protect=protect)

    async def main() -> Any:
        way = Kernel(Treatment("drop"), 1, own=True)
        await way.aim(ctx)
        log.append("trigger")
        return await way.put(ctx, {}, {}, "both")

    put = asyncio.run(main())
    assert log == ["netholder:7", "trigger", "netholder:7", "filter:blackstart_7", "install"]
    assert [one.id for one in put.undo] == ["netholder:7", "filter:blackstart_7"]
