"""Work that goes to its end also when whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from blackstart.host.finishing import finished


def test_what_it_comes_to_is_told() -> None:
    """Its result, or what it raised."""

    async def fails() -> None:
        raise ValueError("no")

    assert asyncio.run(finished(asyncio.to_thread(lambda: 7))) == 7
    with pytest.raises(ValueError, match="no"):
        asyncio.run(finished(fails()))


@pytest.mark.parametrize("raises", [False, True])
def test_who_is_cancelled_waits_for_the_end_of_it(midst: Any, *, raises: bool) -> None:
    """And hears of the cancelling, whatever came of the work."""
    log = []

    def work() -> None:
        midst.stay()
        log.append("done")
        if raises:
            raise ValueError("no")

    asyncio.run(midst.cancel(finished(asyncio.to_thread(work))))
    assert log == ["done"]
