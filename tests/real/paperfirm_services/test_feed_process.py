"""The feed's process alone on an exchange: its book in shared memory is damaged and rebuilt (R40)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from paperexchange.testing import running
from paperfirm.config import Firm, Ports, load_exchange, save_firm
from paperfirm.feed.guard import LEVEL_ROW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT_S = 60.0


def free_port() -> int:
    """Return a port that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll a condition; its first true value is returned."""
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s:
        if found := condition():
            return found
        time.sleep(0.02)
    pytest.fail(f"not within {LIMIT_S} s: {what}")


@pytest.fixture
def firm(tmp_path: Path) -> Iterator[Path]:
    """Start an exchange and, alone of a firm, its feed; returns the firm's directory."""
    with running(tmp_path / "x") as exchange:
        folder = tmp_path / "firm"
        folder.mkdir()
        ports = {"feed": Ports(http=free_port(), service=free_port())}
        where = load_exchange(tmp_path / "x" / "endpoints.json")
        save_firm(Firm(dir=str(folder), ports=ports, exchange=where, postgres="", nats=""))
        assert exchange
        feed = subprocess.Popen((sys.executable, "-m", "paperfirm.feed", "--dir", str(folder)))
        yield folder
        feed.send_signal(signal.SIGTERM)
        assert feed.wait(timeout=20) == 0


def told(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the details of the feed's events of a name."""
    path = folder / "events" / "feed.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [one["detail"] for one in map(json.loads, lines) if one["event"] == name]


def test_damage_in_the_feeds_memory_is_told_and_rebuilt(firm: Path) -> None:
    """Bits that turn in the mapped book are told within a sweep, and a snapshot makes the book true again."""
    path = firm / "state" / "feed" / "shm" / "book"
    until(lambda: told(firm, "feed_synchronised"), "the feed follows the exchange")
    until(lambda: path.exists() and any(path.read_bytes()), "the book is in the table")
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        rows = (file.read(LEVEL_ROW.size) for _ in range(size // LEVEL_ROW.size))
        place = next(number for number, row in enumerate(rows) if any(row)) * LEVEL_ROW.size
        file.seek(place + 36)
        file.write(b"\xff")
    (alert,) = until(lambda: told(firm, "alert"), "an operator is called")
    assert alert["code"] == "market_data_corrupt"
    assert alert["symbols"]
    until(lambda: told(firm, "feed_gap"), "the books are not believed")
    (rebuilt,) = until(lambda: told(firm, "market_data_rebuilt"), "a snapshot rebuilds the books")
    assert rebuilt["levels"] > 0
    until(lambda: told(firm, "alert_cleared"), "the alert ends")
    until(lambda: told(firm, "feed_recovered"), "the books are believed again")
