"""What the exchange tells of prices and sessions, asked of a real one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from blackstart.model.manifest import OracleSpec
from blackstart.target.exchange_oracle import ExchangeOracle
from paperexchange.testing import running

if TYPE_CHECKING:
    from pathlib import Path

    from paperexchange.testing import Running


def test_best_prices_last_trade_and_session(tmp_path: Path) -> None:
    """Bid, ask and last trade are those of the book, an empty side is none, and a logout shows."""
    with running(tmp_path / "exchange", "--participants", "0") as exchange:
        ask(exchange)


def ask(exchange: Running) -> None:
    """Trade, and hear of it."""
    url = exchange.endpoints["http"]
    spec = OracleSpec(kind="exchange", url=url, account="FIRM", session="FIRM")
    oracle = ExchangeOracle(cast("Any", None), spec, lambda: url)
    assert asyncio.run(oracle.sessions()) == {"FIRM": False}
    member = exchange.member().connect()
    assert asyncio.run(oracle.sessions()) == {"FIRM": True}
    for price in ("90.00", "91.00"):
        member.report(member.order(price=price), "0")
    seen = asyncio.run(oracle.market())["ALFA"]
    assert seen == {"bid": 910_000, "ask": None, "last": None}
    member.report(member.order(side="2", price="91.00"), "F")
    seen = asyncio.run(oracle.market())["ALFA"]
    assert seen == {"bid": 900_000, "ask": None, "last": 910_000}
