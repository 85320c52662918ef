from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from blackstart.target import glue
from paperfirm.feed.guard import LEVEL_ROW

FILE = Path(__file__).parents[3] / "targets" / "paperfirm_glue.py"


class Client:
    """Accepts everything and remembers what it was told to cancel."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []

    async def ask(self, name: str, _line: bytes) -> bytes:
        """Accept."""
        return json.dumps({"accepted": name, "cl_ord_id": f"1-{name}"}).encode()

    def tell(self, line: bytes) -> None:
        """Take a cancel."""
        self.cancelled.append(json.loads(line)["cancel"])


def test_the_load_cancels_its_own_old_orders_and_never_a_scenarios() -> None:
    """The large order of R33 must rest until its last slice, however many orders come after it."""
    module: Any = glue.load(FILE)
    client = Client()

    async def trade() -> None:
        await module.write(client, {"client_order_id": "LARGE-1", "tif": "day"})
        for n in range(module.RESTING + 5):
            await module.write(client, {"client_order_id": f"W-{n}", "tif": "day"})

    asyncio.run(trade())
    assert client.cancelled == [f"W-{n}" for n in range(5)]


def test_the_places_of_the_market_data_book_are_its_used_rows(tmp_path: Path) -> None:
    """Each price level of the feed's table is a place that can be damaged, free rows are none."""
    module: Any = glue.load(FILE)
    path = tmp_path / "firm" / "state" / "feed" / "shm" / "book"
    path.parent.mkdir(parents=True)
    row = module.LEVEL.pack(b"ALFA", b"buy", 100, 5, 0)
    path.write_bytes(bytes(module.LEVEL.size) + row + bytes(module.LEVEL.size))
    (place,) = asyncio.run(module.market_book_rows({"run": str(tmp_path)}))
    assert (place["offset"], place["length"], place["name"]) == (len(row), LEVEL_ROW.size, "ALFA buy")
