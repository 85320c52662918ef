"""When the firm's start is over: when all parts have done their work once, or after a limit."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from blackstart.engine.clocks import simulate
from paperfirm.supervisor import main


class Parts:
    """Stands for all children: what is not yet at work, look by look; the last answer stays."""

    def __init__(self, *looks: dict[str, str]) -> None:
        self.looks = list(looks)
        self.starting: str | None = "starting"
        self.said: list[str | None] = []

    async def degraded(self) -> dict[str, str]:
        """Answer as the looks say."""
        self.said.append(self.starting)
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


def started_after_s(parts: Parts) -> float:
    """Wait for the end of the start; return how long it took."""

    async def wait() -> float:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await main.await_start(cast("Any", parts))
        return loop.time() - began_s

    return simulate(wait())


def test_the_start_is_over_when_all_parts_work() -> None:
    """Until then readiness names what is missing."""
    parts = Parts({"primary": "none"}, {"postgres": "not connected"}, {})
    assert started_after_s(parts) < 1
    assert parts.said[1:] == ["starting: primary is none", "starting: postgres is not connected"]
    assert parts.starting is None


def test_a_part_that_never_comes_does_not_keep_the_firm_from_trading() -> None:
    """After the limit the start is over, and the part is told as degraded instead."""
    parts = Parts({"postgres": "not connected"})
    assert main.START_LIMIT_S <= started_after_s(parts) < main.START_LIMIT_S + 1
    assert parts.starting is None
