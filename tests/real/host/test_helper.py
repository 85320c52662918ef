"""A helper process as its owner speaks to it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from blackstart.errors import FaultError
from blackstart.host import helper

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_one_that_was_ended_is_told_as_such(run: Callable[..., Any]) -> None:
    """The kill switch ends helpers; who asks one then hears that, in either loop, and nothing breaks."""

    async def protect(_undos: Any) -> None:
        """Hold nothing: the test ends it itself."""

    async def main() -> None:
        one = await helper.start("netholder", protect)
        os.kill(one.ref.pid, signal.SIGKILL)
        for _ in range(3):
            with pytest.raises(FaultError, match="ended or hangs"):
                await one.ask("counts")
            await asyncio.sleep(0.05)
        await one.close()

    run(main())
